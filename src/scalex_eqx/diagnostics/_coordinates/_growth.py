"""How fast the sizes of a weight grow with the width, over the widths of a check."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from ..._spec import WeightSpec
from ..._weight import Weight
from ...theory import Power
from ...theory._power import SIZES, Size


def slopes(widths: Sequence[Any], specs: Sequence[WeightSpec]) -> dict[Size, float]:
    r"""For each size of a weight the exponent that it grows with, fitted as measurements are.

    Exactly 1 for a size that grows as the width does. Sizes that are rounded grow a little faster
    or slower, and what follows them too.

    **Arguments:**

    - `widths`: at which models were built.
    - `specs`: the weight's at each of them.
    """
    return {size: _slope(widths, [spec.size_ratio(size) for spec in specs]) for size in SIZES}


def fan_in_slope(widths: Sequence[Any], weights: Sequence[Weight]) -> float:
    """The same of the fan-in that the shapes show, whatever the weight is declared to be."""
    fans = []
    for weight in weights:
        shape = weight.value.shape
        fans.append(Fraction(math.prod(shape[axis] for axis in weight.spec.fan_in)))
    return _slope(widths, fans)


def sloped(power: Power, by_size: dict[Size, float]) -> float:
    """The exponent of the width that a power of the sizes amounts to."""
    return sum(float(power[size]) * by_size[size] for size in SIZES)


def _slope(widths: Sequence[Any], sizes: Sequence[Fraction]) -> float:
    if len({size / width for size, width in zip(sizes, widths, strict=True)}) == 1:
        return 1.0
    x = np.log2(np.asarray(widths, np.float64))
    x = x - x.mean()
    return float(x @ np.log2([float(size) for size in sizes]) / (x @ x))
