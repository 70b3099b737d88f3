"""The learning-rate exponents against an exhaustive search over the stability constraints.

The constraints are those of Everett et al. (2024), appendix, written out here family by family.
"""

import numpy as np
import pytest

from scalex_eqx import theory
from scalex_eqx.theory import Alignment, LayerExponents, Parameterization, Role

DEPTH = 7
# All exponents of interest are multiples of a quarter, so float64 is exact.
GRID = np.arange(-3, 3.25, 0.25)
EMBEDDING, HIDDEN, READOUT = np.meshgrid(GRID, GRID, GRID, indexing="ij", sparse=True)

PARAMETERIZATIONS = (
    theory.standard,
    theory.ntk,
    theory.mup,
    theory.mean_field,
    Parameterization("between", LayerExponents(0, "1/4", "3/4"), LayerExponents(0, "1/4", 0)),
)
ALIGNMENTS = (
    theory.full_alignment,
    theory.no_alignment,
    Alignment("three quarters", "3/4", "1/2", "3/4"),
)


def stable(parameterization: Parameterization, family: str, alignment: Alignment) -> np.ndarray:
    """Which exponents (embedding, hidden, readout) of the grid keep every branch at or above 0."""
    exponents = parameterization.a
    a1, a, a_out = (float(x) for x in (exponents.embedding, exponents.hidden, exponents.readout))
    b_out = float(parameterization.b.readout)
    alpha, omega, u = (float(x) for x in (alignment.alpha, alignment.omega, alignment.u))
    if family == "sgd":
        in_front = np.minimum(a_out + b_out, 2 * a_out + READOUT)
        first, middle, last = in_front + 2 * a1, in_front + 2 * a, 2 * a_out
    elif family == "adam":
        first, middle, last = a1, a, a_out
    else:
        first, middle, last = 0.0, 0.5, a_out + b_out
    residual = first + EMBEDDING
    holds = residual >= 0
    for _ in range(DEPTH):
        residual = np.minimum.reduce(
            np.broadcast_arrays(
                middle + HIDDEN - alpha,
                middle + HIDDEN + residual - u,
                0.5 + residual - omega,
            )
        )
        holds = holds & (residual >= 0)
    for branch in (
        a_out + b_out + residual - omega,
        last + READOUT - alpha,
        last + READOUT + residual - u,
    ):
        holds = holds & (branch >= 0)
    if family == "adafactor":
        holds = holds & (HIDDEN >= 0) & (READOUT >= 0)
    return holds


def largest_rates(holds: np.ndarray) -> tuple[float, float, float]:
    """The stable exponents with the smallest sum over all layers."""
    total = np.where(holds, EMBEDDING + DEPTH * HIDDEN + READOUT, np.inf)
    i, j, k = np.unravel_index(np.argmin(total), total.shape)
    return float(GRID[i]), float(GRID[j]), float(GRID[k])


def solved(parameterization: Parameterization, family: str, alignment: Alignment):
    c = theory.learning_rate_exponents(parameterization, family, alignment)
    return tuple(float(c[role]) for role in (Role.embedding, Role.hidden, Role.readout))


@pytest.mark.parametrize("alignment", ALIGNMENTS, ids=lambda alignment: alignment.name)
@pytest.mark.parametrize("family", ["sgd", "adam", "adafactor"])
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_the_largest_stable_rates(
    parameterization: Parameterization, family: str, alignment: Alignment
):
    expected = largest_rates(stable(parameterization, family, alignment))
    assert solved(parameterization, family, alignment) == expected


@pytest.mark.parametrize("family", ["sgd", "adam"])
def test_the_search_tells_any_larger_rate_from_the_largest(family: str):
    """One step of the grid more on any of the layers, and a constraint is broken."""
    holds = stable(theory.mup, family, theory.full_alignment)
    at = [int(i) for i in np.searchsorted(GRID, solved(theory.mup, family, theory.full_alignment))]
    assert holds[tuple(at)]
    for layer in range(3):
        larger = at.copy()
        larger[layer] -= 1
        assert not holds[tuple(larger)]
