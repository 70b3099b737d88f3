"""How fast the best learning rate drifts with a size, and the verdict on it."""

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from ._axes import WIDTH, Axis
from ._optimum import ALL_DIVERGED, LOWER_EDGE, NEXT_TO_DIVERGED, UPPER_EDGE, Optimum

Interval = tuple[float, float]

MARGIN = 0.25
LEVEL = 0.9
SEEDS_FOR_A_VERDICT = 3

_REMEDIES = {
    LOWER_EDGE: "extend --learning-rates downwards",
    UPPER_EDGE: "extend --learning-rates upwards",
    NEXT_TO_DIVERGED: "add learning rates between the best run and the diverged one",
    ALL_DIVERGED: "extend --learning-rates downwards",
}


class Verdict(enum.StrEnum):
    """Whether the best learning rate stays where it is as the size grows."""

    TRANSFERS = "transfers"
    DRIFTS = "drifts"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class Drift:
    """The exponent p of LR* ~ size^p; `exponent` is `None` where `reason` says why."""

    exponent: float | None
    interval: Interval | None
    by_seed: tuple[tuple[int, float], ...]
    level: float
    reason: str


def t_interval(values: Sequence[float], level: float = LEVEL) -> Interval | None:
    r"""$\bar x \pm t\, s / \sqrt n$, t the two-sided quantile at n - 1 degrees of freedom.

    **Returns:**

    `None` for fewer than two values.
    """
    if len(values) < 2:
        return None
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(stdtrit(len(values) - 1, (1 + level) / 2)) * error
    return mean - half, mean + half


def fit_drift(
    sizes: Sequence[int],
    optima_by_seed: Mapping[int, Sequence[Optimum]],
    level: float = LEVEL,
    axis: Axis = WIDTH,
) -> Drift:
    r"""Fits $\log_2 \eta^*_s(n) = c_s + p_s \log_2 n$ for each seed s.

    The seeds are the replicates: p is their mean, with Student's t interval over them. One
    optimum that isn't inside its grid makes the fit unusable, since leaving out the seeds that
    ran into the edge would select the ones that drift least.

    **Arguments:**

    - `sizes`: at least two, in the order of each seed's optima.
    - `optima_by_seed`: for each seed, one optimum a size.
    - `level`: the interval's.
    - `axis`: which size it is.
    """
    reason = _too_little(sizes, optima_by_seed, axis)
    reason = reason or outside_reason(sizes, optima_by_seed, axis)
    if reason:
        return Drift(None, None, (), level, reason)
    logs = np.log2(np.array(sizes, float))
    centred = logs - logs.mean()
    slopes = {
        seed: float(centred @ _locations(optima) / (centred @ centred))
        for seed, optima in optima_by_seed.items()
    }
    values = tuple(slopes.values())
    exponent = float(np.mean(values))
    return Drift(exponent, t_interval(values, level), tuple(slopes.items()), level, "")


def _locations(optima: Sequence[Optimum]) -> np.ndarray:
    return np.array([optimum.log2_learning_rate for optimum in optima], float)


def _too_little(sizes: Sequence[int], optima: Mapping[int, Sequence[Optimum]], axis: Axis) -> str:
    if len(set(sizes)) < 2:
        return f"a drift needs at least two {axis.plural}; extend {axis.option}"
    return "" if optima else "there are no runs"


def outside_reason(
    sizes: Sequence[int], optima: Mapping[int, Sequence[Optimum]], axis: Axis = WIDTH
) -> str:
    """Why an optimum isn't inside its grid, with the remedy; "" if all are."""
    outside = [
        (size, seed, optimum.note)
        for seed, members in optima.items()
        for size, optimum in zip(sizes, members, strict=True)
        if not optimum.inside
    ]
    if not outside:
        return ""
    size, seed, note = outside[0]
    others = f" (and {len(outside) - 1} more like it)" if len(outside) > 1 else ""
    if note == ALL_DIVERGED:
        return f"every run of {axis.noun} {size}, seed {seed}, diverged{others}; {_REMEDIES[note]}"
    found = f"the best learning rate of {axis.noun} {size}, seed {seed}, is {note}{others}"
    return f"{found}; {_REMEDIES[note]}"


def judge(drift: Drift) -> tuple[Verdict, str]:
    """The verdict on a drift, with the reason where it cannot tell.

    **Returns:**

    `transfers` if the interval of p lies inside [-0.25, 0.25], `drifts` if it lies wholly above
    or wholly below, and otherwise `cannot tell` with its reason.
    """
    if drift.interval is None or len(drift.by_seed) < SEEDS_FOR_A_VERDICT:
        return Verdict.CANNOT_TELL, drift.reason or _too_few_seeds(len(drift.by_seed))
    low, high = drift.interval
    if low >= -MARGIN and high <= MARGIN:
        return Verdict.TRANSFERS, ""
    if low > MARGIN or high < -MARGIN:
        return Verdict.DRIFTS, ""
    found = "the interval of p is neither inside nor outside the margin"
    return Verdict.CANNOT_TELL, f"{found} of {MARGIN}; more --seeds narrow it"


def _too_few_seeds(count: int) -> str:
    seeds = "one seed" if count == 1 else f"{count} seeds"
    return f"{seeds} only; a verdict needs at least {SEEDS_FOR_A_VERDICT} --seeds"


def describe_exponent(drift: Drift) -> str:
    """The exponent with its interval and seeds, or ""."""
    if drift.exponent is None:
        return ""
    interval = "" if drift.interval is None else " [{:+.2f}, {:+.2f}]".format(*drift.interval)
    seeds = f"{len(drift.by_seed)} seed{'s' if len(drift.by_seed) > 1 else ''}"
    return f"p = {drift.exponent:+.2f}{interval} over {seeds}"
