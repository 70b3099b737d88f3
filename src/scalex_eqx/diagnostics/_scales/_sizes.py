"""What is counted of an array's entries."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from ...ops._wide import wide
from ._formats import FORMATS, Format


class Sizes(NamedTuple):
    """Of each member of a stack of arrays.

    **Arguments:**

    - `size`: the root mean square; finite entries of any size neither underflow nor overflow.
    - `largest`: in absolute value.
    - `zeroed`, `overflowing`: for each format the share of the entries that aren't zero which it
        rounds to zero, and which are too large for it.
    """

    size: Float[Array, " members"]
    largest: Float[Array, " members"]
    zeroed: Float[Array, "formats members"]
    overflowing: Float[Array, "formats members"]


def sizes_of(x: Shaped[Array, "..."], stacked: int) -> Sizes:
    """The sizes of an array whose leading axes number members.

    **Arguments:**

    - `x`: of floating-point numbers.
    - `stacked`: how many axes do.
    """
    members = x.reshape(*x.shape[:stacked], -1) if stacked else x.reshape(1, -1)
    entries = jnp.abs(wide(members)).reshape(-1, members.shape[-1])
    largest = jnp.max(entries, axis=1)
    unit = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    relative = entries / unit[:, None]
    size = unit * jnp.sqrt(jnp.mean(jnp.square(relative), axis=1))
    # Zeros, and there may be nothing else, are held by every format.
    nonzero = jnp.maximum(jnp.sum(entries != 0, axis=1), 1)
    known = FORMATS.values()
    zeroed = [(entries > 0) & (entries <= _as(one.zero_below, entries)) for one in known]
    over = [_overflowing(entries, one) for one in known]
    shares = (
        jnp.stack([jnp.sum(each, axis=1) / nonzero for each in counted])
        for counted in (zeroed, over)
    )
    return Sizes(size, largest, *shares)


def _overflowing(entries: Array, format: Format) -> Array:
    """Which are too large; what is no number is none in any format."""
    bound = _as(format.overflow_from, entries)
    return ~((entries <= bound) & jnp.isfinite(entries)) if format.keeps_tie else ~(entries < bound)


def _as(bound: float, like: Array) -> Array:
    """A bound as a number of the entries' own dtype, infinity where there is none so large."""
    info = jnp.finfo(like.dtype)
    known = bound if bound <= float(info.max) else float("inf")
    return jnp.asarray(known, like.dtype)
