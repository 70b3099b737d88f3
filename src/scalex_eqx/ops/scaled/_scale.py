"""Factors of forward and backward pass apart."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

MARK = "scalex_eqx.ops.scaled"
"""The name under which a scaled value stands in a traced program."""


def scale(
    x: Float[Array, "*shape"], *, forward: Any = 1.0, backward: Any = 1.0
) -> Float[Array, "*shape"]:
    r"""$y = f x$ with the derivative $b$: $\dot y = b\, \dot x$ and $\bar x = b\, \bar y$.

    With $b = f$ it is a product like any other. It works under forward and reverse mode, `vmap`,
    `jit` and `scan`.

    **Arguments:**

    - `x`: an array.
    - `forward`, `backward`: $f$ and $b$, numbers or scalar arrays without a gradient.
    """
    if forward is backward or (_is_number(forward, backward) and forward == backward):
        is_one = _is_number(forward) and forward == 1
        return x if is_one else x * _as(x, forward)
    return _scaled(x, _as(x, forward), _as(x, backward))


def _is_number(*factors: Any) -> bool:
    return all(isinstance(factor, float | int) for factor in factors)


def _as(x: Array, factor: Any) -> Any:
    return jax.lax.stop_gradient(factor.astype(x.dtype)) if isinstance(factor, Array) else factor


@jax.custom_jvp
def _scaled(x: Array, forward: Any, backward: Any) -> Array:
    del backward
    # The name is no operation. It marks the place for those who read the program.
    return checkpoint_name(_times(x, forward), MARK)


def _times(x: Array, factor: Any) -> Array:
    return x * jnp.asarray(factor, x.dtype)


@_scaled.defjvp
def _scaled_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    x, forward, backward = primals
    # Itself once more, so that second derivatives are taken alike.
    return _scaled(x, forward, backward), tangents[0] * jnp.asarray(backward, x.dtype)
