"""What a transferred learning rate loses beside what width gains, on curves in closed form."""

import math

import numpy as np
import pytest

from scalex_eqx.experiments._fits import Run, analyse
from scalex_eqx.experiments._useful import Speed, Useful, Usefulness

SIZES, SEEDS, RATES = (32, 64, 128), (0, 1, 2), np.arange(-12, -1)


def curves(
    drift: float, *, gain: float = 0.5, bowl: float = 0.02, noise: float = 0.0, seeds=SEEDS
) -> list[Run]:
    """L_n = 2 + A / n^(1/2) + K (log2 rate - c - p log2 n)^2, which `fit_optimum` finds exactly."""
    draw = np.random.default_rng(0)
    runs = []
    for n in SIZES:
        for seed in seeds:
            level = 2 + gain * n**-0.5 + noise * draw.standard_normal()
            best = -6 + drift * math.log2(n / SIZES[0])
            runs += [
                Run("r", n, 2.0**k, seed, float(level + bowl * (k - best) ** 2)) for k in RATES
            ]
    return runs


def useful(runs: list[Run]) -> Useful:
    (analysis,) = analyse(runs)
    assert analysis.useful is not None
    return analysis.useful


def test_what_is_lost_and_gained_and_their_exponents():
    found = useful(curves(-1.0))
    lost = [0.02 * math.log2(128 / n) ** 2 for n in (32, 64)]
    gained = [0.5 * (n**-0.5 - 128**-0.5) for n in (32, 64)]
    assert [mean.value for mean in found.lost] == pytest.approx(lost, rel=1e-6)
    assert [mean.value for mean in found.gained] == pytest.approx(gained, rel=1e-6)
    # A steady drift loses as much at every step.
    assert found.fall.lost.value == pytest.approx(0, abs=1e-6)
    assert found.fall.gained.value == pytest.approx(0.5, rel=1e-6)
    # The optima lie on a line, and so the line leads to the largest one's.
    assert found.extrapolated.value == pytest.approx(0, abs=1e-9)


def test_a_drift_that_costs_more_than_width_gains_is_not_useful():
    assert useful(curves(0.0)).verdict is Usefulness.USEFUL
    assert useful(curves(-1.0)).verdict is Usefulness.NOT_USEFUL
    # The same drift in a shallower bowl costs less.
    assert useful(curves(-1.0, bowl=0.005)).verdict is Usefulness.USEFUL


def test_what_seeds_hide_is_not_told():
    found = useful(curves(0.0, noise=0.05))
    assert found.verdict is Usefulness.CANNOT_TELL and "overlap" in found.reason
    found = useful(curves(0.0, seeds=(0, 1)))
    assert found.verdict is Usefulness.CANNOT_TELL and "2 seeds" in found.reason


def test_an_optimum_outside_of_the_grid_gives_no_verdict():
    found = useful(curves(-4.0))
    assert found.verdict is Usefulness.CANNOT_TELL and "width 128" in found.reason
    assert found.lost[0].value is None and found.fall.lost.value is None


def settling(power: float, noise: float = 0.0) -> list[Run]:
    """Best rates that approach a limit as n^-power, best losses theirs as n^(-1/2)."""
    draw = np.random.default_rng(1)
    return [
        Run("r", n, 2.0**k, seed, float(level + 0.02 * (k - best) ** 2))
        for seed in SEEDS
        for n in SIZES
        for level, best in [
            (
                2 + 0.5 * n**-0.5 * math.exp(noise * draw.standard_normal()),
                -6 + 3 * (n / SIZES[0]) ** -power * math.exp(noise * draw.standard_normal()),
            )
        ]
        for k in np.arange(-12, -1, 1 / 32)
    ]


@pytest.mark.parametrize(("power", "speed"), [(1.0, Speed.FAST), (0.125, Speed.SLOW)])
def test_the_powers_that_rates_and_losses_settle_with_are_found(power, speed):
    # The grid is fine: between its points a loss is interpolated, no parabola.
    fall = useful(settling(power)).fall
    assert fall.lost.value == pytest.approx(2 * power, abs=0.02)
    assert fall.gained.value == pytest.approx(0.5, rel=1e-6)
    assert fall.difference.value == pytest.approx(2 * power - 0.5, abs=0.02)
    assert fall.speed is speed


def test_no_speed_where_seeds_scatter_or_drift_is_steady():
    assert useful(settling(0.25, noise=0.02)).fall.speed is Speed.CANNOT_TELL
    # Differences from the largest width would fall faster than the gain: log2(4 / 1) > 1.27.
    assert useful(curves(-1.0)).fall.speed is Speed.SLOW
    unequal = [run for run in curves(-0.5) if run.size != 64]
    assert "three widths" in useful(unequal).fall.reason
