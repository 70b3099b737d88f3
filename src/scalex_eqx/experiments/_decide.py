r"""Which runs to train next until the verdict on a recipe is clear, and that verdict.

**The design.** The given rates are tried at the smallest size with the first seed, and continued
by octaves until they bracket the minimum. Each larger model begins where the smaller ones point:
at the last optimum, then on the line through the last two. Every seed has three rates at the
smallest size: the mean of the size's optima so far, rounded to a sixteenth of an octave, and an
octave on either side. At the largest size, which costs most, only the first seed has three; the
others have the outer two.

**Two rates** place a minimum if the curvature is known. With losses $L_-$ and $L_+$ an octave
below and above the middle, it lies by

$$\delta = \frac{L_- - L_+}{4 a}$$

octaves above the middle. In a parabola through three rates the middle one tells of $a$ alone, and
so adds nothing to the place. The curvature is that of the first seed's curve at that size, times
0.6. All seeds share its error, which an interval over seeds can't show: where it is too large,
their minima come out too near to the middle, which the first seed has placed, and too near to each
other. Times 0.6 they are spread too far rather than too little, unless $a$ was found two thirds
larger than it is: the interval is too wide. Where $\delta$ is above half an octave the third rate
follows.

A seed whose minimum is at an end of its three rates goes on by an octave, and next to a diverged
run by halves, until its minimum is inside or a limit is reached; in that case nothing is decided.

The exponent of one seed is the slope between the smallest and the largest size. In a
least-squares slope over three equidistant sizes the middle one has no weight, and of four the
ends alone have 9/10 of the information; so the sizes between are trained with the first seed
only, to say where to look. What is bought is seeds, not rates. Since all seeds have their rates at
the same distances from their size's optimum, what an asymmetric curve does to a parabola is much
the same at both sizes and leaves the exponent.

**Stopping.** After 3, 4, ... 8 seeds comes a look at the interval of p, and the first clear one
ends the search. With intervals that are right for a single look, a drift as large as the margin
would be called *transfers*, or *drifts*, 13 times in a hundred and not 5. Let the slopes of the
seeds be independent and normal around p. Then the joint distribution of

$$T_n = \sqrt n\, (\bar p_n - p) / s_n, \qquad n = 3, \dots, 8,$$

has no parameters, since each is a function of the $(p_i - p) / \sigma$ alone. Whatever the
variance, the errors $\alpha_n$ of `ERRORS_AT_LOOKS` therefore hold

$$P(T_n > t_{n-1}(\alpha_n) \text{ for any } n) = 0.039,$$

$t_{n-1}(\alpha_n)$ being Student's upper quantile. The interval at each look has the level
$1 - 2 \alpha_n$. A wrong verdict needs a bound on the wrong side of an end of the margin at some
look, so that at p = 0.25 *transfers* and *drifts* have a chance of 3.9 % each, and elsewhere less
wherever they are wrong. One percent is left for the curvature that seeds share where runs are
noisy, and for what isn't normal. More is spent on the first
look than on the others: seeds seldom scatter so much that a second look is needed, and each costs
a fifteenth of a grid. An end for any other reason, such as a spent budget, only takes looks away.
"""

import dataclasses
import math
from collections.abc import Generator, Iterable, Mapping, Sequence

from ._axes import WIDTH, Axis
from ._drift import SEEDS_FOR_A_VERDICT, Drift, Verdict, fit_drift, judge, outside_reason
from ._fits import MARGIN, Run
from ._optimum import ALL_DIVERGED, LOWER_EDGE, UPPER_EDGE, Optimum, fit_optimum

MOST_SEEDS = 8

# One-sided errors of the looks after 3 to 8 seeds. The first is chosen, the others follow from it
# and from 3.9 % in all, in sequences of normal numbers; the tests find the 3.9 % again.
ERRORS_AT_LOOKS = (0.021, *[0.0093] * (MOST_SEEDS - SEEDS_FOR_A_VERDICT))

