import functools
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Inexact


def wide(x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
    """`x` in its dtype or float32, whichever is wider."""
    return x.astype(wide_dtype(x.dtype))


@functools.lru_cache(maxsize=64)
def wide_dtype(dtype: Any) -> jnp.dtype:
    """`dtype` or float32, whichever is wider."""
    # promote_types refuses mixed dtypes where promotion is strict.
    return jnp.dtype(jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype)


@functools.lru_cache(maxsize=256)
def joined_dtype(one: Any, other: Any) -> jnp.dtype:
    """The narrowest of the dtypes that hold both, float32 for bfloat16 and float16."""
    bits, others = jnp.finfo(one).bits, jnp.finfo(other).bits
    if bits == others:
        return jnp.dtype(one) if one == other else wide_dtype(one)
    return jnp.dtype(one if bits > others else other)
