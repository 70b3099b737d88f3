"""Initial values whose spread follows the law."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..ops._wide import wide


def size(x: Array) -> Float[Array, ""]:
    """The root mean square of all entries; exactly zero if they are equal."""
    return jnp.where(_varies(x), jnp.sqrt(jnp.mean(jnp.square(wide(x)))), 0)


def resized(x: Array, factor: Any) -> Array:
    """`x` times `factor`; equal entries stay."""
    y = wide(x)
    return jnp.where(_varies(x), (jnp.asarray(factor, y.dtype) * y).astype(x.dtype), x)


def spread(x: Array) -> Float[Array, ""]:
    """The standard deviation of all entries about their mean; exactly zero if they are equal."""
    # Rounding of the mean would leave equal entries a spread of its own size.
    return jnp.where(_varies(x), jnp.std(wide(x)), 0)


def respread(x: Array, factor: Any) -> Array:
    """`x` with its deviations from the mean multiplied by `factor`; bitwise `x` if that is 1."""
    y = wide(x)
    mean = jnp.mean(y)
    moved = mean + jnp.asarray(factor, y.dtype) * (y - mean)
    return jnp.where(_varies(x) & (jnp.asarray(factor) != 1), moved.astype(x.dtype), x)


def _varies(x: Array) -> Array:
    # No entry is picked out: of an array that is split over devices that would need a sharding.
    y = wide(x)
    return jnp.min(y) != jnp.max(y)
