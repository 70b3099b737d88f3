"""How the updates of each rule scale with the width, against its family's exponents.

Gradients of size r^-g, weights of size r^-b: the effective weight's update falls as
r^-(a + c + p g + q b), with the degrees p and q of the family.
"""

import functools
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx

RATIOS = (1, 4, 16, 64)
ROLES = ("embedding", "hidden", "readout")
SHAPE, STEPS = (8, 8), 10
# a, b and g of embedding, hidden and readout, from Everett et al. (2024), Table 1.
TABLE = {
    "standard": ((0, 0, 0), (0, 0.5, 0.5), (0.5, 0.5, 0)),
    "ntk": ((0, 0.5, 0.5), (0, 0, 0), (0.5, 1, 0.5)),
    "mup": ((-0.5, 0, 0.5), (0.5, 0.5, 0.5), (0.5, 1, 0.5)),
    "mean_field": ((0, 0.5, 1), (0, 0, 0), (1, 1.5, 1)),
}
PARAMETERIZATIONS = {p.name: p for p in (sx.standard, sx.ntk, sx.mup, sx.mean_field)}
DEGREES = {"sgd": (1, 0), "adam": (0, 0), "adafactor": (0, 1)}
# An exponent c of its own for each role, so that none is taken for another.
RATES = {"embedding": Fraction(1, 4), "hidden": Fraction(3, 4), "readout": Fraction(-1, 4)}
RULES = {
    "sgd": (lambda: sx.optim.sgd(0.1, RATES), "sgd"),
    "momentum": (lambda: sx.optim.sgd(0.1, RATES, momentum=0.9), "sgd"),
    "adam": (lambda: sx.adam(0.1, RATES, eps=1e-2), "adam"),
    "adam_atan2": (lambda: sx.optim.adam_atan2(0.1, RATES), "adam"),
    "lion": (lambda: sx.optim.lion(0.1, RATES), "adam"),
    "sign_sgd": (lambda: sx.optim.sign_sgd(0.1, RATES), "adam"),
    # Floor and epsilon large enough to be felt.
    "adafactor": (
        lambda: sx.optim.adafactor(0.1, RATES, eps=1e-2, floor=2.0, min_factored_size=4),
        "adafactor",
    ),
    "adam_parameter_scaling": (
        lambda: sx.optim.adam_parameter_scaling(0.1, RATES, floor=2.0),
        "adafactor",
    ),
}


@functools.cache
def normals(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=SHAPE)


def update_sizes(tx: Any, parameterization: str, weight) -> np.ndarray:
    """RMS of the effective updates by ratio, step and role."""
    law = PARAMETERIZATIONS[parameterization]
    a, b, g = TABLE[parameterization]

    def tree(seed: int, exponents) -> dict[tuple[int, str], sx.Weight]:
        return {
            (ratio, role): weight(
                normals(seed) * float(ratio) ** -exponent, role, parameterization=law, ratio=ratio
            )
            for ratio in RATIOS
            for role, exponent in zip(ROLES, exponents, strict=True)
        }

    params = tree(0, b)
    grads = [tree(1 + t, g) for t in range(STEPS)]
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *grads)

    def step(state, gradient):
        updates, state = tx.update(gradient, state, params)
        return state, jax.tree.map(lambda u: jnp.sqrt(jnp.mean(jnp.square(u))), updates)

    sizes = jax.jit(lambda: jax.lax.scan(step, tx.init(params), stacked)[1])()
    by_ratio = [np.stack([sizes[r, role].value for role in ROLES], axis=1) for r in RATIOS]
    return np.stack(by_ratio) * np.asarray(RATIOS, float)[:, None, None] ** -np.asarray(a, float)


def fitted(tx: Any, parameterization: str, weight) -> np.ndarray:
    """The exponents, by step and role."""
    sizes = np.log2(update_sizes(tx, parameterization, weight))
    slopes = np.polyfit(np.log2(RATIOS), sizes.reshape(len(RATIOS), -1), 1)[0]
    return -slopes.reshape(STEPS, len(ROLES))


@pytest.mark.parametrize("parameterization", TABLE)
@pytest.mark.parametrize("name", RULES)
def test_updates_scale_as_the_family_says(name: str, parameterization: str, weight):
    make, family = RULES[name]
    found = fitted(make(), parameterization, weight)
    expected = np.tile(predicted(family, parameterization), (STEPS, 1))
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.02)


def predicted(family: str, parameterization: str) -> np.ndarray:
    a, b, g = (np.asarray(row, float) for row in TABLE[parameterization])
    p, q = DEGREES[family]
    return a + np.asarray([float(RATES[role]) for role in ROLES]) + p * g + q * b


@pytest.mark.parametrize("parameterization", TABLE)
def test_the_families_are_told_apart(parameterization: str):
    one, two, three = (predicted(family, parameterization) for family in DEGREES)
    assert np.max(np.abs(one - two)) > 0.4
    # Where b is zero, being relative to the weight changes nothing.
    same = not any(TABLE[parameterization][1])
    assert (np.max(np.abs(two - three)) < 0.4) == same


@pytest.mark.parametrize(
    ("broken", "family"),
    [
        (lambda: sx.adam(0.1, RATES, eps=1e-2, eps_scaling="constant"), "adam"),
        (
            lambda: sx.optim.adafactor(0.1, RATES, floor=2.0, floor_scaling="constant"),
            "adafactor",
        ),
        (lambda: sx.optim.adafactor(0.1, RATES, eps=1e-2, eps_scaling="constant"), "adafactor"),
    ],
)
def test_a_constant_that_does_not_scale_is_seen(broken: Any, family: str, weight):
    found = fitted(broken(), "mup", weight)[-1]
    assert np.max(np.abs(found - predicted(family, "mup"))) > 0.1
