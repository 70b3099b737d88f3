"""The law of the density against the printed table, and against the balance of the width."""

from fractions import Fraction

import pytest

from scalex_eqx.theory import (
    Power,
    adafactor,
    adam,
    density_exponent,
    full_alignment,
    muon,
    no_alignment,
    sgd,
)
from scalex_eqx.theory._density import DENSITY_SPREAD, parse_density

HALF = Fraction(1, 2)


@pytest.mark.parametrize(
    ("family", "full", "none"),
    [
        # Dey et al. (2024), table of SmuPar: hidden variance 1 / (m_d m_rho), Adam's rate
        # 1 / (m_d m_rho), SGD's 1 / m_rho.
        pytest.param(adam, 1, HALF, id="adam"),
        pytest.param(sgd, 1, HALF, id="sgd"),
        # RMS(w) has grown as density^-1/2 by itself.
        pytest.param(adafactor, HALF, 0, id="adafactor"),
        pytest.param(muon, 0, 0, id="muon"),
    ],
)
def test_the_exponents(family, full, none):
    assert density_exponent(family, full_alignment) == full
    assert density_exponent(family, no_alignment) == none


def test_the_spread_is_that_of_the_printed_variance():
    assert 2 * DENSITY_SPREAD.density == 1
    assert Power(density=DENSITY_SPREAD.density) == DENSITY_SPREAD


def test_densities_are_exact_and_between_zero_and_one():
    for value in ("1/16", " 0.0625", 0.0625, Fraction(1, 16), "6.25e-2"):
        assert parse_density(value, "density") == Fraction(1, 16)
    # The last would be a number of a billion digits.
    for value in (0, "0/5", "1/0", 2, float("nan"), float("inf"), True, None, "x", "1e-999999999"):
        with pytest.raises(ValueError, match=r"density is .*; expected a number above 0 and at"):
            parse_density(value, "density")
