"""The embedding's rate against hidden's."""

from fractions import Fraction

import pytest

import scalex_eqx as sx
from scalex_eqx.theory import Role, assess, learning_rate_exponents, with_embedding_ratio

LAWS = (sx.standard, sx.ntk, sx.mup, sx.mean_field)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_a_ratio_of_the_width_is_full_alignment(law):
    full = learning_rate_exponents(law, "adam", sx.full_alignment)
    assert with_embedding_ratio(law, "adam", sx.full_alignment, ratio=1) == full
    # No alignment has the root of it already.
    none = learning_rate_exponents(law, "adam", sx.no_alignment)
    assert with_embedding_ratio(law, "adam", sx.no_alignment, ratio="1/2") == none


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("ratio", ["1/2", "1/3", 1])
def test_the_ratio_is_that_of_effective_updates(law, ratio):
    exponents = with_embedding_ratio(law, "adam", sx.full_alignment, ratio=ratio)
    rates = {role: law.a[role] + exponents[role] for role in (Role.embedding, Role.hidden)}
    assert rates[Role.hidden] - rates[Role.embedding] == Fraction(ratio)
    found = assess(law, "adam", sx.full_alignment, exponents)
    assert found.stable
    others = learning_rate_exponents(law, "adam", sx.full_alignment)
    assert {r: c for r, c in exponents.items() if r != Role.embedding} == {
        r: c for r, c in others.items() if r != Role.embedding
    }


def test_unit_scaled_mup_divides_the_embedding_rate_by_the_root_of_the_width():
    """u-muP: embedding 1 / sqrt(d), hidden 1 / d in the standard parameterization's terms."""
    exponents = with_embedding_ratio(sx.standard, "adam", sx.full_alignment, ratio="1/2")
    assert exponents[Role.embedding] == Fraction(1, 2) and exponents[Role.hidden] == 1


def test_an_offset_is_part_of_the_update():
    """Muon's updates of square matrices fall as n^-1/2 by themselves: hidden's rate makes up."""
    family = sx.UpdateFamily("mine", 0, 0, sx.LayerExponents("1/4", "1/2", "1/2"))
    exponents = with_embedding_ratio(sx.standard, family, sx.full_alignment, ratio="1/3")
    # Hidden: c + 1/2 = 1. Embedding: c + 1/4 = 1 - 1/3.
    assert exponents[Role.hidden] == Fraction(1, 2)
    assert exponents[Role.embedding] == Fraction(5, 12)


@pytest.mark.parametrize("family", ["sgd", "adafactor"])
def test_only_for_updates_of_one_size(family):
    with pytest.raises(ValueError, match=f"family '{family}' has updates that follow"):
        with_embedding_ratio(sx.standard, family, sx.full_alignment, ratio="1/2")


def test_an_embedding_that_would_grow_is_refused():
    with pytest.raises(ValueError, match=r"would grow as r\^1/2 in 'standard'.*at most 1/2"):
        with_embedding_ratio(sx.standard, "adam", sx.no_alignment, ratio=1)
    with pytest.raises(ValueError, match="ratio is 'half'"):
        with_embedding_ratio(sx.standard, "adam", sx.full_alignment, ratio="half")


def test_a_mapping_would_leave_the_depth_out():
    with pytest.raises(ValueError, match="has a law for the depth, which a mapping"):
        with_embedding_ratio(sx.mup.deep(), "adam", sx.full_alignment, ratio=1)
