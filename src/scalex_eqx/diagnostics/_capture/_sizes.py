"""Mean squares over some axes of an array, and over the entries of each member of a stack."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from ...ops._wide import wide


def mean_square(x: Shaped[Array, "..."], kept: tuple[int, ...]) -> Float[Array, "*kept"]:
    """The mean square over all axes but those `kept`, which come out in that order."""
    y = jnp.moveaxis(_real(x), kept, range(len(kept)))
    return jnp.mean(jnp.square(y), axis=tuple(range(len(kept), y.ndim)))


def divided(x: Shaped[Array, "..."], kept: tuple[int, ...]) -> Shaped[Array, "..."]:
    """`x` divided by its size for each index of the axes `kept`; zeros stay."""
    size = jnp.sqrt(mean_square(x, kept))
    divisor = jnp.where(size > 0, size, jnp.ones_like(size))
    divisor = divisor.reshape(*size.shape, *(1,) * (x.ndim - size.ndim))
    divisor = jnp.moveaxis(divisor, range(len(kept)), kept)
    if jnp.iscomplexobj(x):
        return x / divisor.astype(x.dtype)
    return _real(x) / divisor


def spread_out(
    square: Float[Array, "..."], places: tuple[int | None, ...], shape: tuple[int, ...]
) -> Float[Array, "..."]:
    """An array of some of the axes of `shape`, those with a place, repeated along the others."""
    absent = [i for i, place in enumerate(places) if place is None]
    return jnp.broadcast_to(jnp.expand_dims(square, absent), shape)


def by_member(
    square: Float[Array, "..."], numbers: Int[Array, "..."], turns: tuple[int, ...], count: int
) -> Float[Array, "*turns members"]:
    """The mean of `square` over the places with each member's number; NaN where it has none.

    The axes `turns` are kept, in front; numbers below 0 or from `count` on belong to nobody.
    """
    every = range(len(turns))
    shape = tuple(square.shape[axis] for axis in turns)
    squares = jnp.moveaxis(square, turns, every).reshape(*shape, -1)
    owners = jnp.moveaxis(numbers, turns, every).reshape(*shape, -1)
    owners = jnp.where(owners < 0, count, owners)

    def mean(squares: Array, owners: Array) -> Array:
        found = jax.ops.segment_sum(squares, owners, count + 1)[:count]
        places = jax.ops.segment_sum(jnp.ones_like(squares), owners, count + 1)[:count]
        return jnp.where(places > 0, found / jnp.where(places > 0, places, 1), jnp.nan)

    for _ in turns:
        mean = jax.vmap(mean)
    return mean(squares, owners)


def _real(x: Shaped[Array, "..."]) -> Float[Array, "..."]:
    """In float32 or wider; of complex numbers the absolute values."""
    if jnp.iscomplexobj(x):
        return jnp.abs(x)
    return wide(x) if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)