# How many octaves beyond the given rates the search goes.
REACH = 6

# By how much the first seed's curvature is lowered for the others, and how far from the middle of
# their two rates a minimum may lie, in octaves.
_OF_CURVATURE = 0.6
_NEAR = 0.5

_LATTICE = 16
_OCTAVE = 1_000_000  # what a place is rounded to
_FINEST = 0.125  # octaves between a best run and a diverged one


@dataclasses.dataclass(frozen=True)
class Point:
    """One run of a recipe."""

    size: int
    learning_rate: float
    seed: int


Points = tuple[Point, ...]
Rounded = tuple[int, int, int]
Cell = tuple[int, int]  # a size and a seed


@dataclasses.dataclass(frozen=True)
class Search:
    """What a verdict is looked for with.

    **Arguments:**

    - `sizes`: at least two, in any order.
    - `learning_rates`: those to begin with, at the smallest size.
    - `seeds`: in the order of their use, at most eight.
    - `work`: of one run, by size, in any unit.
    - `budget`: the work that may be asked for, in the same unit.
    - `errors`: the one-sided error of each look's interval.
    - `axis`: which size it is.
    """

    sizes: tuple[int, ...]
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...]
    work: Mapping[int, float]
    budget: float = math.inf
    errors: tuple[float, ...] = ERRORS_AT_LOOKS
    axis: Axis = WIDTH


@dataclasses.dataclass(frozen=True)
class Decision:
    """How far a search is.

    **Arguments:**

    - `verdict`, `reason`: as `judge` gives them.
    - `drift`: at the last look; without an exponent if there was none.
    - `looks`: how many there were.
    - `points`: the runs that were asked for, in the order of asking.
    - `wanted`: those of them that are missing; none at its end.
    - `optima`: of each size and seed that were tried.
    - `work`: of all the points.
    """

    verdict: Verdict
    reason: str
    drift: Drift
    looks: int
    points: Points
    wanted: Points
    optima: Mapping[Cell, Optimum]
    work: float


def decide(search: Search, runs: Iterable[Run]) -> Decision:
    """The verdict, or which runs it needs next.

    It follows from the losses alone: the search is gone through from its beginning each time, up
    to the first runs that are missing. Runs that it doesn't ask for change nothing.

    **Arguments:**

    - `search`: what to look for.
    - `runs`: the finished ones of one recipe, in any order.
    """
    losses = {
        rounded(Point(run.size, run.learning_rate, run.seed)): run.held_out_loss for run in runs
    }
    course = Course(search, losses)
    for wanted in course.steps():
        missing = tuple(point for point in wanted if rounded(point) not in losses)
        if missing:
            return course.decision(missing)
    return course.decision()


class _Ended(Exception):
    """Why nothing can be decided."""


