"""The exponent that a size grows with as the model widens."""

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

LEVEL = 0.9


@dataclasses.dataclass(frozen=True)
class Exponent:
    r"""$p$ of a size that grows as $n^p$, fitted over widths, the seeds being the replicates.

    **Arguments:**

    - `value`: the mean over seeds.
    - `interval`: Student's t interval for it over the seeds; `None` for a single seed.
    - `by_seed`: one fit a seed.
    """

    value: float
    interval: tuple[float, float] | None
    by_seed: tuple[float, ...]

    def __str__(self) -> str:
        shown = "" if self.interval is None else " [{:+.2f}, {:+.2f}]".format(*self.interval)
        return f"{self.value:+.2f}{shown}"


def fit_exponent(
    widths: Sequence[int | Fraction | float], sizes: Sequence[Sequence[float]], level: float = LEVEL
) -> Exponent | None:
    r"""Fits $\log_2 s = c + p \log_2 n$ by least squares, for each seed by itself.

    **Arguments:**

    - `widths`: at least two different ones.
    - `sizes`: for each width one size a seed, in the same order of seeds.
    - `level`: the interval's.

    **Returns:** `None` if a size is not positive and finite: without one of its points a fit
    would be another one.
    """
    values = np.asarray(sizes, np.float64)
    if not (np.isfinite(values) & (values > 0)).all():
        return None
    steps = np.log2(np.asarray(widths, np.float64))
    steps = steps - steps.mean()
    slopes = steps @ np.log2(values) / (steps @ steps)
    return Exponent(float(slopes.mean()), _interval(slopes, level), tuple(map(float, slopes)))


def _interval(values: np.ndarray, level: float) -> tuple[float, float] | None:
    r"""$\bar x \pm t\, s / \sqrt k$ with the quantile of Student's t at $k - 1$ degrees."""
    # Takes longer to import than the rest of the package.
    from scipy.special import stdtrit

    count = len(values)
    if count < 2:
        return None
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    half = float(stdtrit(count - 1, (1 + level) / 2)) * error
    return float(values.mean()) - half, float(values.mean()) + half
