"""How far a power of the gradient goes, and what comes beyond."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from ._moved import Moved, root_mean_square

_HALF = math.log10(2)
# So many decades beyond an end it is told what the update does there.
_BEYOND = 2.0


@dataclasses.dataclass(frozen=True)
class Reach:
    """Where an update is within a factor of two of its power of the gradient.

    **Arguments:**

    - `low`, `high`: the scales of the gradient's entries; 0 and infinity where float32 ends first.
    - `below`, `above`: what it does there, in words.
    """

    low: float
    high: float
    below: str
    above: str


def sizes(moved: Moved, leaf: str, scales: Sequence[float], kind: str = "all") -> np.ndarray:
    """How far it goes at each scale."""
    return np.asarray([root_mean_square(moved.path((kind, x), leaf)) for x in scales])


def reach(scales: Sequence[float], found: np.ndarray, power: float) -> Reach:
    """Of sizes at `scales`, powers of ten, around the scale of one."""
    start = list(scales).index(0.0)
    down = _side(scales[start::-1], found[start::-1], power)
    up = _side(scales[start:], found[start:], power)
    return Reach(down[0] or 0.0, up[0] or math.inf, down[1], up[1])


def _side(scales: Sequence[float], found: np.ndarray, power: float) -> tuple[float | None, str]:
    """The end on one side, and what comes there; the first scale is that of one."""
    strengths = _strengths(scales, found, power)
    out = next((i for i, x in enumerate(strengths) if not abs(x) <= _HALF), None)
    if out is None:
        return None, "nothing"
    if math.isnan(found[out]) or math.isinf(found[out]):
        return 10 ** scales[out], "not finite"
    if found[out] == 0:
        return 10 ** scales[out], f"stalls{_later(scales, found, out)}"
    # Where it crosses the factor of two, between two scales.
    before, after = strengths[out - 1], strengths[out]
    share = (math.copysign(_HALF, after) - before) / (after - before)
    edge = scales[out - 1] + share * (scales[out] - scales[out - 1])
    return 10**edge, _beyond(scales, found, out) + _later(scales, found, out)


def _strengths(scales: Sequence[float], found: np.ndarray, power: float) -> list[float]:
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log10(found / found[0]) - power * np.asarray(scales)
    return logs.tolist()


def _beyond(scales: Sequence[float], found: np.ndarray, out: int) -> str:
    """As which power it goes on, a little beyond the edge."""
    further = range(out, len(scales))
    far = next((i for i in further if abs(scales[i] - scales[out]) >= _BEYOND), None)
    if far is None or not (np.isfinite(found[far]) and found[far] > 0):
        smaller = found[out] < found[0]
        return "fades" if smaller else "grows"
    near = next(i for i in further if abs(scales[i] - scales[out]) >= _BEYOND / 2)
    near = near if near < far else out
    slope = math.log10(found[far] / found[near]) / (scales[far] - scales[near])
    if abs(slope) < 0.05:
        return "stays the same size"
    return f"goes as g^{round(slope, 1) + 0.0:.2g}"


def _later(scales: Sequence[float], found: np.ndarray, out: int) -> str:
    """Where it first stalls, or is not finite, further out."""
    for scale, size in zip(scales[out + 1 :], found[out + 1 :], strict=False):
        if not np.isfinite(size):
            return f", not finite from {10**scale:.2g}"
        if size == 0 and found[out] != 0:
            return f", stalls from {10**scale:.2g}"
    return ""
