"""The report names the numbers that each update rule was given, and no others."""

import pytest

from scalex_eqx.experiments._recipe import parse_recipe
from scalex_eqx.experiments._rules import update_rules
from scalex_eqx.optim._catalogue import catalogue

NUMBERS = {
    "adam": {"eps", "b1", "b2"},
    "adamw": {"eps", "b1", "b2"},
    "adam_atan2": {"b1", "b2"},
    "adam_parameter_scaling": {"eps", "b1", "b2", "floor"},
    "adafactor": {"eps", "decay_exponent", "clipping_threshold", "floor"},
    "learned": set(),
    "lion": {"b1", "b2"},
    "micro_adam": {"eps", "b1", "b2"},
    "muon": {"eps", "b1", "b2", "momentum"},
    "sgd": {"momentum"},
    "sign_ema": {"b1"},
    "sign_sgd": set(),
}


@pytest.mark.parametrize("name", catalogue)
def test_only_what_was_used_is_named(name):
    given = "(weight_decay=0.25)" if catalogue[name].decays else ""
    ((rule, said),) = update_rules([parse_recipe(f"mup:{name}{given}:full")]).items()
    every = set().union(*NUMBERS.values())
    found = {name for name in every if f" {name} " in said}
    assert found == NUMBERS[name]
    assert rule == f"update rule {name}{given}"
    assert ("independent weight decay 0.25 a step" in said) == bool(given)


def test_rules_that_differ_are_told_apart():
    recipes = [f"mup:adam{given}:full" for given in ("", "(eps=1e-8)", "(eps=0)", "(eps=1e-12)")]
    said = update_rules([parse_recipe(text) for text in recipes])
    assert list(said) == [f"update rule adam{x}" for x in ("", "(eps=1e-08)", "(eps=0.0)")]
    assert len(set(said.values())) == 3
