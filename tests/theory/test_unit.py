from fractions import Fraction

import pytest

import scalex_eqx as sx
from scalex_eqx import theory
from scalex_eqx.theory import Role

HALF = Fraction(1, 2)


def test_the_exponents_are_those_of_mup_shifted_by_a_half():
    shifted = theory.shift(sx.mup, "1/2")
    assert (sx.u_mup.a, sx.u_mup.b) == (shifted.a, shifted.b)
    assert (sx.u_mup.a, sx.u_mup.b) != (sx.mup.a, sx.mup.b)


def test_rates_under_adam_and_full_alignment():
    rates = theory.learning_rate_exponents(sx.u_mup, "adam", sx.full_alignment)
    assert rates == {"embedding": HALF, "hidden": HALF, "readout": 0, "vector": 0, "constant": 0}
    plain = theory.unit_scaled(embedding_rate=0)
    assert theory.learning_rate_exponents(plain, "adam", sx.full_alignment) == {
        **rates,
        Role.embedding: 0,
    }


def test_rates_fall_with_the_root_of_the_depth():
    assert theory.depth_exponent(sx.u_mup, theory.adam, sx.full_alignment) == HALF


def test_the_name_says_what_differs():
    assert sx.u_mup.name == "u_mup"
    other = theory.unit_scaled(embedding_rate=0, bias="layer", depth="branches")
    assert other.name == "u_mup (embedding_rate 0, bias layer, depth branches)"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bias": "weight"}, "bias is 'weight'; expected 'vector' or 'layer'"),
        ({"depth": 2}, "depth is 2; expected 'layers' or 'branches'"),
        ({"embedding_rate": 0.5}, "embedding_rate is 0.5, of type float"),
    ],
)
def test_refuses_unknown_rules(given, message):
    with pytest.raises(ValueError, match=message):
        theory.unit_scaled(**given)


def test_no_power_of_the_width_leads_from_a_base_to_none():
    with pytest.raises(ValueError, match=r"'mup' counts sizes from .* and 'u_mup' from one"):
        theory.equivalence(sx.mup, sx.u_mup)
