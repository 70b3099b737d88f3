"""The verdict is tested on synthetic loss curves whose exponent, noise and grid are known.

A curve has curvature a = 0.03 nats an octave squared below its optimum, grows to a straight
line, rises faster above, and diverges 2 to 3.5 octaves above: the shape that small language
models show. Noise is independent for each run, sigma in nats; the optimum itself moves by a
standard deviation of 0.05 octaves between seeds.
"""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats
from scipy.interpolate import PchipInterpolator

from scalex_eqx.experiments._drift import LEVEL, MARGIN, Drift, fit_drift, judge, t_interval
from scalex_eqx.experiments._fits import Run, Verdict, analyse, reuse_cost, to_json
from scalex_eqx.experiments._interpolate import monotone_cubic, parabola
from scalex_eqx.experiments._optimum import (
    ALL_DIVERGED,
    LOWER_EDGE,
    NEXT_TO_DIVERGED,
    UPPER_EDGE,
    Optimum,
    fit_optimum,
    interpolated_loss,
)

WIDTHS = (32, 64, 128, 256)
HALF_OCTAVES = tuple(np.arange(-10.5, 0.1, 0.5).tolist())
OCTAVES = tuple(np.arange(-11.0, 0.1, 1.0).tolist())
UNEVEN = (-10, -9, -8, -7.5, -7, -6.5, -6, -5.6, -5.2, -4.8, -4.4, -4, -3.5, -3, -2, -1)
DRAWS = 200


def kinked(octaves: float, steepness: float) -> float:
    if octaves > 0:
        return 0.03 * steepness * octaves**2
    return 0.03 * octaves**2 / (1 - octaves / 4)


def exponential(octaves: float, steepness: float) -> float:
    return 0.06 / steepness**2 * math.expm1(steepness * octaves) - 0.06 / steepness * octaves


def draw_runs(
    generator, *, exponent, grid, shape, steepness, noise, seeds=3, recipe="r", widths=WIDTHS
):
    base, cliff = generator.uniform(-5, -4), generator.uniform(2, 3.5)
    runs = []
    for seed in range(seeds):
        for width in widths:
            best = base + exponent * math.log2(width / widths[0]) + generator.normal(0, 0.05)
            # Wider models bend more sharply, so that the vertex's bias is not quite shared.
            bend = 1 + 0.15 * math.log2(width / widths[0])
            for rate, error in zip(grid, generator.normal(0, noise, len(grid)), strict=True):
                loss = 2.5 - 0.1 * math.log2(width / 32) + bend * shape(rate - best, steepness)
                finite = None if rate - best > cliff else loss + float(error)
                runs.append(Run(recipe, width, 2.0**rate, seed, finite))
    return runs


RIGHT_AND_WRONG = {
    0.0: (Verdict.TRANSFERS, Verdict.DRIFTS),
    -0.7: (Verdict.DRIFTS, Verdict.TRANSFERS),
}


def draw_analyses(**settings):
    generator = np.random.default_rng(20240705)
    return [analyse(draw_runs(generator, **settings))[0] for _ in range(DRAWS)]


@pytest.mark.parametrize("exponent", RIGHT_AND_WRONG)
@pytest.mark.parametrize(
    ("grid", "shape", "steepness", "noise", "seeds", "power"),
    [
        # sigma 0.003 nats is a tenth of the loss an octave off the optimum; 0.02 is two thirds.
        (OCTAVES, kinked, 4.0, 0.003, 3, 0.9),
        (HALF_OCTAVES, exponential, 1.2, 0.003, 3, 0.9),
        (UNEVEN, kinked, 4.0, 0.003, 3, 0.9),
        (OCTAVES, exponential, 1.2, 0.02, 4, 0.0),
        (HALF_OCTAVES, kinked, 4.0, 0.02, 3, 0.0),
    ],
)
def test_verdicts_are_rarely_wrong_and_mostly_reached(
    exponent, grid, shape, steepness, noise, seeds, power
):
    """n = 200 draws a case; at most 5 % wrong, at least `power` right."""
    analyses = draw_analyses(
        exponent=exponent,
        grid=grid,
        shape=shape,
        steepness=steepness,
        noise=noise,
        seeds=seeds,
    )
    found = [analysis.verdict for analysis in analyses]
    right, wrong = RIGHT_AND_WRONG[exponent]
    assert found.count(wrong) <= 0.05 * DRAWS
    assert found.count(right) >= power * DRAWS


