"""Curves through a handful of points, in plain floats: thousands of them are fitted in a report.

NumPy and SciPy, which are made for many points in one curve, take fifty times as long for ten.
"""

import bisect
import math
from collections.abc import Sequence


def parabola(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float, float]:
    r"""The least-squares $c_2 x^2 + c_1 x + c_0$, as $(c_2, c_1, c_0)$.

    By polynomials that are orthogonal on the points (Forsythe 1957), so that nothing is solved.

    **Arguments:**

    - `xs`, `ys`: at least three points, at different places.
    """
    count = len(xs)
    mean, height = math.fsum(xs) / count, math.fsum(ys) / count
    us = [x - mean for x in xs]
    square = math.fsum(u * u for u in us)
    skew, spread = math.fsum(u**3 for u in us) / square, square / count
    qs = [u * u - skew * u - spread for u in us]
    curvature = math.fsum(q * y for q, y in zip(qs, ys, strict=True)) / math.fsum(q * q for q in qs)
    slope = math.fsum(u * (y - height) for u, y in zip(us, ys, strict=True)) / square
    # Of the polynomial in u = x - mean.
    linear, constant = slope - curvature * skew, height - curvature * spread
    return curvature, linear - 2 * curvature * mean, constant - (linear - curvature * mean) * mean


def monotone_cubic(xs: Sequence[float], ys: Sequence[float], at: float) -> float:
    """The value at a place of the piecewise cubic that never overshoots its points (PCHIP).

    Slopes by Fritsch and Butland (1984), at the ends by three points, as
    `scipy.interpolate.PchipInterpolator` has them.

    **Arguments:**

    - `xs`, `ys`: at least two points, in ascending order.
    - `at`: the place; beyond the ends the outermost pieces go on.
    """
    piece = min(max(bisect.bisect_right(xs, at) - 1, 0), len(xs) - 2)
    width = xs[piece + 1] - xs[piece]
    left, right = (_slope(xs, ys, knot) * width for knot in (piece, piece + 1))
    rise, t = ys[piece + 1] - ys[piece], (at - xs[piece]) / width
    return ys[piece] + t * (
        left + t * (3 * rise - 2 * left - right + t * (left + right - 2 * rise))
    )


def _slope(xs: Sequence[float], ys: Sequence[float], knot: int) -> float:
    last = len(xs) - 1
    if last == 1:
        return (ys[1] - ys[0]) / (xs[1] - xs[0])
    if knot in (0, last):
        inner, far = (1, 2) if knot == 0 else (last - 1, last - 2)
        return _end_slope(
            abs(xs[inner] - xs[knot]),
            abs(xs[far] - xs[inner]),
            (ys[inner] - ys[knot]) / (xs[inner] - xs[knot]),
            (ys[far] - ys[inner]) / (xs[far] - xs[inner]),
        )
    before, after = xs[knot] - xs[knot - 1], xs[knot + 1] - xs[knot]
    below, above = (ys[knot] - ys[knot - 1]) / before, (ys[knot + 1] - ys[knot]) / after
    if not _same_sign(below, above):
        return 0.0
    weights = before + 2 * after, 2 * before + after
    return sum(weights) / (weights[0] / below + weights[1] / above)


def _end_slope(near: float, far: float, first: float, second: float) -> float:
    slope = ((2 * near + far) * first - near * second) / (near + far)
    if not _same_sign(slope, first):
        return 0.0
    if not _same_sign(first, second) and abs(slope) > 3 * abs(first):
        return 3 * first
    return slope


def _same_sign(a: float, b: float) -> bool:
    return (a > 0 and b > 0) or (a < 0 and b < 0)
