"""The numbers that each recipe's update rule was given, as the rule itself has them."""

import dataclasses
from collections.abc import Sequence

from .._parts import blank_state, parts
from .._plan._optimizer import settings
from ._config import Setting
from ._recipe import Recipe

_SAID_ELSEWHERE = ("scale_by_width", "scale_by_learning_rate")


def update_rules(recipes: Sequence[Recipe], setting: Setting) -> dict[str, str]:
    """A fact for each update rule of a sweep: its transformations, each with its numbers."""
    # The rates are in the recipe's name, and those by path would ask for the weights.
    named = {recipe.optimizer: dataclasses.replace(recipe, rates="full") for recipe in recipes}
    return {f"update rule {name}": _said(recipe, setting) for name, recipe in named.items()}


def _said(recipe: Recipe, setting: Setting) -> str:
    tx = recipe.transformation(
        1.0, b1=setting.b1, b2=setting.b2, eps=setting.eps, decay=setting.weight_decay
    )
    said = []
    for part in parts(blank_state(tx, {})):
        rule = part.rule
        if rule is None or rule.name in _SAID_ELSEWHERE:
            continue
        if rule.name == "add_weight_decay":
            if setting.weight_decay:
                said.append(f"independent weight decay {setting.weight_decay:g} a step")
            continue
        numbers = settings(rule)
        said.append(rule.name + (f" with {numbers}" if numbers else ""))
    return "; ".join(said)
