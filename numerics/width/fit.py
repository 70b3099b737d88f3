"""Exponents and crossings of sizes that change with the width."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

LEVEL = 0.9


class Interval(NamedTuple):
    """A mean over seeds, and Student's t interval for it."""

    value: float
    low: float
    high: float


def interval(by_seed: Sequence[float]) -> Interval:
    """Of at least two values."""
    values = np.asarray(by_seed, np.float64)
    error = values.std(ddof=1) / math.sqrt(len(values))
    half = float(stdtrit(len(values) - 1, (1 + LEVEL) / 2) * error)
    mean = float(values.mean())
    return Interval(mean, mean - half, mean + half)


def falls(widths: Sequence[int], sizes: np.ndarray) -> Interval:
    r"""$\gamma$ of sizes $\sim n^{-\gamma}$, axes width and seed: a least-squares fit a seed."""
    slopes = np.polyfit(np.log(widths), np.log(sizes), 1)[0]
    return interval(-slopes)


def crossing(widths: Sequence[int], parts: Sequence[float], level: float) -> float:
    """The width at which a part falls to a level, in between by the logarithm of what is lost.

    Infinite if it is above the level everywhere, NaN if it is below from the start.
    """
    if parts[0] < level:
        return math.nan
    for (n, part), (m, then) in zip(
        zip(widths, parts, strict=True), zip(widths[1:], parts[1:], strict=False), strict=False
    ):
        if then < level:
            x, y, z = (math.log(1 / p - 1) for p in (part, level, then))
            return n * (m / n) ** ((y - x) / (z - x))
    return math.inf