def test_negative_control_a_rule_without_the_interval_is_often_wrong():
    """sigma = 0.04 nats, three widths, three seeds, n = 200: judging by the mean alone fails."""
    analyses = draw_analyses(
        exponent=0.0,
        grid=OCTAVES,
        shape=exponential,
        steepness=1.2,
        noise=0.04,
        widths=(64, 128, 256),
    )
    exponents = [a.drift.exponent for a in analyses if a.drift.exponent is not None]
    assert sum(abs(exponent) > MARGIN for exponent in exponents) > 0.1 * DRAWS
    assert [a.verdict for a in analyses].count(Verdict.DRIFTS) <= 0.05 * DRAWS


@pytest.mark.parametrize(
    "grid",
    [
        tuple(np.arange(-8.0, -0.9, 1.0)),
        tuple(np.arange(-8.0, -0.9, 0.5)),
        (-8.0, -6.7, -5.9, -5.2, -4.1, -3.8, -2.0),
        (-7.0, -4.9, -2.0),
    ],
)
@pytest.mark.parametrize("vertex", [-5.3, -4.77, -4.5, -5.0])
def test_a_noiseless_parabola_gives_its_vertex(grid, vertex):
    losses = [2.0 + 0.07 * (rate - vertex) ** 2 for rate in grid]
    optimum = fit_optimum([2.0**rate for rate in grid], losses)
    assert optimum.log2_learning_rate == pytest.approx(vertex, abs=1e-9)
    assert optimum.loss == pytest.approx(2.0, abs=1e-9)
    assert (optimum.inside, optimum.note, optimum.asymmetric) == (True, "", False)


def test_the_order_of_the_grid_does_not_matter():
    rates, losses = [0.01, 0.04, 0.02, 0.08], [2.0, 1.95, 1.9, None]
    ordered = fit_optimum(sorted(rates), [2.0, 1.9, 1.95, None])
    assert fit_optimum(rates, losses) == ordered


@pytest.mark.parametrize(
    ("losses", "note", "location"),
    [
        ([1.0, 1.1, 1.2, 1.3], LOWER_EDGE, -4),
        ([1.3, 1.2, 1.1, 1.0], UPPER_EDGE, -1),
        ([1.2, 1.1, 1.0, None], NEXT_TO_DIVERGED, -2),
        ([1.2, 1.1, 1.0, math.nan], NEXT_TO_DIVERGED, -2),
        ([None, 1.0, 1.1, 1.2], NEXT_TO_DIVERGED, -3),
        ([1.0, None, None, None], LOWER_EDGE, -4),
        ([None, math.inf, math.nan, None], ALL_DIVERGED, None),
    ],
)
def test_a_minimum_that_is_not_bracketed_is_not_inside(losses, note, location):
    optimum = fit_optimum([2.0**-4, 2.0**-3, 2.0**-2, 2.0**-1], losses)
    assert (optimum.inside, optimum.note) == (False, note)
    assert optimum.log2_learning_rate == location


@pytest.mark.parametrize(
    ("losses", "asymmetric"),
    [
        ([1.9, 1.4, 1.1, 1.0, 1.1, 1.4, 1.9], False),
        ([1.9, 1.4, 1.1, 1.0, 1.1, None, None], True),
        ([1.9, 1.4, 1.1, 1.0, 1.1, 1.4, None], False),
        ([1.3, 1.2, 1.1, 1.0, 1.2, 4.0, 5.0], True),
    ],
)
def test_a_steep_upper_side_is_flagged(losses, asymmetric):
    assert fit_optimum([2.0**k for k in range(-9, -2)], losses).asymmetric is asymmetric


def test_a_finite_loss_on_the_cliff_moves_the_vertex_by_half_a_step_at_most():
    rates = [2.0 ** (k / 2) for k in range(-12, -5)]
    bowl = [1.36, 1.16, 1.04, 1.0, 1.05, 1.2, 1.4]
    plain = fit_optimum(rates, bowl).log2_learning_rate
    for position in (4, 5, 6):
        cliff = [*bowl[:position], *[30.0] * (7 - position)]
        location = fit_optimum(rates, cliff).log2_learning_rate
        assert plain is not None and location == pytest.approx(plain, abs=0.26)


@pytest.mark.parametrize(
    ("rates", "losses", "message"),
    [
        ([0.1, 0.2], [1.0], "as many"),
        ([], [], "at least one"),
        ([0.1, 0.0], [1.0, 1.0], "positive"),
        ([0.1, 0.1], [1.0, 1.0], "twice"),
    ],
)
def test_a_malformed_curve_is_refused(rates, losses, message):
    with pytest.raises(ValueError, match=message):
        fit_optimum(rates, losses)


