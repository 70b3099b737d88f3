"""Octaves between what is measured at a width and each cliff, and the cliff of low precision."""

import math

import jax.numpy as jnp
import numpy as np

import scalex_eqx as sx
from numerics.language_model import BASE_WIDTH
from numerics.width import rounding
from numerics.width.gradients import LEARNING_RATE, MATRICES, PARAMETERIZATIONS, SEEDS
from numerics.width.strength import B2, LOST
from numerics.width.survey import ALL, Survey
from scalex_eqx.diagnostics import Table

HEADROOM, ROUNDED = "width: headroom in octaves", "width: part of a step that arrives in bfloat16"
ROUNDED_BEYOND = "width: 10 % of a step lost to rounding, predicted"
# The gradient of which each takes 10 %, or which underflows.
_LEAST = {
    "epsilon 1e-8": 9e-8,
    "epsilon 1e-12": 9e-12,
    "epsilon 1e-15": 9e-15,
    "second moment": math.sqrt(float(jnp.finfo(jnp.float32).tiny) / (1 - B2)),
}
_DTYPES = ("bfloat16", "float32")


def table(surveys: list[Survey]) -> Table:
    """Above each cliff, for the weight of each role that is nearest, at the ends of the widths.

    `gradient` is the logarithm to base 2 of its root mean square. At 0 octaves an epsilon takes
    10 % of an entry of that size, and more of a smaller one: a whole role has lost 10 % earlier,
    which the predicted widths account for. The last columns compare a step at the learning rate
    of the survey's training with half a unit in the last place of a weight of typical size, which
    stays where it is below 0.
    """
    keys = ("steps", "parameterization", "role", "width")
    columns = (*keys, "weight", "gradient", *_LEAST, *(f"half an ulp, {d}" for d in _DTYPES))
    rows = [
        dict(zip(columns, _row(found, name, role, width), strict=True))
        for found in surveys
        for width in (found.widths[0], found.widths[-1])
        for name in list(PARAMETERIZATIONS)[: 1 if width == BASE_WIDTH else None]
        for role in MATRICES
    ]
    return Table(HEADROOM, keys, columns, rows)


def _row(found: Survey, name: str, role: str, width: int) -> list[str | float]:
    summaries = [found.summary(name, width, seed) for seed in SEEDS]
    paths = [path for of, path in summaries[0].rms if of == role and path != ALL]
    gradients = {path: _mean([summary.rms[role, path] for summary in summaries]) for path in paths}
    values = [_mean([summary.value_rms[role, path] for summary in summaries]) for path in paths]
    path = min(gradients, key=lambda path: gradients[path])
    step = LEARNING_RATE * (width / BASE_WIDTH) ** -_rate_exponent(name, role)
    ulps = [min(math.log2(step / _half_ulp(value, dtype)) for value in values) for dtype in _DTYPES]
    edges = [math.log2(gradients[path] / least) for least in _LEAST.values()]
    return [found.steps, name, role, width, path, math.log2(gradients[path]), *edges, *ulps]


def _mean(values: list[float]) -> float:
    return float(np.exp(np.log(values).mean()))


def _half_ulp(value: float, dtype: str) -> float:
    return 2.0 ** (math.floor(math.log2(value)) - rounding.DIGITS[dtype])


def _rate_exponent(name: str, role: str) -> float:
    parameterization, _ = PARAMETERIZATIONS[name]
    c = sx.theory.learning_rate_exponents(parameterization, "adam", sx.full_alignment)
    return float(c[sx.Role(role)])


def rounded(found: Survey) -> Table:
    """Adam's first step in weights that are rounded to nearest, beside the closed form."""
    keys = ("parameterization", "role", "learning rate", "width")
    rows = []
    for name in PARAMETERIZATIONS:
        for role in MATRICES:
            for rate in rounding.LEARNING_RATES:
                for width in found.widths:
                    own = [found.summary(name, width, seed).arriving[role, rate] for seed in SEEDS]
                    expected = rounding.expected(
                        drawn(found, name, role), rate, "bfloat16", width / BASE_WIDTH
                    )
                    case = dict(zip(keys, (name, role, rate, width), strict=True))
                    rows.append({**case, "measured": float(np.mean(own)), "predicted": expected})
    return Table(ROUNDED, keys, (*keys, "measured", "predicted"), rows)


def drawn(found: Survey, name: str, role: str) -> list[rounding.Drawn]:
    """What the closed form is about; above the base width, where each law is itself."""
    return found.summary(name, found.widths[1], SEEDS[0]).drawn[role]


def rounded_beyond(found: Survey) -> Table:
    """From the closed form; infinite if never, the base width if there already."""
    keys = ("parameterization", "role", "dtype")
    columns = (*keys, *(f"learning rate 2^{math.log2(r):.0f}" for r in rounding.LEARNING_RATES))
    rows = [
        dict(zip(columns, (name, role, dtype, *_lost(found, name, role, dtype)), strict=True))
        for name in PARAMETERIZATIONS
        for role in MATRICES
        for dtype in _DTYPES
    ]
    return Table(ROUNDED_BEYOND, keys, columns, rows)


def _lost(found: Survey, name: str, role: str, dtype: str) -> list[float]:
    own = drawn(found, name, role)
    return [
        BASE_WIDTH * rounding.lost_at(own, rate, dtype, LOST) for rate in rounding.LEARNING_RATES
    ]
