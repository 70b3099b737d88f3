"""A weight's update, followed through the parts of an optimizer."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from .._laws import rate_of
from .._parts import Part
from .._spec import WeightSpec
from ..optim import Rule
from ..optim._decay import DECAYED
from ..optim._rates import multiplier
from ._foreign import Effect


@dataclasses.dataclass
class Step:
    """The numbers of a step, as a `PlanRow` has them."""

    learning_rate_factor: float | None = 1.0
    learning_rate: float | None = None
    eps: float | None = None
    eps_note: str = ""
    weight_decay: float | None = 0.0
    is_trained: bool = True


def step(
    path: str,
    spec: WeightSpec,
    dtype: Any,
    chain: Sequence[Part],
    effects: Mapping[str, Effect],
) -> Step:
    """Follows a weight's update through the parts that work on it."""
    if not spec.is_trained:
        return Step(is_trained=False)
    found = Step()
    scaled = False
    for part in chain:
        if not part.works_on(path):
            continue
        if part.rule is None:
            _foreign(found, part, effects[part.name], scaled)
        else:
            _own(found, path, spec, dtype, part.rule, scaled)
            scaled |= part.rule.family is not None
    factor, rate = found.learning_rate_factor, found.learning_rate
    found.learning_rate = None if factor is None or rate is None else factor * rate
    return found


def _own(found: Step, path: str, spec: WeightSpec, dtype: Any, rule: Rule, scaled: bool) -> None:
    settings = dict(rule.settings)
    scale: float | None = 1.0
    if scaled and rule.output.update != 1:
        # What is normalised again has no factor any more, and no learning rate.
        found.learning_rate_factor = found.learning_rate = scale = None
    if rule.family is not None:
        gamma = multiplier(path, spec.role, settings.get("role_multipliers", {}))
        scale = gamma and gamma * spec.scale(rate_of(path, spec, [rule]))
        found.learning_rate_factor = _product(found.learning_rate_factor, scale)
    if "learning_rate" in settings:
        found.learning_rate = scale = settings["learning_rate"]
    found.weight_decay = found.weight_decay and _product(found.weight_decay, scale)
    for constant in rule.constants:
        value = constant.at(spec)
        if constant.name == "eps":
            found.eps = constant.used(spec, dtype)
            found.eps_note = "traced" if value is None else "clamped" if found.eps != value else ""
        if constant.name == "weight_decay" and spec.role in DECAYED and value != 0:
            decay = found.weight_decay
            found.weight_decay = None if decay is None or value is None else decay + value
            found.is_trained = True


def _product(a: float | None, b: float | None) -> float | None:
    return a and b and a * b


def _foreign(found: Step, part: Part, effect: Effect, scaled: bool) -> None:
    if effect is Effect.kept:
        return
    if effect is Effect.zero:
        found.learning_rate_factor, found.learning_rate = 0.0, 0.0
        found.weight_decay, found.is_trained = 0.0, False
        return
    if effect in (Effect.decayed, Effect.unknown):
        found.is_trained, found.weight_decay = True, None
    elif found.weight_decay:
        found.weight_decay = None
    if effect is Effect.decayed:
        return
    # The number that everything is multiplied by isn't known, nor what comes of what is hidden.
    found.learning_rate = None if found.is_trained else 0.0
    if effect is Effect.unknown or (scaled and effect is Effect.normalised and found.is_trained):
        found.learning_rate_factor = None
    if any(constant.name == "eps" for rule in part.hidden for constant in rule.constants):
        found.eps, found.eps_note = None, "traced"
