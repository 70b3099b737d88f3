"""Initial values whose spread follows the law."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def size(x: Array) -> Float[Array, ""]:
    """The root mean square of all entries; exactly zero if they are equal."""
    return jnp.where(_varies(x), jnp.sqrt(jnp.mean(jnp.square(_wide(x)))), 0)


def resized(x: Array, factor: Any) -> Array:
    """`x` times `factor`; equal entries stay."""
    wide = _wide(x)
    return jnp.where(_varies(x), (jnp.asarray(factor, wide.dtype) * wide).astype(x.dtype), x)


def spread(x: Array) -> Float[Array, ""]:
    """The standard deviation of all entries about their mean; exactly zero if they are equal."""
    # Rounding of the mean would leave equal entries a spread of its own size.
    return jnp.where(_varies(x), jnp.std(_wide(x)), 0)


def respread(x: Array, factor: Any) -> Array:
    """`x` with its deviations from the mean multiplied by `factor`; bitwise `x` if that is 1."""
    wide = _wide(x)
    mean = jnp.mean(wide)
    moved = mean + jnp.asarray(factor, wide.dtype) * (wide - mean)
    return jnp.where(_varies(x) & (jnp.asarray(factor) != 1), moved.astype(x.dtype), x)


def _varies(x: Array) -> Array:
    return jnp.any(x != x.reshape(-1)[0])


def _wide(x: Array) -> Array:
    # A caller's strict promotion is meant for the caller's own arithmetic.
    with jax.numpy_dtype_promotion("standard"):
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))