class Course:
    """One passage through a search.

    **Arguments:**

    - `search`: what to look for.
    - `losses`: of the runs, by their `rounded` points; those of a batch are read after its yield.
    """

    def __init__(self, search: Search, losses: Mapping[Rounded, float | None]):
        self.search, self.losses = search, losses
        self.sizes = sorted(search.sizes)
        self.limits = (
            math.log2(min(search.learning_rates)) - REACH,
            math.log2(max(search.learning_rates)) + REACH,
        )
        self.points: dict[Point, None] = {}
        self.rates: dict[Cell, list[float]] = {}
        self.optima: dict[Cell, Optimum] = {}
        self.curvature: float | None = None
        self.looks: list[Drift] = []
        self.ended = ""

    def steps(self) -> Generator[Points]:
        """The runs that are wanted, batch by batch."""
        try:
            yield from self._steps()
        except _Ended as ended:
            self.ended = str(ended)

    def _steps(self) -> Generator[Points]:
        ends = self.sizes[0], self.sizes[-1]
        first, *others = self.search.seeds
        yield from self._settle({(ends[0], first): self.search.learning_rates})
        yield from self._settle({(ends[0], first): self._around(ends[0])})
        for size in self.sizes[1:]:
            yield from self._settle({(size, first): _arms(self._foretold(size, first))})
        self.curvature = self._curvature_at(ends[1], first)
        seeds = [first]
        # No look comes before the third seed.
        for added in (others[:2], *([seed] for seed in others[2:])):
            yield from self._settle({(x, s): self._begun(x) for s in added for x in ends})
            seeds += added
            if self._look(ends, seeds) != Verdict.CANNOT_TELL:
                return

    def _settle(self, cells: Mapping[Cell, Sequence[float]]) -> Generator[Points]:
        """Asks until the minimum of each size and seed is inside."""
        self.rates.update({cell: list(rates) for cell, rates in cells.items()})
        wanted = [
            Point(size, rate, seed) for (size, seed), rates in cells.items() for rate in rates
        ]
        while wanted:
            self._pay(wanted)
            yield tuple(wanted)
            wanted = [point for cell in cells for point in self._further(*cell)]

    def _pay(self, wanted: Sequence[Point]) -> None:
        points = self.points | dict.fromkeys(wanted)
        if self._work(points) > self.search.budget:
            raise _Ended("the budget is spent; a larger --budget goes on from here")
        self.points = points

    def _work(self, points: Iterable[Point]) -> float:
        return math.fsum(self.search.work[point.size] for point in points)

    def _further(self, size: int, seed: int) -> Points:
        """The next run of a size and seed whose minimum isn't inside yet."""
        rates = sorted(self.rates[size, seed])
        losses = [self.losses[rounded(Point(size, rate, seed))] for rate in rates]
        if len(rates) == 2 and self._has_two(size):
            assert self.curvature is not None
            between = _between(rates, losses, self.curvature)
            if between is None:
                return self._added(size, seed, 2 * rates[0])
            self.optima[size, seed] = between
            return ()
        optimum = self.optima[size, seed] = fit_optimum(rates, losses)
        if optimum.inside:
            return ()
        rate = _beyond(optimum, rates, losses)
        low, high = self.limits
        if rate is None or not low <= math.log2(rate) <= high:
            raise _Ended(outside_reason((size,), {seed: (optimum,)}, self.search.axis))
        return self._added(size, seed, rate)

    def _added(self, size: int, seed: int, rate: float) -> Points:
        self.rates[size, seed].append(rate)
        return (Point(size, rate, seed),)

    def _curvature_at(self, size: int, seed: int) -> float | None:
        rates = sorted(self.rates[size, seed])
        losses = [self.losses[rounded(Point(size, rate, seed))] for rate in rates]
        found = _curvature(rates, losses)
        return None if found is None else _OF_CURVATURE * found

    def _has_two(self, size: int) -> bool:
        """Whether a seed begins with two rates at a size: the first is through, and was regular."""
        return size == self.sizes[-1] and self.curvature is not None

    def _begun(self, size: int) -> list[float]:
        """What a seed begins with."""
        below, middle, above = self._around(size)
        return [below, above] if self._has_two(size) else [below, middle, above]

    def _around(self, size: int) -> list[float]:
        """Three rates around the mean of a size's optima so far."""
        places = [self._place(size, seed) for x, seed in self.optima if x == size]
        return _arms(math.fsum(places) / len(places))

    def _foretold(self, size: int, seed: int) -> float:
        """Where the optimum of a size should lie, by the smaller ones."""
        smaller = [x for x in self.sizes if x < size]
        last = self._place(smaller[-1], seed)
        if len(smaller) == 1:
            return last
        slope = (last - self._place(smaller[-2], seed)) / math.log2(smaller[-1] / smaller[-2])
        low, high = self.limits
        return min(max(last + slope * math.log2(size / smaller[-1]), low), high)

    def _place(self, size: int, seed: int) -> float:
        place = self.optima[size, seed].log2_learning_rate
        assert place is not None, "an optimum that is inside has its place"
        return place

    def _look(self, ends: tuple[int, int], seeds: Sequence[int]) -> Verdict:
        optima = {seed: [self.optima[size, seed] for size in ends] for seed in seeds}
        level = 1 - 2 * self.search.errors[len(self.looks)]
        self.looks.append(fit_drift(ends, optima, level, self.search.axis))
        return judge(self.looks[-1])[0]

    def decision(self, wanted: Points = ()) -> Decision:
        """The verdict of the last look, or why there is none."""
        ended = "not decided yet; the same command goes on" if wanted else self.ended
        drift = Drift(None, None, (), 1 - 2 * self.search.errors[0], ended)
        drift = self.looks[-1] if self.looks else drift
        verdict, reason = judge(drift)
        if verdict == Verdict.CANNOT_TELL and len(drift.by_seed) >= SEEDS_FOR_A_VERDICT:
            reason = ended or (
                f"after {len(drift.by_seed)} seeds, the most that are used, the interval of p is "
                f"neither inside nor outside the margin of {MARGIN}; "
                f"{self.search.axis.option} further apart "
                "narrow it"
            )
        points = tuple(self.points)
        return Decision(
            verdict, reason, drift, len(self.looks), points, wanted, self.optima, self._work(points)
        )


