"""The numbers that each recipe's update rule was given, as the rule itself has them."""

import dataclasses
from collections.abc import Sequence

from .._parts import blank_state, parts
from .._plan._optimizer import settings
from ..optim._decay import is_coupled
from ..theory import full_alignment
from ..theory._budget import QUANTITIES
from ._batch_rules import batch_rule_text
from ._foreign import Foreign
from ._recipe import Recipe

_SAID_ELSEWHERE = ("scale_by_width", "scale_by_learning_rate", "add_weight_decay")


def update_rules(recipes: Sequence[Recipe]) -> dict[str, str]:
    """A fact for each update rule of a sweep: its transformations, each with its numbers."""
    named = {recipe.optimizer: recipe for recipe in recipes}
    return {f"update rule {name}": _said(recipe) for name, recipe in named.items()}


def batch_rules(recipes: Sequence[Recipe]) -> dict[str, str]:
    """A fact for each rule for the batch size: what follows it, and how."""
    found: dict[str, str] = {}
    for rule in dict.fromkeys(recipe.batch_rule for recipe in recipes):
        if rule is not None:
            growths = {name: str(getattr(rule, name)) for name in QUANTITIES}
            said = [f"{name.replace('_', ' ')} {text}" for name, text in growths.items() if text]
            decay = [] if rule.decay is None else [f"decay {rule.decay.growth}"]
            found[f"batch rule {batch_rule_text(rule)}"] = ", ".join([*said, *decay])
    return found


def _said(recipe: Recipe) -> str:
    entry = recipe.entry
    if isinstance(entry, Foreign):
        # A report runs no code of others.
        return f"{entry.name}, not this library's, with its own defaults beside what is given"
    # The rates are in the recipe's name, and those by path would ask for the weights.
    plain = dataclasses.replace(recipe, rates=full_alignment, multipliers=())
    said = []
    for part in parts(blank_state(plain.transformation(1.0), {})):
        rule = part.rule
        if rule is None or rule.name in _SAID_ELSEWHERE:
            continue
        numbers = settings(rule)
        said.append(rule.name + (f" with {numbers}" if numbers else ""))
    decay = entry.decay_options(**dict(recipe.arguments))
    if decay:
        mode = decay["decay_mode"]
        of = ", times the learning rate" if is_coupled(mode) else " a step"
        if dict(recipe.arguments).get("decay_schedule") == "rate":
            of += ", rising and falling as the learning rate does"
        said.append(f"{mode.replace('_', ' ')} weight decay {decay['weight_decay']:g}{of}")
    return "; ".join(said)
