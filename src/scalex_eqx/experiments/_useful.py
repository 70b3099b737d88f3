"""Whether a transferred learning rate is useful: what it loses beside what width gains."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from ._axes import WIDTH, Axis
from ._drift import LEVEL, SEEDS_FOR_A_VERDICT, Interval, outside_reason, t_interval
from ._optimum import Optimum, interpolated_loss

if TYPE_CHECKING:
    from ._fits import Curves


class Usefulness(StrEnum):
    """Whether tuning at a smaller size costs less than the size itself."""

    USEFUL = "useful"
    NOT_USEFUL = "not useful"
    CANNOT_TELL = "can't be told"


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with its interval, in nats; `None` where it doesn't exist."""

    value: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Useful:
    """What the learning rates of smaller sizes cost at the largest one, and what its size gains.

    **Arguments:**

    - `lost`: $L_N(\\eta^*_n) - L_N(\\eta^*_N)$ by n, the smaller sizes in their order; N is the
        largest.
    - `gained`: $L_n(\\eta^*_n) - L_N(\\eta^*_N)$ by n.
    - `lost_exponent`, `gained_exponent`: k where they fall as $n^{-k}$, from the means over seeds;
        `None` where one is not above zero, or with fewer than two smaller sizes. Both vanish at N,
        so that they are compared with each other, not with a limit's.
    - `extrapolated`: what the learning rate costs at N that the line through the optima of the
        smaller sizes has there.
    - `verdict`, `reason`: useful if at the largest n what is lost is less than what is gained,
        interval against interval.
    """

    sizes: tuple[int, ...]
    lost: tuple[Mean, ...]
    gained: tuple[Mean, ...]
    lost_exponent: float | None
    gained_exponent: float | None
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

    def cost(seed: int, log2_rate: float) -> float:
        members, best = curves[largest, seed], optima[largest, seed]
        rates = [run.learning_rate for run in members]
        if not min(rates) * 0.999 < 2**log2_rate < max(rates) * 1.001:
            return math.nan
        losses = [run.held_out_loss for run in members]
        loss = interpolated_loss(rates, losses, best, log2_rate)
        # A run that diverged has lost more than can be said.
        return math.inf if loss is None else max(0.0, loss - _of(best.loss))

    lost = [
        _mean([cost(s, _of(optima[n, s].log2_learning_rate)) for s in seeds], level)
        for n in smaller
    ]
    gained = [
        _mean([_of(optima[n, s].loss) - _of(optima[largest, s].loss) for s in seeds], level)
        for n in smaller
    ]
    line = [cost(s, _extrapolated(smaller, largest, optima, s)) for s in seeds]
    verdict, reason = _judged(lost[-1], gained[-1], len(seeds))
    return Useful(
        tuple(smaller),
        tuple(lost),
        tuple(gained),
        _exponent(smaller, lost),
        _exponent(smaller, gained),
        _mean(line, level),
        verdict,
        reason,
    )


def unknown(sizes: Sequence[int], reason: str) -> Useful:
    """Nothing can be said."""
    nothing = Mean(None, None)
    none = tuple(nothing for _ in sizes[:-1])
    verdict = Usefulness.CANNOT_TELL
    return Useful(tuple(sizes[:-1]), none, none, None, None, nothing, verdict, reason)


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


def _exponent(sizes: Sequence[int], means: Sequence[Mean]) -> float | None:
    values = [mean.value for mean in means]
    if len(sizes) < 2 or any(value is None or value <= 0 for value in values):
        return None
    logs = np.log2([_of(value) for value in values])
    return -float(np.polyfit(np.log2(sizes), logs, 1)[0])


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
