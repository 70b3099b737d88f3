"""Training on a noisy quadratic ends in the same distribution at another batch size.

Both optimizers are written out here, in NumPy and float64, and know nothing of the library's. Each
weight is a run of its own: the gradient of its loss $h w^2 / 2$, plus the mean of the noise of a
batch of examples, which falls from 3 to 1 in the middle of the training. After the same number of
examples two groups of runs are compared: their means and the logarithms of their variances, in
standard errors.

The rules hold in the limit of small steps. At the rates below, what is left beside it is less than
0.5 standard errors: so much remained with 48 times as many weights, whose own error is 0.14. Of
chance 4 are let through, which a normal number passes once in 16,000 tries; the seeds are fixed.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import pytest

from scalex_eqx.theory import Budget, BudgetRule, Growth, malladi, malladi_sgd, sdew

WEIGHTS, EXAMPLES, BATCH = 4096, 2048, 4
MOST = 4.5


class Numbers(NamedTuple):
    learning_rate: float
    b1: float = 0.0
    b2: float = 0.0
    eps: float = 0.0


ADAM = Numbers(0.005, b1=0.99, b2=0.998, eps=1.0)
ADAM_CURVATURE = 0.1
SGD = Numbers(0.002)
SGD_CURVATURE = 0.25


def gradients(w: np.ndarray, curvature: float, batch: int, step: int, rng: Any) -> np.ndarray:
    noise = 3.0 if step < EXAMPLES // batch // 2 else 1.0
    return curvature * w + noise / np.sqrt(batch) * rng.standard_normal(WEIGHTS)


def adam(numbers: Numbers, batch: int, seed: int) -> np.ndarray:
    rate, b1, b2, eps = numbers
    rng = np.random.default_rng(seed)
    w, m, v = np.ones(WEIGHTS), np.zeros(WEIGHTS), np.zeros(WEIGHTS)
    for step in range(EXAMPLES // batch):
        g = gradients(w, ADAM_CURVATURE, batch, step, rng)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        unbiased = v / (1 - b2 ** (step + 1))
        w = w - rate * m / (1 - b1 ** (step + 1)) / (np.sqrt(unbiased) + eps)
    return w


def sgd(numbers: Numbers, batch: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    w = np.ones(WEIGHTS)
    for step in range(EXAMPLES // batch):
        w = w - numbers.learning_rate * gradients(w, SGD_CURVATURE, batch, step, rng)
    return w


def sign(numbers: Numbers, batch: int, seed: int, *, lion: bool = False) -> np.ndarray:
    """Of the gradient, or, as Lion does it, of the gradient and its mean."""
    rate, b1, b2, _ = numbers
    rng = np.random.default_rng(seed)
    w, m = np.ones(WEIGHTS), np.zeros(WEIGHTS)
    for step in range(EXAMPLES // batch):
        g = gradients(w, ADAM_CURVATURE, batch, step, rng)
        w = w - rate * np.sign(b1 * m + (1 - b1) * g if lion else g)
        m = b2 * m + (1 - b2) * g
    return w


def scaled(numbers: Numbers, rule: BudgetRule) -> Numbers:
    budget = Budget(rule, batch=BATCH, base_batch=1)
    return Numbers(
        numbers.learning_rate * budget.factor("learning_rate"),
        1 - (1 - numbers.b1) * budget.factor("one_minus_b1"),
        1 - (1 - numbers.b2) * budget.factor("one_minus_b2"),
        numbers.eps * budget.factor("eps"),
    )


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Between two samples, in standard errors: of the mean or of log variance, the larger."""
    of_mean = (one.mean() - other.mean()) / np.sqrt((one.var() + other.var()) / WEIGHTS)
    # The variance of n normal numbers has a relative error of sqrt(2 / n).
    of_spread = np.log(one.var() / other.var()) / np.sqrt(4 / WEIGHTS)
    return max(abs(of_mean), abs(of_spread))


@pytest.fixture(scope="module")
def by_adam() -> np.ndarray:
    return adam(ADAM, 1, seed=0)


@pytest.fixture(scope="module")
def by_sgd() -> np.ndarray:
    return sgd(SGD, 1, seed=0)


def test_adam_ends_in_the_same_distribution(by_adam: np.ndarray):
    assert distance(by_adam, adam(scaled(ADAM, malladi), BATCH, seed=1)) < MOST


@pytest.mark.parametrize("quantity", ["learning_rate", "one_minus_b1", "one_minus_b2", "eps"])
def test_no_exponent_can_be_left_out(by_adam: np.ndarray, quantity: str):
    change: dict[str, Any] = {quantity: Growth()}
    other = scaled(ADAM, dataclasses.replace(malladi, **change))
    assert distance(by_adam, adam(other, BATCH, seed=1)) > MOST


@pytest.mark.parametrize(
    "rule", [dataclasses.replace(malladi, learning_rate=Growth(1)), sdew], ids=["linear", "sdew"]
)
def test_other_rules_are_told_from_it(by_adam: np.ndarray, rule: BudgetRule):
    assert distance(by_adam, adam(scaled(ADAM, rule), BATCH, seed=1)) > MOST


def test_sgd_ends_in_the_same_distribution(by_sgd: np.ndarray):
    assert distance(by_sgd, sgd(scaled(SGD, malladi_sgd), BATCH, seed=1)) < MOST


@pytest.mark.parametrize("exponent", [0, "1/2"])
def test_another_exponent_for_sgd_is_told_from_it(by_sgd: np.ndarray, exponent: int | str):
    rule = dataclasses.replace(malladi_sgd, learning_rate=Growth(exponent))
    assert distance(by_sgd, sgd(scaled(SGD, rule), BATCH, seed=1)) > MOST


def test_a_sign_follows_the_rule_for_adam():
    base = sign(ADAM, 1, seed=0)
    assert distance(base, sign(scaled(ADAM, malladi), BATCH, seed=1)) < MOST
    same_rate = dataclasses.replace(malladi, learning_rate=Growth())
    assert distance(base, sign(scaled(ADAM, same_rate), BATCH, seed=1)) > MOST


@pytest.mark.parametrize("exponent", [0, "1/2", 1])
def test_lion_does_not(exponent: int | str):
    """The reason why it takes no budget: no exponent of its first beta mends it."""
    numbers = Numbers(0.0025, b1=0.95, b2=0.998)
    base = sign(numbers, 1, seed=0, lion=True)
    rule = dataclasses.replace(malladi, one_minus_b1=Growth(exponent))
    assert distance(base, sign(scaled(numbers, rule), BATCH, seed=1, lion=True)) > MOST
