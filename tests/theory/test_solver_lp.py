"""The solver against a mixed-integer program that HiGHS solves, on 2,000 random cases.

The program is the table of constraints of Everett et al. (2024), appendix, with the equations
r = min(...) as they stand: a binary for each term says which one is the minimum. The objective is
lexicographic: the sum of the residuals, then the sum of the learning rates' exponents.
"""

import dataclasses
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

from scalex_eqx.theory import Alignment, Infeasible, LayerExponents, UpdateFamily, solve

# Exponents here are at most 8 in size, so that M makes an inequality void. HiGHS keeps binaries to
# 1e-6, which M turns into 4e-5; the second stage may exceed the first by the slack; and all values
# are multiples of 1/12.
M, SLACK, TOLERANCE = 40.0, 1e-5, 1e-3
A_THIRD, HALF = Fraction(1, 3), Fraction(1, 2)
ALL = (*(Fraction(i, 4) for i in range(5)), A_THIRD, 2 * A_THIRD)
CASES_OF_A_SEED, SEEDS = 500, range(4)


@dataclasses.dataclass(frozen=True)
class Case:
    p: Fraction
    q: Fraction
    offset: tuple[Fraction, Fraction, Fraction]
    ab: tuple[tuple[Fraction, Fraction], ...]
    alignments: tuple[tuple[Fraction, Fraction, Fraction], ...]
    feature_learning: bool
    nontrivial: bool


def pick(rng: np.random.Generator, *values: Fraction | int) -> Fraction:
    return Fraction(values[int(rng.integers(len(values)))])


def random_case(rng: np.random.Generator) -> Case:
    depth = int(rng.integers(0, 7))
    sizes = [Fraction(0), *[HALF] * depth, pick(rng, HALF, Fraction(2, 3), Fraction(3, 4), 1)]
    if rng.random() < 0.1:
        sizes[rng.integers(depth + 2)] -= Fraction(1, 4)
    a = [pick(rng, -HALF, 0, A_THIRD, HALF, 1) for _ in sizes]
    shares = [
        # The initial weights are mostly independent; else residuals would be needed everywhere.
        (pick(rng, *ALL), pick(rng, 0, HALF, HALF, HALF, Fraction(7, 12), 1), pick(rng, *ALL))
        for _ in range(depth + 1)
    ]
    return Case(
        # With p = 1/2 a larger rate of the readout costs one layer less than it gains.
        p=pick(rng, 0, 1, HALF if depth else 1),
        q=pick(rng, 0, 0, HALF, 1),
        offset=(pick(rng, 0, 0, HALF), pick(rng, 0, 0, A_THIRD), pick(rng, 0, 0, -HALF)),
        ab=tuple((x, size - x) for x, size in zip(a, sizes, strict=True)),
        alignments=tuple(shares),
        feature_learning=bool(rng.random() < 0.6),
        nontrivial=bool(rng.random() < 0.5),
    )


class Program:
    """Rows that are at least zero, linear in the variables. A row's last entry is its constant."""

    def __init__(self, size: int):
        self.rows: list[np.ndarray] = []
        self.low: list[float] = []
        self.size = size
        self.binaries = 0
        # A minimum of at most three terms for every two variables.
        self.limit = 3 * size

    def linear(self, constant: Fraction | float = 0) -> np.ndarray:
        row = np.zeros(self.limit + 1)
        row[-1] = float(constant)
        return row

    def variable(self, index: int) -> np.ndarray:
        row = self.linear()
        row[index] = 1
        return row

    def binary(self) -> np.ndarray:
        self.binaries += 1
        return self.variable(self.size + self.binaries - 1)

    def at_least_zero(self, row: np.ndarray) -> None:
        self.rows.append(row[:-1])
        self.low.append(-row[-1])

    def equal(self, one: np.ndarray, other: np.ndarray) -> None:
        self.at_least_zero(one - other)
        self.at_least_zero(other - one)

    def minimum(self, value: np.ndarray, terms: list[np.ndarray]) -> None:
        """value = min(terms)."""
        chosen = self.linear(-1)
        for term in terms:
            self.at_least_zero(term - value)
            is_minimum = self.binary()
            self.at_least_zero(value - term + M * (self.linear(1) - is_minimum))
            chosen += is_minimum
        self.at_least_zero(chosen)

    def solve(self, objective: np.ndarray) -> float | None:
        width = self.size + self.binaries
        integrality = np.r_[np.zeros(self.size), np.ones(self.binaries)]
        low: Any = np.array(self.low)
        limits: Any = np.where(integrality, 0, -M / 2), np.where(integrality, 1, M / 2)
        result = milp(
            objective[:width],
            constraints=LinearConstraint(np.array(self.rows)[:, :width], lb=low),
            integrality=integrality,
            bounds=Bounds(*limits),
        )
        assert result.status in (0, 2), result.message
        return None if result.status == 2 else float(result.fun)


