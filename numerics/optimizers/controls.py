"""Rules that the suite has to find fault with."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree


class PlainAtan2State(NamedTuple):
    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: PyTree
    nu: PyTree


def plain_adam_atan2(b1: float = 0.9, b2: float = 0.999) -> optax.GradientTransformation:
    """Adam-atan2 as it is usually written: with the second moment itself, which underflows."""

    def init(params: optax.Params) -> PlainAtan2State:
        zeros = jax.tree.map(lambda x: jnp.zeros_like(x, dtype=jnp.float32), params)
        return PlainAtan2State(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(updates, state, params=None):
        del params
        count = state.count + 1
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, updates)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, updates)
        mass1, mass2 = 1 - b1**count, 1 - b2**count
        new = jax.tree.map(
            lambda m, v: -4 / math.pi * jnp.arctan2(m / mass1, jnp.sqrt(v / mass2)), mu, nu
        )
        return new, PlainAtan2State(count, mu, nu)

    return optax.GradientTransformation(init, update)
