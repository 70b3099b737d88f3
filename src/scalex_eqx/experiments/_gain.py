"""What constants that were tuned at one width gain there, and whether they do at a larger one."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ._drift import LEVEL, SEEDS_FOR_A_VERDICT, Interval, t_interval

# A gain holds where at least this share of it is left.
SHARE = 0.5

Losses = Mapping[int, float | None]


class Holds(enum.StrEnum):
    """Whether the gain at the base width is one at the largest width."""

    HOLDS = "holds"
    DOES_NOT = "does not hold"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class Gain:
    """By how much the loss falls with the tuned constants, each recipe at its own best rate.

    **Arguments:**

    - `width`: where.
    - `by_seed`: the loss without less the loss with them, in nats, for each seed.
    - `level`: the interval's.
    """

    width: int
    by_seed: tuple[tuple[int, float], ...]
    level: float = LEVEL

    @property
    def values(self) -> list[float]:
        """The gain of each seed."""
        return [gain for _, gain in self.by_seed]

    @property
    def mean(self) -> float | None:
        """Over the seeds; `None` where a recipe diverged at all its rates."""
        return float(np.mean(self.values)) if self.by_seed else None

    @property
    def interval(self) -> Interval | None:
        """Student's t over the seeds."""
        return t_interval(self.values, self.level)


def gain(width: int, untuned: Losses, tuned: Losses) -> Gain:
    """The gain of the seeds; of none if any of them diverged.

    **Arguments:**

    - `untuned`, `tuned`: losses at each recipe's best rate, by the same seeds.
    """
    pairs = [(seed, loss, tuned[seed]) for seed, loss in untuned.items()]
    found = [(seed, a - b) for seed, a, b in pairs if a is not None and b is not None]
    return Gain(width, tuple(found) if len(found) == len(pairs) else ())


def judge_gain(gains: Sequence[Gain]) -> tuple[Holds, str]:
    r"""Whether the first width's gain $g_b$ holds at the last, $g$; with the reason.

    It *holds* if the interval of the mean of $g - g_b / 2$ over the seeds lies above zero, and
    *does not hold* if it lies below; both need an interval of $g_b$ above zero, since there is
    nothing to hold otherwise. At the level of 90 % each has an error of at most 5 % for normal
    scatter: without any gain, *holds* comes up at most that often. The seeds must not be those
    that the constants were chosen by: their losses were chosen to be low.
    """
    base, largest = gains[0], gains[-1]
    for one in (base, largest):
        if one.mean is None:
            return Holds.CANNOT_TELL, f"at width {one.width} a recipe diverged at all its rates"
    if len(base.by_seed) < SEEDS_FOR_A_VERDICT:
        return Holds.CANNOT_TELL, f"a verdict needs --check-seeds {SEEDS_FOR_A_VERDICT} or more"
    assert base.interval is not None
    if base.interval[0] <= 0:
        return Holds.CANNOT_TELL, (
            f"on seeds that no trial has seen, a gain at width {base.width} itself is not clear: "
            f"{describe_gain(base)}"
        )
    there = dict(largest.by_seed)
    rest = [there[seed] - SHARE * own for seed, own in base.by_seed]
    interval = t_interval(rest, base.level)
    assert interval is not None
    said = (
        f"{describe_gain(base)} at width {base.width}, {describe_gain(largest)} at width "
        f"{largest.width}"
    )
    if interval[0] > 0:
        return Holds.HOLDS, f"{said}: at least half of it"
    if interval[1] < 0:
        return Holds.DOES_NOT, f"{said}: less than half of it"
    return Holds.CANNOT_TELL, f"{said}; more --check-seeds would narrow the intervals"


def describe_gain(gain: Gain) -> str:
    """A gain with its interval, in nats."""
    if gain.mean is None:
        return "–"
    interval = "" if gain.interval is None else " [{:+.4f}, {:+.4f}]".format(*gain.interval)
    return f"{gain.mean:+.4f}{interval} nats"
