"""Moving a factor between multiplier and weight, for any family and alignment."""

from fractions import Fraction

import pytest
from hypothesis import given, settings, strategies as st

from scalex_eqx import theory
from scalex_eqx.theory import (
    Alignment,
    LayerExponents,
    Parameterization,
    Role,
    UpdateFamily,
    assess,
    equivalence,
    shift,
    solve,
)

HALF = Fraction(1, 2)
MATRICES = (Role.embedding, Role.hidden, Role.readout)
BY_NAME = {p.name: p for p in (theory.standard, theory.ntk, theory.mup, theory.mean_field)}

exponents = st.fractions(min_value=-2, max_value=2, max_denominator=6)
shares = st.fractions(min_value=0, max_value=1, max_denominator=4)
triples = st.tuples(exponents, exponents, exponents)
alignments = st.tuples(shares, shares, shares)
families = st.tuples(shares, st.fractions(0, 2, max_denominator=3), triples)


def stable_at_the_start(a: tuple[Fraction, ...], beyond: Fraction) -> Parameterization:
    b = LayerExponents(-a[0], HALF - a[1], HALF + beyond - a[2])
    return Parameterization("drawn", LayerExponents(*a), b)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(triples, shares, triples, families, alignments, alignments, st.integers(0, 5))
def test_learning_rates_move_along(a, beyond, moved, degrees, hidden, readout, depth):
    old, t = stable_at_the_start(a, beyond), LayerExponents(*moved)
    p, q, offset = degrees
    family = UpdateFamily("", p, q, LayerExponents(*offset))
    alignment = {Role.hidden: Alignment("", *hidden), Role.readout: Alignment("", *readout)}
    new = shift(old, t)
    before, after = (solve(x, family, alignment, depth=depth) for x in (old, new))
    for one, other in zip(before.layers, after.layers, strict=True):
        assert other.c == one.c - (1 + p - q) * t[one.role]
        # What training does is the same.
        assert (other.update, other.residual) == (one.update, one.residual)
    assert after.exponents[Role.vector] == before.exponents[Role.vector]
    assert after.verdict == before.verdict
    assert equivalence(old, new) == t
    # What else a solution promises.
    assert before.stable
    assert assess(old, family, alignment, before.exponents, depth=depth).stable
    for one in before.alternatives:
        assert one.solution.stable
        pairs = zip(one.solution.layers, before.layers, strict=True)
        assert any(new.c < old.c for new, old in pairs)


def test_a_shift_is_no_change_of_the_multiplier_alone():
    """Of the check above: it fails if b stays."""
    other = Parameterization("other", LayerExponents(0, 0, "1/4"), LayerExponents(0, HALF, HALF))
    with pytest.raises(ValueError, match=r"readout is 1/2 in the one and 3/4 in the other"):
        equivalence(theory.standard, other)


def test_one_exponent_shifts_all_matrices():
    shifted = shift(theory.mup, "1/4")
    assert shifted.a == LayerExponents("-1/4", "1/4", "3/4")
    assert shifted.b == LayerExponents("1/4", "1/4", "1/4")
    assert shifted.name == "mup (shifted)"


def test_what_was_rounded_is_remembered():
    rough = Parameterization("rough", LayerExponents(0, 0.2, 0), LayerExponents(0, 0.3, HALF))
    assert len(rough.notes) == 2
    assert shift(rough, 1).notes == rough.tied().notes == rough.notes


@pytest.mark.parametrize("value", [0.5, True])
def test_an_inexact_shift_is_refused(value):
    with pytest.raises((ValueError, TypeError)):
        shift(theory.mup, value)


@pytest.mark.parametrize("one", BY_NAME)
@pytest.mark.parametrize("other", BY_NAME)
def test_the_classes(one: str, other: str):
    classes = [{"standard", "ntk"}, {"mup", "mean_field"}]
    if any({one, other} <= members for members in classes):
        t = equivalence(BY_NAME[one], BY_NAME[other])
        moved = shift(BY_NAME[one], t)
        assert (moved.a, moved.b) == (BY_NAME[other].a, BY_NAME[other].b)
    else:
        with pytest.raises(
            ValueError, match=f"'{one}' and '{other}' .* sum|a [+] b of the readout"
        ):
            equivalence(BY_NAME[one], BY_NAME[other])


def test_from_mup_to_mean_field():
    assert equivalence(theory.mup, theory.mean_field) == LayerExponents(HALF, HALF, HALF)
