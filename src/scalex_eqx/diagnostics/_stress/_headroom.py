"""How far the gradients of a model of some width are from where a rule loses its strength."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from ..._spec import WeightSpec
from ._result import Stress
from ._rules import StressRule


class Headroom(NamedTuple):
    """The weight of a model that is nearest to a rule's lower edge.

    - `weight`: its path.
    - `gradient`: log2 of the root mean square of its gradient, at the width asked for.
    - `edge`: the k from which gradients of $2^k$ have at least 90 % of the rule's strength, for
        this weight at that width.
    - `octaves`: how far above the edge the gradient is; negative: below it.
    - `lost_at`: the width at which gradient and edge meet; infinite if they never do.
    """

    weight: str
    gradient: float
    edge: float
    octaves: float
    lost_at: float


def headroom(
    rule: StressRule,
    result: Stress,
    gradients: Mapping[str, tuple[WeightSpec, float]],
    *,
    width: int,
    base_width: int,
) -> Headroom | None:
    r"""Where a model's gradients stand at a width, from what they are at the base width.

    A weight's gradient is $r^{-g}$ times that at the base width, $r$ the ratio of the widths; an
    epsilon that follows the width, and the edge that it sets, is so too, down to the edge that
    the number format sets.

    **Arguments:**

    - `rule`, `result`: a named rule, and what [`scalex_eqx.diagnostics.stress`][] found for it.
    - `gradients`: for each weight, by path, its spec and its gradient's root mean square at the
        base width.
    - `width`, `base_width`: asked for, and of the measured gradients.

    **Returns:** the weight with the least headroom; `None` for a rule that has no edge, not even
    at unit scale.
    """
    if result.full is None:
        return None
    found = [
        _of_weight(rule, result, name, float(spec.gradient_exponent), size, width, base_width)
        for name, (spec, size) in gradients.items()
        if size > 0
    ]
    return min(found, key=lambda one: one.octaves)


def _of_weight(
    rule: StressRule,
    result: Stress,
    name: str,
    exponent: float,
    size: float,
    width: int,
    base_width: int,
) -> Headroom:
    octaves = math.log2(width / base_width)
    start, formats = math.log2(size), _format_edge(rule, result)
    assert result.full is not None
    first = max(float(result.full.low), formats)
    # What the edge falls with the width by, until the number format's edge is reached.
    falls = exponent if rule.epsilon and rule.epsilon.follows_width else 0.0
    gradient = start - exponent * octaves
    edge = max(first - falls * octaves, formats)
    meeting = _meeting(start, first, formats, exponent, falls)
    return Headroom(name, gradient, edge, gradient - edge, base_width * 2.0**meeting)


def _format_edge(rule: StressRule, result: Stress) -> float:
    """The lower edge that the rule would have with no epsilon; what was measured if it has none."""
    assert result.full is not None
    if rule.epsilon is None:
        return float(result.full.low)
    formats = rule.formats(result.gradient_dtype, result.parameter_dtype)
    limits = [limit.size for limit in rule.lower_limits(formats) if limit is not rule.epsilon]
    return max(math.log2(max(limits)), float(result.sweep.low))


def _meeting(start: float, first: float, formats: float, exponent: float, falls: float) -> float:
    """The octaves of width at which a gradient from 2^start meets an edge from 2^first."""
    if start <= first:
        return 0.0
    if exponent <= 0:
        return math.inf
    # With the epsilon on its heels a gradient meets only the number format's edge.
    target = formats if falls else first
    return min((start - target) / exponent, _MOST_OCTAVES)


# Of width; 2^1000 still is a float.
_MOST_OCTAVES = 1000.0
