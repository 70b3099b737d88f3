"""The width at which an epsilon takes 10 % of the update: measured in reach, predicted beyond."""

import math

import numpy as np

from numerics.language_model import BASE_WIDTH
from numerics.width import fit, strength
from numerics.width.exponents import fitted, theory
from numerics.width.gradients import MATRICES, PARAMETERIZATIONS
from numerics.width.strength import ATAN2, CONSTANT, FOLLOWING, LOST
from numerics.width.survey import Survey, measured_part
from scalex_eqx.diagnostics import Table

PARTS, CROSSINGS = "width: part of the update, epsilon raised", "width: 10 % lost, epsilon raised"
BEYOND = "width: 10 % lost, predicted"
PREDICTIONS = ("by theory's exponent", "by the fitted one")
EPSILONS = (1e-8, 1e-9, 1e-12, 1e-15)
# What is further away than this counts as never.
_MOST_OCTAVES = 60
# The only role whose cliff is within reach at every width: the raised epsilon is made for it.
ROLE = "hidden"


def parts(surveys: list[Survey]) -> Table:
    """What each rule leaves of hidden weights' updates, and what is predicted of the first."""
    keys = ("steps", "parameterization", "width")
    columns: list[str] = [*keys, "epsilon", CONSTANT, "predicted", FOLLOWING, ATAN2]
    rows = [
        dict(zip(columns, (found.steps, name, width, *_parts(found, name, width)), strict=True))
        for found in surveys
        for name in PARAMETERIZATIONS
        for width in found.widths
    ]
    return Table(PARTS, keys, columns, rows)


def _parts(found: Survey, name: str, width: int) -> list[float]:
    place = found.widths.index(width)
    constant, following, atan2 = (
        float(measured_part(found, name, ROLE, rule)[place].mean())
        for rule in (CONSTANT, FOLLOWING, ATAN2)
    )
    predicted = predicted_part(found, theory(name, ROLE), width)
    return [found.raised, constant, predicted, following, atan2]


def predicted_part(found: Survey, exponent: float, width: float) -> float:
    """From the base model's gradients alone, taken to fall with the exponent as they are."""
    eps = found.raised * (width / BASE_WIDTH) ** exponent
    return float(np.mean([strength.ideal_part(base.moments[ROLE], eps) for base in found.base]))


def crossings(surveys: list[Survey]) -> Table:
    """The width at which a constant epsilon has taken 10 % of hidden weights' updates."""
    keys = ("steps", "parameterization")
    columns: list[str] = [*keys, "epsilon", "measured", *PREDICTIONS]
    rows = [
        dict(zip(columns, (found.steps, name, *_crossings(found, name)), strict=True))
        for found in surveys
        for name in PARAMETERIZATIONS
    ]
    return Table(CROSSINGS, keys, columns, rows)


def _crossings(found: Survey, name: str) -> list[float]:
    exponents = theory(name, ROLE), fitted(found, name, ROLE).value
    predicted = [predicted_crossing(found, exponent) for exponent in exponents]
    return [found.raised, measured_crossing(found, name), *predicted]


def measured_crossing(found: Survey, name: str) -> float:
    """Infinite if no width lost as much."""
    parts = measured_part(found, name, ROLE, CONSTANT).mean(axis=1)
    return fit.crossing(found.widths, parts.tolist(), LOST)


def predicted_crossing(found: Survey, exponent: float) -> float:
    """By bisection, in octaves above the base width."""
    low, high = 0.0, 40.0
    for _ in range(30):
        middle = (low + high) / 2
        above = predicted_part(found, exponent, BASE_WIDTH * 2**middle) > LOST
        low, high = (middle, high) if above else (low, middle)
    return BASE_WIDTH * 2**low


def beyond(surveys: list[Survey]) -> Table:
    r"""$n_0 (\epsilon_0 / \epsilon)^{1 / \gamma}$ for the usual epsilons, with $\gamma$ as fitted.

    $\epsilon_0$ takes 10 % of the base model's update. The interval is that of $\gamma$; it says
    nothing of widths far beyond those measured, where $\gamma$ may be another.
    """
    keys = ("steps", "parameterization", "role")
    columns = [*keys, "epsilon at the base width"]
    for eps in EPSILONS:
        columns += [f"{eps:.0e}", f"{eps:.0e} low", f"{eps:.0e} high"]
    rows = [
        dict(zip(columns, (found.steps, name, role, *_beyond(found, name, role)), strict=True))
        for found in surveys
        for name in PARAMETERIZATIONS
        for role in MATRICES
    ]
    return Table(BEYOND, keys, columns, rows, tolerance=0.5)


def _beyond(found: Survey, name: str, role: str) -> list[float]:
    gamma = fitted(found, name, role)
    start = math.exp(np.log([base.tenth[role] for base in found.base]).mean())
    cells = [start]
    for eps in EPSILONS:
        cells += [_width(start / eps, g) for g in (gamma.value, gamma.high, gamma.low)]
    return cells


def _width(above: float, exponent: float) -> float:
    """Where a size `above` times too large meets its limit."""
    octaves = math.log2(above) / exponent if exponent > 0 else math.inf
    return BASE_WIDTH * 2**octaves if octaves < _MOST_OCTAVES else math.inf
