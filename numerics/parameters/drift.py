"""A small constant update, added to low-precision weights many times: how much of it arrives."""

import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

import scalex_eqx as sx
from numerics.reference.rounding import DTYPES

WEIGHTS, STEPS = 65536, 1000
SIZES = (1e-4, 1e-5, 1e-6)
SPEC = sx.WeightSpec(
    (-1,),
    (-2,),
    std=0.02,
    role=sx.Role.hidden,
    parameterization=sx.standard,
    width_ratio=Fraction(1),
)

Steps = Callable[[Float[Array, "..."], Float[Array, ""]], Float[Array, "..."]]


@functools.cache
def start(dtype: str) -> np.ndarray:
    """The weights at first, 0.02 N(0, 1)."""
    drawn = 0.02 * np.random.default_rng(6).normal(size=(WEIGHTS // 64, 64))
    return drawn.astype(DTYPES[dtype])


@functools.cache
def moved(form: str, dtype: str) -> np.ndarray:
    """The weights after all steps, axes size of the update, and the weights'; in float64."""
    run = jax.jit(jax.vmap(FORMS[form], in_axes=(None, 0)))
    found = run(jnp.asarray(start(dtype)), jnp.asarray(SIZES, jnp.float32))
    return np.asarray(found).astype(np.float64)


def recovered(form: str, dtype: str) -> list[float]:
    """For each size, the mean movement of the weights relative to the sum of the updates."""
    change = moved(form, dtype) - start(dtype).astype(np.float64)
    return [float(x.mean() / (STEPS * size)) for x, size in zip(change, SIZES, strict=True)]


def _rule(wrap: Callable[[optax.GradientTransformation], optax.GradientTransformation]) -> Steps:
    """Steps of sgd on a gradient of -1, its updates added as a training step does."""

    def run(weights, size):
        tx = wrap(sx.sgd(size))
        params: Any = {"weight": sx.Weight(weights, SPEC)}
        gradient: Any = {"weight": sx.Weight(jnp.full(weights.shape, -1.0, jnp.float32), SPEC)}

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=STEPS)
        return jax.tree.leaves(params)[0]

    return run


def _naive_kahan(weights, size):
    """Compensated summation with every operation in the weights' dtype.

    A compiler that keeps intermediate results in float32 deletes the compensation: what it is to
    hold, the rounding of the sum, is then zero.
    """

    def step(carry, _):
        w, lost = carry
        y = size.astype(w.dtype) - lost
        total = w + y
        return (total, (total - w) - y), None

    (weights, _), _ = jax.lax.scan(step, (weights, jnp.zeros_like(weights)), length=STEPS)
    return weights


FORMS: dict[str, Steps] = {
    "round to nearest": _rule(lambda tx: tx),
    "master": _rule(lambda tx: sx.optim.low_precision(tx, "master")),
    "kahan": _rule(lambda tx: sx.optim.low_precision(tx, "kahan")),
    "stochastic": _rule(lambda tx: sx.optim.low_precision(tx, "stochastic", key=jax.random.key(7))),
    "naive kahan": _naive_kahan,
}
