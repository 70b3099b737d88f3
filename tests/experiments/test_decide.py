"""The search for a verdict, on synthetic curves whose exponent is known.

Below its minimum a curve is 0.025 u^2 nats at u octaves; above, the same, three times that, or
exponential. The noise of a run is 0.005 nats, that of the committed runs, and a seed's minimum
moves by 0.05 octaves.
"""

import collections
import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from scalex_eqx.experiments import Run, _optimum
from scalex_eqx.experiments._decide import (
    ERRORS_AT_LOOKS,
    MOST_SEEDS,
    REACH,
    Course,
    Decision,
    Point,
    Search,
    decide,
    rounded,
)
from scalex_eqx.experiments._drift import Verdict

WIDTHS = (64, 128, 256)
WORK = {64: 1.0, 128: 4.0, 256: 16.0}
GRID = 24 * sum(WORK.values())
SEARCH = Search(WIDTHS, tuple(2.0**k for k in range(-10, -4)), tuple(range(MOST_SEEDS)), WORK, GRID)
UNCORRECTED = dataclasses.replace(SEARCH, errors=(0.05,) * len(ERRORS_AT_LOOKS))
SHAPES: tuple[Callable[[float], float], ...] = (
    lambda u: u * u,
    lambda u: u * u * (3 if u > 0 else 1),
    lambda u: 1.4 * (math.exp(1.2 * u) - 1 - 1.2 * u) if u > 0 else u * u,
)


class Drawn(dict):
    """The losses of one sweep, drawn as they are asked for."""

    def __init__(self, number: int, exponent: float, noise: float = 0.005):
        self.rng = np.random.default_rng(number)
        self.shape, self.exponent, self.noise = SHAPES[number % 3], exponent, noise
        self.first = self.rng.uniform(-8, -7)
        self.places: dict[tuple[int, int], float] = {}

    def __missing__(self, key: tuple[int, int, int]) -> float:
        width, rate, seed = key
        if (width, seed) not in self.places:
            place = self.first + self.exponent * math.log2(width / 64)
            self.places[width, seed] = place + 0.05 * self.rng.standard_normal()
        height = 0.025 * self.shape(rate / 1e6 - self.places[width, seed])
        self[key] = 2.4 + height + self.noise * self.rng.standard_normal()
        return self[key]


def searched(search: Search, losses: Drawn) -> Decision:
    course = Course(search, losses)
    collections.deque(course.steps(), maxlen=0)
    return course.decision()


def judged(search: Search, sweeps: int) -> int:
    """How many sweeps whose drift is the margin get a verdict, at twice the noise, where more of
    them need a second look."""
    ends = [searched(search, Drawn(i, 0.25 if i % 2 else -0.25, 0.01)) for i in range(sweeps)]
    return sum(end.verdict != Verdict.CANNOT_TELL for end in ends)


def followed(
    search: Search, loss: Callable[[Point], float | None]
) -> tuple[Decision, list[tuple[Point, ...]], list[Run]]:
    """The search as the command makes it: what it asked for, step by step, and the runs."""
    batches, runs = [], []
    while (found := decide(search, runs)).wanted:
        assert found.verdict == Verdict.CANNOT_TELL
        batches.append(found.wanted)
        runs += [Run("r", p.size, p.learning_rate, p.seed, loss(p)) for p in found.wanted]
    return found, batches, runs


def bowl(point: Point, exponent: float = -1.0, place: float = -6.5) -> float:
    """Without noise, but for a seed's own minimum."""
    best = place + exponent * math.log2(point.size / 64) + 0.02 * (point.seed % 3)
    return 2.4 + 0.025 * (math.log2(point.learning_rate) - best) ** 2


def crossed(errors: tuple[float, ...], sequences: int = 400_000) -> float:
    """How often any look's one-sided interval misses the mean of normal numbers."""
    drawn = np.random.default_rng(0).standard_normal((sequences, MOST_SEEDS))
    counts = np.arange(1, MOST_SEEDS + 1)
    means = drawn.cumsum(1) / counts
    missed = np.zeros(sequences, bool)
    for count, error in zip(counts[2:], errors, strict=True):
        bound = stats.t.isf(error, count - 1) * drawn[:, :count].std(1, ddof=1) / count**0.5
        missed |= means[:, count - 1] > bound
    return float(missed.mean())


