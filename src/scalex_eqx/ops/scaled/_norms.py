import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._wide import wide
from ._constraint import Number
from ._factors import norm_factors
from ._mapped import Mapped, mapped_size
from ._scale import scale


def rms_norm(
    x: Float[Array, "*batch size"],
    gain: Float[Array, " size"] | None = None,
    *,
    mapped: Mapped,
    eps: Number = 1e-6,
) -> Float[Array, "*batch size"]:
    r"""$\gamma\, x / \sqrt{\overline{x^2} + \epsilon}$; see
    [`scalex_eqx.ops.scaled.norm_factors`][].

    The mean is taken in float32 at least.

    **Arguments:**

    - `x`: features, with the positions of a batch along the leading axes.
    - `gain`: $\gamma$.
    - `mapped`: as for [`scalex_eqx.ops.scaled.linear`][]; only the gain's gradient asks for it.
    - `eps`: $\epsilon$.
    """
    y = wide(x)
    y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + eps)
    return _affine(y.astype(x.dtype), gain, None, mapped)


def layer_norm(
    x: Float[Array, "*batch size"],
    gain: Float[Array, " size"] | None = None,
    bias: Float[Array, " size"] | None = None,
    *,
    mapped: Mapped,
    eps: Number = 1e-5,
) -> Float[Array, "*batch size"]:
    r"""$\gamma\, (x - \bar x) / \sqrt{\operatorname{var} x + \epsilon} + \beta$.

    **Arguments:** those of [`scalex_eqx.ops.scaled.rms_norm`][], and `bias`, $\beta$.
    """
    y = wide(x)
    y = y - jnp.mean(y, axis=-1, keepdims=True)
    y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + eps)
    return _affine(y.astype(x.dtype), gain, bias, mapped)


def _affine(y: Array, gain: Array | None, bias: Array | None, mapped: Mapped) -> Array:
    tokens = math.prod(y.shape[:-1]) * mapped_size(mapped)
    (of_weight,) = norm_factors(tokens).weights
    if gain is not None:
        y = y * jnp.broadcast_to(scale(gain, backward=of_weight), y.shape)
    if bias is not None:
        y = y + jnp.broadcast_to(scale(bias, backward=of_weight), y.shape)
    return y
