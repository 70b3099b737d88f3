"""What a transferred learning rate loses beside what width gains, on curves in closed form."""

import math

import numpy as np
import pytest

from scalex_eqx.experiments._fits import Run, analyse
from scalex_eqx.experiments._useful import Useful, Usefulness

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
    assert found.lost_exponent == pytest.approx(math.log2(lost[0] / lost[1]), rel=1e-6)
    assert found.gained_exponent == pytest.approx(math.log2(gained[0] / gained[1]), rel=1e-6)
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
    assert found.lost[0].value is None and found.lost_exponent is None
