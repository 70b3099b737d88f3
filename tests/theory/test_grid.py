"""The solver against an exhaustive search over the learning rates of every layer.

The constraints are those of Everett et al. (2024), appendix, written out here family by family.
"""

import numpy as np
import pytest

from scalex_eqx import theory
from scalex_eqx.theory import Alignment, Parameterization

# Two hidden layers. All exponents are multiples of a quarter, so float64 is exact.
GRID = np.arange(-2.5, 3.25, 0.25)
C = np.meshgrid(GRID, GRID, GRID, GRID, indexing="ij", sparse=True)
PARAMETERIZATIONS = (theory.standard, theory.ntk, theory.mup, theory.mean_field)


def residuals_and_stable(
    parameterization: Parameterization, family: str, alignments: list[tuple[float, float, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """The sum of the residuals, and which learning rates are stable, on the whole grid."""
    a1, a2, a_out = (
        float(getattr(parameterization.a, r)) for r in ("embedding", "hidden", "readout")
    )
    initial = float(parameterization.b.readout) + a_out
    if family == "sgd":
        behind = np.minimum(initial, 2 * a_out + C[3])
        updates = [behind + 2 * a1 + C[0], *(behind + 2 * a2 + c for c in C[1:3]), 2 * a_out + C[3]]
    elif family == "adam":
        updates = [a1 + C[0], a2 + C[1], a2 + C[2], a_out + C[3]]
    else:
        updates = [C[0], 0.5 + C[1], 0.5 + C[2], initial + C[3]]
    residual = total = updates[0]
    holds = residual >= 0
    for update, size, (alpha, omega, u) in zip(
        updates[1:], (0.5, 0.5, initial), alignments, strict=True
    ):
        terms = (update - alpha, update + residual - u, size + residual - omega)
        residual = np.minimum.reduce(np.broadcast_arrays(*terms))
        holds = holds & (residual >= 0)
        total = total + residual
    if family == "adafactor":
        holds = holds & (C[1] >= 0) & (C[2] >= 0) & (C[3] >= 0)
    # The logits' change is the last of the loop, and no residual.
    return np.broadcast_to(total - residual, holds.shape), holds


def smallest(
    parameterization: Parameterization, family: str, alignments: list[tuple[float, float, float]]
) -> tuple[float, float]:
    total, holds = residuals_and_stable(parameterization, family, alignments)
    least = total[holds].min()
    rates = sum(C) + np.where(holds & (total == least), 0.0, np.inf)
    return float(least), float(rates.min())


def by_solver(
    parameterization: Parameterization, family: str, alignments: list[tuple[float, float, float]]
) -> tuple[float, float]:
    layers = theory.solve(
        parameterization, family, [Alignment("", *values) for values in alignments]
    ).layers
    return float(sum(one.residual for one in layers[:-1])), float(sum(one.c for one in layers))


def random_alignments(rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Quarters, with omega near 1/2: else the residuals leave the grid."""
    return [
        (
            float(rng.choice([0.25, 0.5, 0.75, 1.0])),
            float(rng.choice([0.25, 0.5, 0.5, 0.75])),
            float(rng.choice([0.25, 0.5, 0.75, 1.0])),
        )
        for _ in range(3)
    ]


@pytest.mark.parametrize("family", ["sgd", "adam", "adafactor"])
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_no_learning_rates_on_the_grid_are_better(parameterization: Parameterization, family: str):
    rng = np.random.default_rng(0)
    for _ in range(5):
        alignments = random_alignments(rng)
        assert by_solver(parameterization, family, alignments) == smallest(
            parameterization, family, alignments
        ), alignments


@pytest.mark.parametrize(
    ("values", "forgotten"),
    [
        ((1.0, 0.5, 0.75), (0.5, 0.5, 0.75)),
        ((0.75, 0.75, 0.75), (0.75, 0.5, 0.75)),
        ((0.5, 0.5, 1.0), (0.5, 0.5, 0.5)),
    ],
    ids=["alpha", "omega", "u"],
)
def test_the_search_depends_on_each_alignment(values, forgotten):
    """A check of the search itself: with one of the values forgotten it finds something else."""
    found, other = (smallest(theory.standard, "adam", [x] * 3) for x in (values, forgotten))
    assert found != other
    assert by_solver(theory.standard, "adam", [values] * 3) != other