def test_interpolation_passes_through_its_points_and_never_undercuts_the_optimum():
    grid, losses = list(range(-8, 0)), [2.9, 2.5, 2.31, 2.2, 2.24, 2.6, 4.0, None]
    rates = [2.0**k for k in grid]
    optimum = fit_optimum(rates, losses)
    for k, loss in zip(grid[:-1], losses, strict=False):
        assert interpolated_loss(rates, losses, optimum, float(k)) == pytest.approx(loss)
    dense = [interpolated_loss(rates, losses, optimum, x) for x in np.linspace(-8, -2, 301)]
    assert optimum.loss is not None and min(x for x in dense if x is not None) >= optimum.loss
    assert None not in dense
    assert interpolated_loss(rates, losses, optimum, -1.5) is None
    assert interpolated_loss(rates, losses, optimum, -9.0) is None


def test_the_interval_is_students():
    values = [0.3, -0.1, 0.25, 0.4, 0.0]
    expected = stats.t.interval(0.9, 4, loc=np.mean(values), scale=stats.sem(values))
    assert t_interval(values, 0.9) == pytest.approx(expected, abs=1e-12)
    assert t_interval([0.3]) is None


def test_the_exponent_is_the_mean_least_squares_slope():
    widths, generator = (32, 64, 96, 256), np.random.default_rng(3)
    rates = {seed: generator.normal(-5, 1, 4) for seed in range(4)}
    optima = {s: [Optimum(float(x), 2.0, True, "") for x in xs] for s, xs in rates.items()}
    slopes = [np.polyfit(np.log2(widths), xs, 1)[0] for xs in rates.values()]
    drift = fit_drift(widths, optima)
    assert drift.exponent == pytest.approx(np.mean(slopes), abs=1e-12)
    assert drift.interval == pytest.approx(t_interval([float(x) for x in slopes]), abs=1e-12)
    assert [slope for _, slope in drift.by_seed] == pytest.approx(slopes, abs=1e-12)


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((-0.25, 0.25), Verdict.TRANSFERS),
        ((-0.26, 0.1), Verdict.CANNOT_TELL),
        ((0.2, 0.4), Verdict.CANNOT_TELL),
        ((-0.5, 0.5), Verdict.CANNOT_TELL),
        ((0.26, 0.4), Verdict.DRIFTS),
        ((-0.8, -0.26), Verdict.DRIFTS),
    ],
)
def test_the_margin(interval, verdict):
    seeds = ((0, 0.0), (1, 0.0), (2, 0.0))
    found, reason = judge(Drift(float(np.mean(interval)), interval, seeds, LEVEL, ""))
    assert found == verdict
    assert bool(reason) == (verdict == Verdict.CANNOT_TELL)


def clean_runs(exponent=0.0, grid=OCTAVES, seeds=3, widths=WIDTHS, recipe="r", center=-4.6):
    return [
        Run(recipe, w, 2.0**x, s, 2.0 + 0.05 * (x - center - exponent * math.log2(w / 32)) ** 2)
        for s in range(seeds)
        for w in widths
        for x in grid
    ]


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        (clean_runs(seeds=1), "one seed only"),
        (clean_runs(seeds=2), "2 seeds only"),
        (clean_runs(widths=(64,)), "at least two widths"),
        (clean_runs(exponent=-2.2), "width 256, seed 0, is at the grid's lower edge"),
        (clean_runs(exponent=3.0), "extend --learning-rates upwards"),
        (clean_runs()[: -len(OCTAVES)], "no runs of width 256, seed 2"),
    ],
)
def test_too_little_evidence_cannot_tell(runs, reason):
    analysis = analyse(runs)[0]
    assert analysis.verdict == "cannot tell"
    assert analysis.sentence.startswith("r: cannot tell: ")
    assert reason in analysis.sentence


@pytest.mark.parametrize(
    ("diverges", "reason"),
    [
        (lambda run: run.size == 128 and run.learning_rate > 2**-4.9, "next to a diverged run"),
        (lambda run: run.size == 128, "every run of width 128, seed 0, diverged"),
        (lambda run: (run.size, run.seed) == (64, 2), "width 64, seed 2"),
    ],
)
def test_diverged_members_cannot_tell(diverges, reason):
    runs = [
        Run(r.recipe, r.size, r.learning_rate, r.seed, None if diverges(r) else r.held_out_loss)
        for r in clean_runs()
    ]
    analysis = analyse(runs)[0]
    assert analysis.verdict == "cannot tell"
    assert reason in analysis.sentence
    # The same runs without the divergence do give a verdict.
    assert analyse(clean_runs())[0].verdict == "transfers"


