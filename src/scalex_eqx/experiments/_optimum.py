"""Where one seed's loss curve has its minimum, and what it says between its grid points."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ._interpolate import monotone_cubic, parabola

Array = NDArray[np.float64]

LOWER_EDGE = "at the grid's lower edge"
UPPER_EDGE = "at the grid's upper edge"
NEXT_TO_DIVERGED = "next to a diverged run"
ALL_DIVERGED = "all diverged"

# The parabola is fitted to the points within this many octaves of the lowest one, and at least
# to its two neighbours. Measured on 1,500 synthetic curves a case (quadratic, kinked and
# exponential above the optimum, curvature 0.03 nats an octave squared): against the three-point
# parabola, a fixed octave lowers the vertex's standard deviation on a half-octave grid with
# noise of 0.01 nats from 0.29 to 0.17 octaves, and on a one-octave grid it is the three-point
# parabola. Five points whatever the spacing doubles the pull away from the steep side on a
# one-octave grid (0.60 octaves against 0.27 where the upper side is three times as steep).
# What remains of that pull is much the same at every width and so leaves the exponent alone.
WINDOW_OCTAVES = 1.0

# The upper side counts as steep when the loss rises this many times as much above the optimum
# as below it, over the same distance. A kinked parabola with this ratio has a vertex about a
# third of an octave low on a one-octave grid.
STEEP_RATIO = 4.0
STEEP_DISTANCE = 2.0

# Learning rates come from decimal text: 2^-4.5 is only approximately half an octave from 2^-5.
_SAME_RATE = 1e-6


@dataclasses.dataclass(frozen=True)
class Optimum:
    """The best learning rate of one recipe, width and seed.

    **Arguments:**

    - `log2_learning_rate`: the vertex; where it isn't `inside`, the lowest grid point, which is
        only a bound; `None` if every run diverged.
    - `loss`: the loss there, in nats.
    - `inside`: whether the grid brackets the minimum with a finite run on either side.
    - `note`: why it isn't inside, or "".
    - `asymmetric`: whether the loss rises much faster above than below, or diverges within two
        grid steps above: the vertex is then biased downwards.
    """

    log2_learning_rate: float | None
    loss: float | None
    inside: bool
    note: str
    asymmetric: bool = False


def fit_optimum(learning_rates: Sequence[float], losses: Sequence[float | None]) -> Optimum:
    r"""Fits $L = c_0 + c_1 x + c_2 x^2$, $x = \log_2 \eta$, around the lowest loss.

    The location is the vertex $-c_1 / 2 c_2$ of the least-squares parabola through the points
    within an octave. The loss is the vertex value of the parabola through the lowest point and
    its neighbours alone: no bias cancels in a loss, and so it is never above a loss that was
    seen.

    **Arguments:**

    - `learning_rates`: the grid of one recipe, width and seed, in any order and spacing.
    - `losses`: the held-out loss at each; `None` or a non-finite number means diverged.
    """
    rates, values = sorted_curve(learning_rates, losses)
    if not np.isfinite(values).any():
        return Optimum(None, None, False, ALL_DIVERGED)
    lowest = int(np.argmin(values))
    near_cliff = bool(np.isinf(values[lowest + 1 : lowest + 3]).any())
    note = _outside_note(values, lowest)
    if note:
        return Optimum(float(rates[lowest]), float(values[lowest]), False, note, near_cliff)
    nearest = slice(lowest - 1, lowest + 2)
    loss = _vertex(rates[nearest], values[nearest], float(rates[lowest]))[1]
    location = _window_vertex(rates, values, lowest)
    asymmetric = near_cliff or _rises_steeply(rates, values, location, loss)
    return Optimum(location, loss, True, "", asymmetric)


def interpolated_loss(
    learning_rates: Sequence[float],
    losses: Sequence[float | None],
    optimum: Optimum,
    log2_learning_rate: float,
) -> float | None:
    r"""The loss at a learning rate between the grid's points.

    Monotone cubic interpolation (PCHIP) in $\log_2 \eta$ through the finite losses and the
    fitted optimum. It never overshoots its points, so nothing lies below the optimum.

    **Returns:**

    `None` where a neighbouring grid point diverged, or beyond the grid.
    """
    rates, values = sorted_curve(learning_rates, losses)
    run = _finite_run(rates, values, log2_learning_rate)
    if run is None:
        return None
    location, loss = optimum.log2_learning_rate, optimum.loss
    if not optimum.inside or location is None or loss is None:
        raise ValueError(f"an optimum inside the grid is needed, but this one is {optimum.note}")
    if run.stop - run.start == 1:
        return float(values[run.start])
    return monotone_cubic(*_knots(rates[run], values[run], location, loss), log2_learning_rate)


def cost_at(
    learning_rates: Sequence[float],
    losses: Sequence[float | None],
    optimum: Optimum,
    log2_learning_rate: float,
) -> float:
    """What a learning rate loses on a curve whose optimum is inside, by `interpolated_loss`.

    Never negative; NaN beyond the curve's learning rates, infinite next to a run that diverged.
    """
    if not min(learning_rates) * 0.999 < 2**log2_learning_rate < max(learning_rates) * 1.001:
        return math.nan
    loss = interpolated_loss(learning_rates, losses, optimum, log2_learning_rate)
    if loss is None:
        return math.inf
    assert optimum.loss is not None, "an optimum that is inside has a loss"
    return max(0.0, loss - optimum.loss)


def sorted_curve(
    learning_rates: Sequence[float], losses: Sequence[float | None]
) -> tuple[Array, Array]:
    """The curve as ascending log2 learning rates and losses, infinite where diverged."""
    if len(learning_rates) != len(losses) or len(losses) == 0:
        raise ValueError(
            f"{len(learning_rates)} learning rates and {len(losses)} losses: "
            "as many of each are needed, and at least one"
        )
    if not all(0 < rate < math.inf for rate in learning_rates):
        raise ValueError(f"learning rates must be positive and finite: {learning_rates}")
    finite = [math.inf if _diverged(loss) else loss for loss in losses]
    rates, values = np.log2(np.array(learning_rates, float)), np.array(finite, float)
    order = np.argsort(rates)
    if len(rates) > 1 and np.diff(rates[order]).min() < _SAME_RATE:
        raise ValueError(f"a learning rate occurs twice in one curve: {learning_rates}")
    return rates[order], values[order]


def _diverged(loss: float | None) -> bool:
    return loss is None or not math.isfinite(loss)


def _outside_note(values: Array, lowest: int) -> str:
    if lowest == 0:
        return LOWER_EDGE
    if lowest == len(values) - 1:
        return UPPER_EDGE
    bracketed = np.isfinite(values[[lowest - 1, lowest + 1]]).all()
    return "" if bracketed else NEXT_TO_DIVERGED


def _vertex(rates: Array, values: Array, origin: float) -> tuple[float, float]:
    """The least-squares parabola's vertex; the lowest point itself where it isn't convex."""
    # Differences from the lowest point keep the digits of a shallow bowl on a large loss.
    base = float(values.min())
    curvature, slope, constant = parabola((rates - origin).tolist(), (values - base).tolist())
    if curvature <= 0:
        return origin, base
    shift = -slope / (2 * curvature)
    return origin + shift, base + constant + slope * shift / 2


def _window_vertex(rates: Array, values: Array, lowest: int) -> float:
    origin = float(rates[lowest])
    window = _window(rates, values, lowest)
    location, _ = _vertex(rates[window], values[window], origin)
    if location != origin and rates[window][0] < location < rates[window][-1]:
        return location
    nearest = slice(lowest - 1, lowest + 2)
    return _vertex(rates[nearest], values[nearest], origin)[0]


def _window(rates: Array, values: Array, lowest: int) -> slice:
    """The finite neighbours within an octave, without a cliff above."""
    first, last = lowest - 1, lowest + 1
    reach = WINDOW_OCTAVES + _SAME_RATE
    while first > 0 and rates[lowest] - rates[first - 1] <= reach:
        if np.isinf(values[first - 1]):
            break
        first -= 1
    # A finite loss next to divergence can be any number, and one such point would turn the
    # whole least-squares fit: the three-point vertex moves by half a step at most.
    ceiling = values[lowest] + STEEP_RATIO * (values[first] - values[lowest])
    if values[last] > ceiling:
        return slice(lowest - 1, lowest + 2)
    while last + 1 < len(rates) and rates[last + 1] - rates[lowest] <= reach:
        if values[last + 1] > ceiling:
            break
        last += 1
    return slice(first, last + 1)


def _rises_steeply(rates: Array, values: Array, location: float, loss: float) -> bool:
    run = _finite_run(rates, values, location)
    if run is None:
        return False
    finite, heights = rates[run], values[run]
    distance = min(STEEP_DISTANCE, finite[-1] - location, location - finite[0])
    # Closer in, a parabola through three points fits any asymmetry away.
    if distance < WINDOW_OCTAVES / 2:
        return False
    knots = _knots(finite, heights, location, loss)
    below = monotone_cubic(*knots, float(location - distance)) - loss
    above = monotone_cubic(*knots, float(location + distance)) - loss
    return above > STEEP_RATIO * below


def _finite_run(rates: Array, values: Array, at: float) -> slice | None:
    """The unbroken finite stretch of the grid that holds a log2 learning rate."""
    finite = np.isfinite(values)
    starts = np.flatnonzero(finite & ~np.r_[False, finite[:-1]])
    stops = np.flatnonzero(finite & ~np.r_[finite[1:], False])
    for start, stop in zip(starts, stops, strict=True):
        if rates[start] - _SAME_RATE <= at <= rates[stop] + _SAME_RATE:
            return slice(int(start), int(stop) + 1)
    return None


def _knots(
    rates: Array, values: Array, location: float, loss: float
) -> tuple[list[float], list[float]]:
    """A finite stretch of at least two points and, if it lies there, the optimum."""
    knots = dict(zip(rates.tolist(), values.tolist(), strict=True))
    if rates[0] - _SAME_RATE <= location <= rates[-1] + _SAME_RATE:
        # Two knots at the same place would divide by zero: the optimum replaces the grid point.
        knots = {x: y for x, y in knots.items() if abs(x - location) > _SAME_RATE}
        knots[location] = loss
    places = sorted(knots)
    return places, [knots[x] for x in places]
