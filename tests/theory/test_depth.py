"""The law of the depth, against the printed rules."""

from fractions import Fraction

import pytest

import scalex_eqx as sx
from scalex_eqx.theory import Power, Role, depth_exponent, gradient_power
from scalex_eqx.theory._family import families

ALPHAS = (Fraction(1, 2), Fraction(3, 4), Fraction(1))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_complete_p(alpha: Fraction):
    """Its Table 1: rates of weights, biases and gains as L^(alpha - 1), epsilon as L^-alpha."""
    law = sx.mup.deep(alpha)
    assert depth_exponent(law, families["adam"], sx.full_alignment) == 1 - alpha
    for role in (Role.hidden, Role.vector):
        assert gradient_power(law, role) == gradient_power(sx.mup, role) + Power(depth=alpha)


@pytest.mark.parametrize("family", families)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_residual_stream_changes_by_order_one(family: str, alpha: Fraction):
    """The sum over L branches of effective updates, each through its factor."""
    one = families[family]
    c = depth_exponent(sx.standard.deep(alpha), one, sx.full_alignment)
    update = alpha + c + one.gradient_degree * alpha
    assert update == 1


def test_an_update_that_is_relative_does_not_outgrow_its_weight():
    assert depth_exponent(sx.mup.deep(1), families["adafactor"], sx.no_alignment) == 0
    assert depth_exponent(sx.mup.deep(1), families["adam"], sx.no_alignment) == Fraction(-1, 2)


def test_without_a_law_nothing_depends_on_the_depth():
    assert depth_exponent(sx.mup, families["sgd"], sx.full_alignment) == 0
    assert gradient_power(sx.mup, Role.hidden).depth == 0


@pytest.mark.parametrize("alpha", ["1/4", 2])
def test_an_exponent_that_no_stream_is_bounded_with(alpha):
    with pytest.raises(ValueError, match=r"branch of 'mup .*'.*expected 1/2 to 1"):
        sx.mup.deep(alpha)


def test_the_law_stays_with_tied_and_shifted_ones_and_separates_others():
    assert sx.mup.deep().tied().branch == 1
    assert sx.theory.shift(sx.mup.deep(), "1/2").branch == 1
    assert sx.theory.equivalence(sx.standard.deep(), sx.ntk.deep()).hidden == Fraction(1, 2)
    with pytest.raises(ValueError, match="exponent of residual branches is None in the one and 1"):
        sx.theory.equivalence(sx.standard, sx.ntk.deep())
