from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float


def wide(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`x` in its dtype or float32, whichever is wider."""
    return x.astype(wide_dtype(x.dtype))


def wide_dtype(dtype: Any) -> jnp.dtype:
    """`dtype` or float32, whichever is wider."""
    # promote_types refuses mixed dtypes where promotion is strict.
    return jnp.dtype(jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype)