def test_the_errors_of_all_looks_make_four_percent():
    # Three standard deviations of 400,000 draws.
    assert crossed(ERRORS_AT_LOOKS) == pytest.approx(0.039, abs=0.001)
    assert crossed(UNCORRECTED.errors) > 0.12


def test_a_drift_of_the_margin_is_rarely_judged(monkeypatch):
    """9 % of 160 sweeps are judged one way or the other; 27 are the 99.9 % quantile."""
    # Whether a curve is steep above moves no minimum, and takes half of a fit's time.
    monkeypatch.setattr(_optimum, "_rises_steeply", lambda *_: False)
    bound = stats.binom.ppf(0.999, 160, 0.09)
    assert judged(SEARCH, 160) <= bound < judged(UNCORRECTED, 160)


@pytest.mark.parametrize(
    ("exponent", "verdict"), [(0.0, "transfers"), (-0.7, "drifts"), (-1.0, "drifts")]
)
def test_clear_cases_are_judged_right_and_for_less_than_a_grid(exponent, verdict):
    """Of 60 sweeps none is wrong, and at least 57 end with a verdict."""
    ends = [searched(SEARCH, Drawn(number, exponent)) for number in range(60)]
    found = collections.Counter(str(end.verdict) for end in ends)
    assert set(found) <= {verdict, "cannot tell"} and found[verdict] >= 57
    assert np.mean([end.work for end in ends]) < 0.37 * GRID
    assert all(end.work <= GRID for end in ends)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda p: -math.log2(p.learning_rate), "upper edge"),
        (lambda p: math.log2(p.learning_rate), "lower edge"),
        (lambda p: bowl(p, place=-16.5), "lower edge"),
        (lambda p: bowl(p, 0.0, 3.0 if p.size == 256 else -6.5), "width 256, seed 0, is at"),
        (lambda p: None, "diverged"),
    ],
)
def test_a_minimum_at_the_limits_is_never_judged(loss, words):
    decision, _, runs = followed(SEARCH, loss)
    assert decision.verdict == Verdict.CANNOT_TELL
    assert words in decision.reason and "--learning-rates" in decision.reason
    rates = [run.learning_rate for run in runs]
    assert min(rates) >= 2.0 ** (-11 - REACH) and max(rates) <= 2.0 ** (-4 + REACH)


def test_three_seeds_at_an_edge_are_never_judged_though_the_first_is_inside():
    def loss(point: Point) -> float:
        return bowl(point, 0.0) if point.seed == 0 else math.log2(point.learning_rate)

    decision, _, _ = followed(SEARCH, loss)
    assert decision.verdict == Verdict.CANNOT_TELL
    assert "seed 1, is at the grid's lower edge" in decision.reason
    assert followed(SEARCH, lambda point: bowl(point, 0.0))[0].verdict == Verdict.TRANSFERS


def test_it_asks_for_the_given_rates_first_and_then_near_each_optimum():
    decision, batches, runs = followed(SEARCH, bowl)
    assert decision.verdict == Verdict.DRIFTS and decision.looks == 1
    assert batches[0] == tuple(Point(64, rate, 0) for rate in SEARCH.learning_rates)
    assert decision.points == tuple(point for batch in batches for point in batch)
    assert len(set(decision.points)) == len(runs)
    of_largest = [point for point in decision.points if point.size == 256]
    # Three of the first seed's, and the outer two of each other one.
    assert len(of_largest) == 7
    assert all(abs(math.log2(point.learning_rate) + 8.5) <= 1.1 for point in of_largest)
    assert {point.seed for point in decision.points if point.size == 128} == {0}
    assert decision.drift.exponent == pytest.approx(-1.0, abs=0.01)
    assert decision.work == sum(WORK[point.size] for point in decision.points)


def test_a_minimum_beyond_the_given_rates_is_found():
    decision, _, _ = followed(SEARCH, lambda point: bowl(point, -1.0, place=-12.3))
    assert decision.verdict == Verdict.DRIFTS
    assert decision.optima[64, 0].log2_learning_rate == pytest.approx(-12.3, abs=0.01)


