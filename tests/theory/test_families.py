"""Families of one's own: the exponents of Muon against orthogonalised matrices in float64."""

from fractions import Fraction

import numpy as np
import pytest

from scalex_eqx import theory
from scalex_eqx.theory import Alignment, LayerExponents, Parameterization, Role, UpdateFamily

HALF = Fraction(1, 2)
MATRICES = (Role.embedding, Role.hidden, Role.readout)
MUON = UpdateFamily("muon", 0, 0, LayerExponents(HALF, HALF, HALF))
ALIGNMENT = {Role.hidden: theory.no_alignment, Role.readout: theory.full_alignment}
WIDTHS = np.array([64, 128, 256])
FIXED = 8


def shape(role: Role, n: int) -> tuple[int, int]:
    return {Role.embedding: (n, FIXED), Role.hidden: (n, n), Role.readout: (FIXED, n)}[role]


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x * x)))


def muon_update(role: Role, n: int) -> tuple[np.ndarray, np.ndarray]:
    """An orthogonalised gradient, and the layer's input, which the gradient is aligned with."""
    rng = np.random.default_rng(n)
    rows, columns = shape(role, n)
    x = rng.normal(size=columns)
    # One example's gradient stands out of those of many others.
    gradient = 20 * np.outer(rng.normal(size=rows), x) + rng.normal(size=(rows, columns))
    left, _, right = np.linalg.svd(gradient, full_matrices=False)
    return left @ right, x


def slope(values: list[float]) -> float:
    return float(np.polyfit(np.log(WIDTHS), np.log(values), 1)[0])


def test_muons_rule():
    solution = theory.solve(theory.standard, MUON, ALIGNMENT, feature_learning=True)
    assert [solution.exponents[role] for role in MATRICES] == [-HALF, 0, HALF]
    assert solution.stable and not solution.trivial


@pytest.mark.parametrize("role", MATRICES)
def test_the_entries_of_an_orthogonal_matrix(role: Role):
    sizes = [rms(muon_update(role, n)[0]) for n in WIDTHS]
    # Orthonormal rows or columns: the mean square of the entries is exact.
    assert sizes == pytest.approx([1 / np.sqrt(max(shape(role, n))) for n in WIDTHS])
    assert slope(sizes) == pytest.approx(-float(MUON.offset_power(role).total))


@pytest.mark.parametrize(("role", "alpha"), [(Role.hidden, 0.5), (Role.readout, 1.0)])
def test_the_alignment_of_an_orthogonal_matrix(role: Role, alpha: float):
    assert ALIGNMENT[role].alpha == alpha
    ratios = []
    for n in WIDTHS:
        update, x = muon_update(role, n)
        ratios.append(rms(update @ x) / (rms(update) * rms(x)))
    # The readout's output has eight entries, one direction of which is aligned.
    assert slope(ratios) == pytest.approx(alpha, abs=0.02)


@pytest.mark.parametrize("role", MATRICES)
def test_outputs_change_by_order_one_at_every_width(role: Role):
    c = theory.solve(theory.standard, MUON, ALIGNMENT).exponents
    adams = theory.learning_rate_exponents(theory.standard, "adam", theory.full_alignment)

    def change(exponent: Fraction) -> float:
        changes = []
        for n in WIDTHS:
            update, x = muon_update(role, n)
            changes.append(n ** -float(exponent) * rms(update @ x) / rms(x))
        return slope(changes)

    assert change(c[role]) == pytest.approx(0, abs=0.02)
    # The rates of another family are off by their difference.
    assert abs(change(adams[role])) == pytest.approx(float(abs(c[role] - adams[role])), abs=0.02)
    assert c[role] != adams[role]


def test_a_learned_optimizer_divides_by_fan_in_in_hidden_matrices():
    mulo = Parameterization("mulo", LayerExponents(0, 0, 1), LayerExponents(0, HALF, 0))
    c = theory.learning_rate_exponents(mulo, UpdateFamily("lo", 0, 0), theory.full_alignment)
    assert [c[role] for role in MATRICES] == [0, 1, 0]


@pytest.mark.parametrize("p", ["1/4", "1/2", "3/4"])
def test_a_fractional_degree_lies_between_sgd_and_adam(p: str):
    family = UpdateFamily("padam", p, 0)
    by_family = [
        theory.learning_rate_exponents(theory.ntk, x, theory.full_alignment)
        for x in ("sgd", family, "adam")
    ]
    for role in MATRICES:
        sgd, padam, adam = (exponents[role] for exponents in by_family)
        assert padam == adam + Fraction(p) * (sgd - adam)


def test_an_offset_moves_the_learning_rate_and_nothing_else():
    shifted = UpdateFamily("shifted", 1, 0, LayerExponents("1/3", "-1/4", "1/5"))
    alignment = Alignment("", "3/4", "2/3", 1)
    before = theory.solve(theory.mup, "sgd", alignment, depth=3)
    after = theory.solve(theory.mup, shifted, alignment, depth=3)
    for one, other in zip(before.layers, after.layers, strict=True):
        assert other.c == one.c - shifted.offset_power(one.role).total
        assert other.residual == one.residual
    assert after.exponents[Role.vector] == before.exponents[Role.vector]
