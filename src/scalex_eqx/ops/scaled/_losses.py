"""Losses with their true value, whose gradients start at size one."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._wide import wide
from ._constraint import Number
from ._factors import cross_entropy_factors, mean_square_factors
from ._mapped import Mapped, mapped_size
from ._scale import scale


def cross_entropy(
    logits: Float[Array, "*batch classes"],
    target: Int[Array, "*batch"],
    mult: Number = 1.0,
    *,
    mapped: Mapped,
) -> Float[Array, ""]:
    r"""The mean of $-\log \operatorname{softmax}(m\, y)_t$ over all positions, in nats.

    The value is the mean itself. The gradient that comes back to each position's logits is that of
    the sum, times $V / \sqrt{V - 1}$, so that it is of size one at first; the $m$ stands in the
    forward pass alone. Everything behind it is in float32 at least.

    **Arguments:**

    - `logits`: $y$.
    - `target`: the classes, from 0.
    - `mult`: $m$.
    - `mapped`: how many examples are mapped over outside, whose losses are then *averaged*.
    """
    count = math.prod(target.shape) * mapped_size(mapped)
    (backward,) = cross_entropy_factors(logits.shape[-1]).inputs
    y = scale(wide(logits), forward=mult, backward=backward * count)
    own = jnp.take_along_axis(y, target[..., None], axis=-1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(y, axis=-1) - own)


def mean_square(
    x: Float[Array, "*shape"], target: Float[Array, "*shape"], *, mapped: Mapped
) -> Float[Array, ""]:
    r"""The mean of $(x - y)^2$, with the sum's gradient times $8^{-1/2}$ on both sides.

    **Arguments:**

    - `x`, `target`: of size one.
    - `mapped`: as for [`scalex_eqx.ops.scaled.cross_entropy`][].
    """
    count = math.prod(x.shape) * mapped_size(mapped)
    of_x, of_target = mean_square_factors().inputs
    one = scale(wide(x), backward=of_x * count)
    other = scale(wide(target), backward=of_target * count)
    return jnp.mean(jnp.square(one - other))