def test_runs_that_diverge_above_the_minimum_are_halved_towards_it():
    def loss(point: Point) -> float | None:
        best = -6.5 - math.log2(point.size / 64)
        return bowl(point) if math.log2(point.learning_rate) < best + 0.7 else None

    decision, _, _ = followed(SEARCH, loss)
    assert decision.verdict == Verdict.DRIFTS
    assert decision.drift.exponent == pytest.approx(-1.0, abs=0.02)


def test_two_rates_place_a_minimum_and_a_third_follows_where_it_is_far():
    def loss(point: Point) -> float:
        """Seed 1's minimum at the largest width lies 0.1 octaves up, seed 2's 0.45."""
        shift = {1: 0.1, 2: 0.45}.get(point.seed, 0.0) if point.size == 256 else 0.0
        return 2.4 + 0.025 * (math.log2(point.learning_rate) + 6.5 - shift) ** 2

    search = dataclasses.replace(SEARCH, seeds=(0, 1, 2))
    decision, _, _ = followed(search, loss)
    tried = collections.Counter(point.seed for point in decision.points if point.size == 256)
    assert tried == {0: 3, 1: 2, 2: 3}
    near, far = decision.optima[256, 1], decision.optima[256, 2]
    # The curvature is counted times 0.6: 0.1 octaves are seen as 0.167.
    assert near.log2_learning_rate == pytest.approx(-6.5 + 0.1 / 0.6, abs=1e-6)
    assert near.loss == pytest.approx(2.4 + 0.025 * (1.01 - 0.6 * (1 + (0.1 / 0.6) ** 2)), abs=1e-6)
    # By three rates it is exact.
    assert far.log2_learning_rate == pytest.approx(-6.5 + 0.45, abs=1e-6)


def test_two_rates_of_which_one_diverges_get_the_third():
    def loss(point: Point) -> float | None:
        diverges = point.seed == 1 and point.size == 256 and point.learning_rate > 2**-6
        return None if diverges else bowl(point, 0.0)

    decision, batches, _ = followed(SEARCH, loss)
    place = next(i for i, batch in enumerate(batches) if batch[0].seed == 1)
    assert [p.learning_rate for p in batches[place + 1]] == [pytest.approx(2**-6.5)]
    assert decision.verdict == Verdict.TRANSFERS


def test_only_the_losses_of_the_runs_it_asked_for_count():
    decision, batches, runs = followed(SEARCH, bowl)
    others = [Run("r", width, 2.0**-4, seed, 1.0) for width in WIDTHS for seed in range(9)]
    assert decide(SEARCH, [*reversed(runs), *others]) == decision
    moved = [dataclasses.replace(r, learning_rate=r.learning_rate * (1 + 1e-15)) for r in runs]
    assert decide(SEARCH, moved) == decision
    # An interrupted batch asks for what it lacks.
    done = sum(map(len, batches[:-1]))
    unfinished = decide(SEARCH, runs[: done + 2])
    assert unfinished.wanted == batches[-1][2:] and unfinished.points == decision.points
    assert "same command" in unfinished.reason
    assert rounded(batches[0][0]) == (64, -10_000_000, 0)


def test_a_spent_budget_ends_it_and_a_larger_one_goes_on():
    least = dataclasses.replace(SEARCH, budget=0.25 * GRID)
    decision, _, runs = followed(least, bowl)
    assert decision.verdict == Verdict.CANNOT_TELL and "--budget" in decision.reason
    assert decision.work <= least.budget
    further, _, _ = followed(SEARCH, bowl)
    assert further.points[: len(runs)] == decision.points
    assert further.verdict == Verdict.DRIFTS


def test_the_last_look_says_that_it_was_the_last():
    decision = searched(SEARCH, Drawn(0, 0.25))
    assert decision.looks == len(ERRORS_AT_LOOKS)
    assert decision.reason.startswith(f"after {MOST_SEEDS} seeds")
    assert decision.drift.level == pytest.approx(1 - 2 * ERRORS_AT_LOOKS[-1])


def test_two_seeds_are_too_few():
    decision, _, _ = followed(dataclasses.replace(SEARCH, seeds=(0, 1)), bowl)
    assert decision.verdict == Verdict.CANNOT_TELL and "2 seeds only" in decision.reason
