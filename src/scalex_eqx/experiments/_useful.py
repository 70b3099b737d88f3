"""Whether a transferred learning rate is useful: what it loses beside what width gains."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from ._axes import WIDTH, Axis
from ._drift import LEVEL, SEEDS_FOR_A_VERDICT, Interval, outside_reason, t_interval
from ._optimum import Optimum, cost_at

if TYPE_CHECKING:
    from ._fits import Curves


class Usefulness(StrEnum):
    """Whether tuning at a smaller size costs less than the size itself."""

    USEFUL = "useful"
    NOT_USEFUL = "not useful"
    CANNOT_TELL = "can't be told"


class Speed(StrEnum):
    """Whether what is lost vanishes faster with the size than what is gained."""

    FAST = "fast"
    SLOW = "slow"
    CANNOT_TELL = "can't be told"


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with its interval; `None` where it doesn't exist."""

    value: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Fall:
    r"""How fast what is lost and what is gained fall from one size to the next.

    From size m to the next, n, $L_n(\eta^*_m) - L_n(\eta^*_n)$ is lost and $L_m(\eta^*_m) -
    L_n(\eta^*_n)$ gained. Where the sizes have one ratio, and the best losses and the logarithms
    of the best rates approach limits as powers of the size, these are powers too, without the
    limits being known: the gain's is the losses' own, and the loss, a shift's square, has twice
    that of the rates. A steady drift loses as much at every step: exponent 0. Differences from
    the largest size would make every drift look fast, since they all vanish there.

    A shift much smaller than the grid's step is interpolated, and its power little known.

    **Arguments:**

    - `lost`, `gained`: k of $m^{-k}$, from the means over seeds, with a jackknife's interval over
        them.
    - `difference`: the first less the second.
    - `speed`, `reason`: fast if the interval of the difference lies above 0, slow if below.
    """

    lost: Mean
    gained: Mean
    difference: Mean
    speed: Speed
    reason: str


@dataclass(frozen=True)
class Useful:
    """What the learning rates of smaller sizes cost at the largest one, and what its size gains.

    **Arguments:**

    - `lost`: $L_N(\\eta^*_n) - L_N(\\eta^*_N)$ by n, the smaller sizes in their order; N is the
        largest.
    - `gained`: $L_n(\\eta^*_n) - L_N(\\eta^*_N)$ by n.
    - `fall`: how fast both fall from each size to the next.
    - `extrapolated`: what the learning rate costs at N that the line through the optima of the
        smaller sizes has there.
    - `verdict`, `reason`: useful if at the largest n what is lost is less than what is gained,
        interval against interval.
    """

    sizes: tuple[int, ...]
    lost: tuple[Mean, ...]
    gained: tuple[Mean, ...]
    fall: Fall
    extrapolated: Mean
    verdict: Usefulness
    reason: str


def useful(
    sizes: Sequence[int],
    curves: "Curves",
    optima: Mapping[tuple[int, int], Optimum],
    level: float = LEVEL,
    axis: Axis = WIDTH,
) -> Useful:
    r"""Whether the learning rates of one recipe's smaller sizes serve the largest.

    Transfer is fast if $L_N(\eta^*_n) - L_N(\eta^*_N)$, the loss that tuning at size n costs, falls
    faster in n than $L_n(\eta^*_n) - L_N(\eta^*_N)$, what the size itself gains. The verdict
    compares the two at the second largest size, where what is lost is less exactly if the largest
    model, at that size's learning rate, ends below the smaller one: a drift can pass.

    **Arguments:**

    - `sizes`: in ascending order.
    - `curves`, `optima`: by size and seed; every size has every seed.
    - `level`: of the intervals over seeds, Student's t.
    - `axis`: which size it is.

    ??? cite "Source"

        Ghosh et al. (2025), [arXiv:2512.22768](https://arxiv.org/abs/2512.22768), for infinite N.
    """
    *smaller, largest = sizes
    seeds = sorted({seed for _, seed in curves})
    reason = "" if smaller else f"there is one {axis.noun} only"
    reason = reason or outside_reason(
        sizes, {s: [optima[n, s] for n in sizes] for s in seeds}, axis
    )
    if reason:
        return unknown(sizes, reason)

    def cost(seed: int, log2_rate: float, size: int = largest) -> float:
        members = curves[size, seed]
        rates = [run.learning_rate for run in members]
        losses = [run.held_out_loss for run in members]
        return cost_at(rates, losses, optima[size, seed], log2_rate)

    def best(seed: int, size: int) -> float:
        return _of(optima[size, seed].loss)

    def rate(seed: int, size: int) -> float:
        return _of(optima[size, seed].log2_learning_rate)

    lost = [_mean([cost(s, rate(s, n)) for s in seeds], level) for n in smaller]
    gained = [_mean([best(s, n) - best(s, largest) for s in seeds], level) for n in smaller]
    line = [cost(s, _extrapolated(smaller, largest, optima, s)) for s in seeds]
    steps = list(zip(smaller, sizes[1:], strict=True))
    fall = _fall(
        sizes,
        np.array([[cost(s, rate(s, m), n) for m, n in steps] for s in seeds]),
        np.array([[best(s, m) - best(s, n) for m, n in steps] for s in seeds]),
        level,
        axis,
    )
    verdict, reason = _judged(lost[-1], gained[-1], len(seeds))
    return Useful(
        tuple(smaller),
        tuple(lost),
        tuple(gained),
        fall,
        _mean(line, level),
        verdict,
        reason,
    )


