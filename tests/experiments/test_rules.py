"""The report names the numbers that each update rule was given, and no others."""

import pytest

from scalex_eqx.experiments._config import Setting
from scalex_eqx.experiments._recipe import parse_recipe
from scalex_eqx.experiments._rules import update_rules

NUMBERS = {
    "adam": {"eps", "b1", "b2"},
    "adamw": {"eps", "b1", "b2"},
    "adam_atan2": {"b1", "b2"},
    "adam_parameter_scaling": {"eps", "b1", "b2", "floor"},
    "adafactor": {"eps", "decay_exponent", "clipping_threshold", "floor"},
    "lion": {"b1", "b2"},
    "muon": {"eps", "b1", "b2", "momentum"},
    "sgd": {"momentum"},
}


@pytest.mark.parametrize("optimizer", NUMBERS)
def test_only_what_was_used_is_named(optimizer):
    setting = Setting(8, 1, 4, 4, 1, 1)
    (said,) = update_rules([parse_recipe(f"mup:{optimizer}:full")], setting).values()
    every = set().union(*NUMBERS.values())
    found = {name for name in every if f" {name} " in said}
    assert found == NUMBERS[optimizer]