@pytest.mark.parametrize(("exponent", "expected"), [(0.0, 0.0), (-0.7, 0.05 * 2.1**2)])
def test_the_cost_of_reuse(exponent, expected):
    """PCHIP on a parabola, grid of an octave: within 2 % of it, and 0 without drift."""
    analysis = analyse(clean_runs(exponent))[0]
    assert analysis.reuse.cost == pytest.approx(expected, rel=0.02, abs=1e-9)
    assert (analysis.reuse.small, analysis.reuse.large) == (32, 256)
    assert f"costs {analysis.reuse.cost:.3f} nats" in analysis.sentence


def test_the_cost_is_never_negative_and_says_when_reuse_diverges():
    generator = np.random.default_rng(8)
    settings: dict[str, Any] = {"grid": HALF_OCTAVES, "shape": kinked, "steepness": 4.0}
    for _ in range(20):
        runs = draw_runs(generator, exponent=0.0, noise=0.05, **settings)
        for _, cost in analyse(runs)[0].reuse.by_seed:
            assert cost >= 0
    runs = draw_runs(generator, exponent=-1.3, noise=0.001, **settings)
    analysis = analyse(runs)[0]
    assert (analysis.reuse.cost, analysis.reuse.reason) == (None, "diverges (seed 0)")
    assert analysis.verdict == "drifts" and "diverges" in analysis.sentence


def test_reuse_cost_on_its_own():
    runs = clean_runs(-0.5, widths=(32, 128), seeds=2)
    curves: dict[tuple[int, int], list[Run]] = {}
    for run in runs:
        curves.setdefault((run.size, run.seed), []).append(run)
    optima = {
        key: fit_optimum([r.learning_rate for r in c], [r.held_out_loss for r in c])
        for key, c in curves.items()
    }
    cost = reuse_cost((32, 128), curves, optima)
    assert cost.cost == pytest.approx(0.05, rel=0.02)
    assert [seed for seed, _ in cost.by_seed] == [0, 1] and cost.interval is not None


def test_recipes_keep_their_order_and_become_json():
    runs = [*clean_runs(recipe="z"), *clean_runs(-0.7, recipe="a"), *clean_runs(-3, recipe="m")]
    analyses = analyse(runs)
    assert [a.recipe for a in analyses] == ["z", "a", "m"]
    assert [a.verdict for a in analyses] == ["transfers", "drifts", "cannot tell"]
    plain = to_json(analyses[1])
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["verdict"] == "drifts" and plain["drift"]["level"] == 0.9  # pyright: ignore
    assert plain["drift"]["exponent"] == pytest.approx(-0.7)  # pyright: ignore
    assert to_json(analyses[2])["drift"]["exponent"] is None  # pyright: ignore


def test_a_width_at_the_edge_is_flagged_with_its_seeds():
    runs = [r for r in clean_runs(-0.7) if r.seed or r.size < 256 or r.learning_rate > 2**-6.5]
    flags = [summary.flags for summary in analyse(runs)[0].sizes]
    assert flags == [(), (), (), ("at the grid's lower edge (1 of 3 seeds)",)]


def test_a_learning_rate_given_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        analyse([*clean_runs(), clean_runs()[0]])


# Of thousandths: on differences of 5e-324 SciPy divides by zero.
points = st.dictionaries(st.integers(-200, 200), st.integers(-5000, 5000), min_size=3, max_size=12)


@settings(max_examples=50)
@given(points, st.floats(0, 1))
def test_curves_in_plain_floats_are_those_of_numpy_and_scipy(points, place):
    xs, ys = sorted(x / 100 for x in points), [points[x] / 1000 for x in sorted(points)]
    at = xs[0] + place * (xs[-1] - xs[0])
    # Of values up to 5 on places 0.01 apart: slopes up to 1000, and so much rounding.
    expected = PchipInterpolator(xs, ys)(at)
    assert monotone_cubic(xs, ys, at) == pytest.approx(float(expected), abs=1e-11)
    fitted = np.polyval(parabola(xs, ys), xs)
    assert fitted == pytest.approx(np.polyval(np.polyfit(xs, ys, 2), xs), abs=1e-9)