def by_program(case: Case) -> tuple[float, float] | None:
    """Both objectives, or None where no learning rates satisfy the constraints."""
    first, *hidden, (a_out, b_out) = case.ab
    if sum(first) or any(a + b != HALF for a, b in hidden) or a_out + b_out < HALF:
        return None
    # x = (c of every layer, r of every layer but the readout, gradient behind it, its update).
    n = len(case.ab)
    program = Program(2 * n + 1)
    c = [program.variable(i) for i in range(n)]
    r = [program.variable(n + i) for i in range(n - 1)]
    in_front, last_update = program.variable(2 * n - 1), program.variable(2 * n)
    program.minimum(in_front, [program.linear(a_out + b_out), last_update])
    updates = sizes_of_updates(case, program, c, in_front)
    program.equal(last_update, updates[-1])
    program.equal(r[0], updates[0])
    program.at_least_zero(r[0])
    for layer in range(1, n):
        constrain(case, program, layer, updates[layer], r)
    if case.feature_learning:
        program.at_least_zero(-r[-1])
    smallest = program.solve(np.sum(r, axis=0))
    if smallest is None:
        return None
    program.at_least_zero(program.linear(smallest + SLACK) - np.sum(r, axis=0))
    largest = program.solve(np.sum(c, axis=0))
    assert largest is not None
    return smallest, largest


def sizes_of_updates(
    case: Case, program: Program, c: list[np.ndarray], in_front: np.ndarray
) -> list[np.ndarray]:
    """The columns of the table: SGD adds the gradient's exponent, Adafactor the weight's."""
    last = len(c) - 1
    updates = []
    for layer, (rate, (a, b)) in enumerate(zip(c, case.ab, strict=True)):
        offset = case.offset[0 if layer == 0 else 2 if layer == last else 1]
        update = rate + program.linear(a + case.q * b + offset)
        gradient = program.linear(a) + (in_front if layer < last else program.linear())
        updates.append(update + float(case.p) * gradient)
    return updates


def constrain(
    case: Case, program: Program, layer: int, update: np.ndarray, r: list[np.ndarray]
) -> None:
    """The rows of the table for one layer behind the embedding."""
    alpha, omega, u = case.alignments[layer - 1]
    size = sum(case.ab[layer])
    terms = [
        update - program.linear(alpha),
        update + r[layer - 1] - program.linear(u),
        program.linear(size - omega) + r[layer - 1],
    ]
    if layer < len(r):
        program.minimum(r[layer], terms)
        program.at_least_zero(r[layer])
    elif case.nontrivial:
        program.minimum(program.linear(), terms)
    else:
        for term in terms:
            program.at_least_zero(term)
    if case.q:
        program.at_least_zero(update - program.linear(size))


def by_solver(case: Case) -> tuple[float, float] | None:
    try:
        solution = solve(
            case.ab,
            UpdateFamily("", case.p, case.q, LayerExponents(*case.offset)),
            [Alignment("", *values) for values in case.alignments],
            feature_learning=case.feature_learning,
            nontrivial=case.nontrivial,
        )
    except Infeasible:
        return None
    residuals = sum(layer.residual for layer in solution.layers[:-1])
    return float(residuals), float(sum(layer.c for layer in solution.layers))


def agree(one: tuple[float, float] | None, other: tuple[float, float] | None) -> bool:
    if one is None or other is None:
        return one is other
    return all(abs(x - y) < TOLERANCE for x, y in zip(one, other, strict=True))


def cases(seed: int, number: int) -> list[Case]:
    rng = np.random.default_rng(seed)
    return [random_case(rng) for _ in range(number)]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_solver_is_exact(seed: int):
    drawn = cases(seed, CASES_OF_A_SEED)
    expected = [by_program(case) for case in drawn]
    wrong = [
        (case, by_solver(case), objectives)
        for case, objectives in zip(drawn, expected, strict=True)
        if not agree(by_solver(case), objectives)
    ]
    assert not wrong, wrong[:3]
    # Both answers are common enough to have been tested.
    feasible = sum(objectives is not None for objectives in expected)
    assert 0.25 * CASES_OF_A_SEED < feasible < 0.8 * CASES_OF_A_SEED


def without_u(case: Case) -> tuple[float, float] | None:
    """Forgets the product of both updates."""
    shares = tuple((alpha, omega, min(alpha, u)) for alpha, omega, u in case.alignments)
    return by_solver(dataclasses.replace(case, alignments=shares))


def one_step_too_fast(case: Case) -> tuple[float, float] | None:
    solved = by_solver(case)
    return solved and (solved[0], solved[1] - 1 / 12)


def with_the_larger_gradient_exponent(case: Case) -> tuple[float, float] | None:
    """Takes the maximum of the two ways through the readout, as one print of the table has it."""
    solved = by_solver(case)
    if solved is None or not case.p:
        return solved
    alpha, _, u = case.alignments[-1]
    excess = max(alpha, u) - sum(case.ab[-1])
    return solved[0], solved[1] - float(max(excess, Fraction(0))) * (len(case.ab) - 1)


def without_requests(case: Case) -> tuple[float, float] | None:
    return by_solver(dataclasses.replace(case, feature_learning=False, nontrivial=False))


@pytest.mark.parametrize(
    "wrong_solver",
    [without_u, one_step_too_fast, with_the_larger_gradient_exponent, without_requests],
)
def test_a_wrong_solver_is_caught(wrong_solver):
    drawn = cases(0, 60)
    assert not all(agree(wrong_solver(case), by_program(case)) for case in drawn)
    assert all(agree(by_solver(case), by_program(case)) for case in drawn[:20])