def rounded(point: Point) -> Rounded:
    """A point whose learning rate is in millionths of an octave: powers differ in their last digit
    from machine to machine, and a store may have moved."""
    return point.size, round(math.log2(point.learning_rate) * _OCTAVE), point.seed


def _arms(place: float) -> list[float]:
    octave, part = divmod(round(place * _LATTICE), _LATTICE)
    # Powers differ in their last digit from machine to machine, and a run's key would with them.
    centre = math.ldexp(round(2.0 ** (part / _LATTICE), 12), octave)
    return [centre / 2, centre, centre * 2]


def _beyond(
    optimum: Optimum, rates: Sequence[float], losses: Sequence[float | None]
) -> float | None:
    """The rate that may bring the minimum inside, if there is one."""
    if optimum.note in (LOWER_EDGE, ALL_DIVERGED):
        return rates[0] / 2
    if optimum.note == UPPER_EDGE:
        return rates[-1] * 2
    values = [math.inf if loss is None or math.isnan(loss) else loss for loss in losses]
    lowest = values.index(min(values))
    diverged = next(i for i in (lowest + 1, lowest - 1) if math.isinf(values[i]))
    apart = abs(math.log2(rates[diverged] / rates[lowest]))
    return math.sqrt(rates[diverged] * rates[lowest]) if apart > _FINEST * 1.001 else None


def _curvature(rates: Sequence[float], losses: Sequence[float | None]) -> float | None:
    """In nats for each octave squared, by the lowest loss and those an octave off on either side;
    `None` without these."""
    curve = {
        round(math.log2(rate) * _OCTAVE): loss
        for rate, loss in zip(rates, losses, strict=True)
        if loss is not None and math.isfinite(loss)
    }
    lowest = min(curve, key=lambda place: curve[place])
    below, above = curve.get(lowest - _OCTAVE), curve.get(lowest + _OCTAVE)
    if below is None or above is None:
        return None
    return max((below + above) / 2 - curve[lowest], 0.0) or None


def _between(
    rates: Sequence[float], losses: Sequence[float | None], curvature: float
) -> Optimum | None:
    """The minimum of a parabola of known curvature, if it is near the middle of two rates that are
    two octaves apart."""
    below, above = losses
    if below is None or above is None or not math.isfinite(below + above):
        return None
    shift = (below - above) / (4 * curvature)
    if abs(shift) > _NEAR:
        return None
    loss = (below + above) / 2 - curvature * (1 + shift**2)
    return Optimum(math.log2(rates[0]) + 1 + shift, loss, True, "")
