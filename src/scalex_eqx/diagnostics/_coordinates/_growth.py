"""How fast the sizes of a weight grow with the width, over the widths of a check."""

from collections.abc import Sequence

import numpy as np

from ..._spec import WeightSpec
from ...theory import SIZES, Power, Size


def slopes(widths: Sequence[int], specs: Sequence[WeightSpec]) -> dict[Size, float]:
    r"""For each size of a weight the exponent that it grows with, fitted as measurements are.

    Exactly 1 for a size that grows as the width does. Sizes that are rounded grow a little faster
    or slower, and what follows them too.

    **Arguments:**

    - `widths`: at which models were built.
    - `specs`: the weight's at each of them.
    """
    found: dict[Size, float] = {}
    for size in SIZES:
        ratios = [spec.size_ratio(size) for spec in specs]
        per_width = {ratio / width for ratio, width in zip(ratios, widths, strict=True)}
        found[size] = 1.0 if len(per_width) == 1 else _slope(widths, [float(r) for r in ratios])
    return found


def sloped(power: Power, by_size: dict[Size, float]) -> float:
    """The exponent of the width that a power of the sizes amounts to."""
    return sum(float(power[size]) * by_size[size] for size in SIZES)


def _slope(widths: Sequence[int], sizes: Sequence[float]) -> float:
    x = np.log2(np.asarray(widths, np.float64))
    x = x - x.mean()
    return float(x @ np.log2(sizes) / (x @ x))