def unknown(sizes: Sequence[int], reason: str) -> Useful:
    """Nothing can be said."""
    nothing = Mean(None, None)
    none = tuple(nothing for _ in sizes[:-1])
    verdict = Usefulness.CANNOT_TELL
    fall = Fall(nothing, nothing, nothing, Speed.CANNOT_TELL, reason)
    return Useful(tuple(sizes[:-1]), none, none, fall, nothing, verdict, reason)


def _of(number: float | None) -> float:
    assert number is not None
    return number


def _extrapolated(
    smaller: Sequence[int], largest: int, optima: Mapping[tuple[int, int], Optimum], seed: int
) -> float:
    """log2 of the rate that the line through the smaller sizes' optima has at the largest."""
    places = [_of(optima[n, seed].log2_learning_rate) for n in smaller]
    if len(smaller) == 1:
        return places[0]
    slope, start = np.polyfit(np.log2(smaller), places, 1)
    return float(start + slope * np.log2(largest))


def _mean(values: Sequence[float], level: float) -> Mean:
    if not all(map(math.isfinite, values)):
        return Mean(None, None)
    return Mean(float(np.mean(values)), t_interval(values, level))


def _fall(
    sizes: Sequence[int], lost: np.ndarray, gained: np.ndarray, level: float, axis: Axis
) -> Fall:
    """From what is lost and gained by seed and step."""
    nothing = Mean(None, None)
    ratios = np.diff(np.log2(sizes))
    if len(ratios) < 2:
        reason = f"a fall needs at least three {axis.plural}"
        return Fall(nothing, nothing, nothing, Speed.CANNOT_TELL, reason)
    if np.ptp(ratios) > 1e-6:
        reason = f"the {axis.plural} have no common ratio"
        return Fall(nothing, nothing, nothing, Speed.CANNOT_TELL, reason)

    def exponents(rows: np.ndarray) -> np.ndarray:
        """Of what is lost and gained, and their difference; NaN where a mean isn't positive."""
        both = [
            _exponent(sizes[:-1], lost[rows].mean(0)),
            _exponent(sizes[:-1], gained[rows].mean(0)),
        ]
        return np.array([*both, both[0] - both[1]])

    everyone = np.arange(len(lost))
    values = exponents(everyone)
    pseudo = np.empty((0, 3))
    if len(everyone) > 1:
        without = np.array([exponents(np.delete(everyone, i)) for i in everyone])
        pseudo = len(everyone) * values - (len(everyone) - 1) * without
    means = [
        Mean(
            float(value) if math.isfinite(value) else None,
            t_interval(column.tolist(), level) if np.isfinite(column).all() else None,
        )
        for value, column in zip(values, pseudo.T, strict=True)
    ]
    of_lost, of_gained, difference = means
    return Fall(of_lost, of_gained, difference, *_speed(difference.interval, len(everyone)))


def _speed(difference: Interval | None, seeds: int) -> tuple[Speed, str]:
    if seeds < SEEDS_FOR_A_VERDICT:
        return Speed.CANNOT_TELL, f"{seeds} seeds; a verdict needs {SEEDS_FOR_A_VERDICT}"
    if difference is None:
        return Speed.CANNOT_TELL, "not every step loses and gains something that was seen"
    if difference[0] > 0:
        return Speed.FAST, ""
    if difference[1] < 0:
        return Speed.SLOW, ""
    return Speed.CANNOT_TELL, "the interval of the exponents' difference holds 0"


def _exponent(sizes: Sequence[int], values: np.ndarray) -> float:
    if not (np.isfinite(values) & (values > 0)).all():
        return math.nan
    return -float(np.polyfit(np.log2(sizes), np.log2(values), 1)[0])


def _judged(lost: Mean, gained: Mean, seeds: int) -> tuple[Usefulness, str]:
    if seeds < SEEDS_FOR_A_VERDICT:
        return Usefulness.CANNOT_TELL, f"{seeds} seeds; a verdict needs {SEEDS_FOR_A_VERDICT}"
    if lost.interval is None or gained.interval is None:
        return Usefulness.CANNOT_TELL, "a learning rate was not tried, or diverges"
    if lost.interval[1] < gained.interval[0]:
        return Usefulness.USEFUL, ""
    if lost.interval[0] > gained.interval[1]:
        return Usefulness.NOT_USEFUL, ""
    return Usefulness.CANNOT_TELL, "the intervals of what is lost and what is gained overlap"
