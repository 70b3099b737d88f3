"""What Optax's own factors for a weight's shape do beside laws."""

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from .._makers import ShapeFactor
from .._parts import Part
from .._weight import Weight
from ..theory._power import Size
from ._text import short

_SIDES: tuple[Size, Size] = ("fan_in", "fan_out")


def shape_factor_warnings(
    trained: Mapping[str, Weight], chain: Sequence[Part], factors: Mapping[str, ShapeFactor]
) -> Iterator[str]:
    """Where one takes outputs for inputs, and where it scales with the width what a law scales.

    **Arguments:**

    - `trained`: the weights by their paths.
    - `chain`: the parts of the optimizer.
    - `factors`: by the parts' names.
    """
    for part in chain:
        if part.name not in factors:
            continue
        factor = factors[part.name]
        taken = {
            path: weight
            for path, weight in trained.items()
            if path in factor.axes and part.works_on(path)
        }
        yield from _turned(part, factor, taken)
        yield from _twice(part, factor, taken, chain)


def _turned(part: Part, factor: ShapeFactor, weights: Mapping[str, Weight]) -> Iterator[str]:
    turned = [
        path
        for path, weight in weights.items()
        if _factor(factor, path, weight) != _factor(factor, path, weight, declared=True)
    ]
    if turned:
        axes = ", ".join(map(str, factor.axes[turned[0]][0]))
        yield (
            f"scale_by_shape ({part.name}) takes axis {axes} for the inputs of "
            f"{', '.join(turned)}, whose laws say that outputs are there: the factor "
            "sqrt(max(1, fan-out / fan-in)) is that of the transposed weight. Give optax.contrib."
            "muon its muon_weight_dimension_numbers, or use scalex_eqx.muon"
        )


def _twice(
    part: Part, factor: ShapeFactor, weights: Mapping[str, Weight], chain: Sequence[Part]
) -> Iterator[str]:
    twice = {}
    for path, weight in weights.items():
        by_law = any(
            other.rule is not None and other.rule.family is not None and other.works_on(path)
            for other in chain
        )
        growth = _factor(factor, path, weight) / _factor(factor, path, weight, base=True)
        if by_law and growth != 1:
            twice[path] = growth
    if twice:
        worst = max(twice, key=lambda path: abs(math.log(twice[path])))
        yield (
            f"scale_by_shape ({part.name}) follows the width by itself, and learning rates do once "
            f"more: the update of {worst} has {short(twice[worst])} times the factor of the base "
            f"width. Use scalex_eqx.muon, which counts it once ({', '.join(twice)})"
        )


def _factor(
    factor: ShapeFactor, path: str, weight: Weight, *, declared: bool = False, base: bool = False
) -> float:
    """That of a weight by the axes that are taken, or declared; at the base width if asked."""
    spec, shape = weight.spec, weight.value.shape
    sides = (spec.fan_in, spec.fan_out) if declared else factor.axes[path]
    fan_in, fan_out = (
        math.prod((Fraction(shape[axis]) / _growth(weight, axis, base) for axis in side), start=1)
        for side in sides
    )
    if not fan_in or not fan_out:
        return 1.0
    return math.sqrt(max(fan_in, fan_out) if factor.is_rms else max(1, fan_out / fan_in))


def _growth(weight: Weight, axis: int, base: bool) -> Fraction:
    """How much an axis' fan has grown, counted at the first of the fan's axes."""
    spec = weight.spec
    at = axis if axis < 0 else axis - weight.value.ndim
    for size in _SIDES:
        if base and getattr(spec, size)[:1] == (at,):
            return spec.size_ratio(size)
    return Fraction(1)
