"""What a user of a rule should know beside its family, in sentences."""

import math
from typing import Any

from ._words import number, same

# Above this size of gradient a floor is one that gradients of a model meet.
_FLOOR = 1e-6
_STATES_FIRST = 0.05
_WANDERS = 1e-3


def notes(found: Any, is_annotated: bool) -> tuple[str, ...]:
    """A sentence for each thing that is unusual."""
    return tuple(
        said
        for said in (
            _floor(found),
            _ceiling(found),
            _first(found),
            _fractions(found),
            _shape(found),
            _zero(found),
            _drifts(found),
            _period(found),
            _held(found),
            "it moves no vectors" if math.isnan(float(found.vector[0])) else "",
            "its matrices were weights of role hidden" if is_annotated else "",
        )
        if said
    )


def _floor(found: Any) -> str:
    low = found.reach.low
    if not low > _FLOOR:
        return ""
    return f"below gradients of {low:.2g} it leaves that power: {found.reach.below}"


def _ceiling(found: Any) -> str:
    high = found.reach.high
    if not high < 1e6:
        return ""
    return f"above gradients of {high:.2g} it leaves that power: {found.reach.above}"


def _first(found: Any) -> str:
    if same(found.gradient.together, found.gradient.first, _STATES_FIRST):
        return ""
    return (
        f"its first update is of degree {number(found.gradient.first)} in the gradient, later ones "
        f"of degree {number(found.gradient.together)}"
    )


def _fractions(found: Any) -> str:
    named = {"gradient": found.gradient.together, "weight": found.weight.together}
    odd = [f"{x:.3f} in the {what}" for what, x in named.items() if isinstance(x, float)]
    odd = [x for x in odd if "nan" not in x]
    return f"no simple fraction is near its degree {' and '.join(odd)}: as measured" if odd else ""


def _shape(found: Any) -> str:
    if found.shape.is_power:
        return ""
    return (
        "its size follows no power of fan-in and fan-out: growing alone the first takes "
        f"{number(found.shape.fan_in)} and the second {number(found.shape.fan_out)}, together they "
        f"take {number(found.shape.both)}"
    )


def _zero(found: Any) -> str:
    said = []
    if "NaN" in found.zero_first:
        said.append(f"a first gradient of zero makes weights {found.zero_first}")
    if found.zero_weight == "never moves":
        said.append("a weight that starts at zero never moves")
    elif found.zero_weight == "NaN":
        said.append("a weight that starts at zero becomes NaN")
    return "; ".join(said)


def _drifts(found: Any) -> str:
    wide, narrow = found.wander
    if not found.decay and math.isfinite(wide) and wide > _WANDERS:
        return f"it moves weights without a gradient, in 36 steps by {wide:.2g} of their size"
    if math.isfinite(narrow) and narrow > _WANDERS and narrow > 10 * wide:
        return (
            "it moves weights in bfloat16 that get no gradient, in 36 steps by "
            f"{narrow:.2g} of their size"
        )
    return ""


def _period(found: Any) -> str:
    return f"it moves weights every {found.period} steps" if found.period > 1 else ""


def _held(found: Any) -> str:
    if not found.held:
        return ""
    return "weights were held in place, since they ran away; give it a learning rate"
