from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from .._spec import WeightSpec
from ..ops import power_of_two


def own_axes(spec: WeightSpec, x: Inexact[Array, "..."]) -> tuple[int, ...]:
    """The axes of one weight, those that number stacked weights left out."""
    return tuple(range(len(spec.stack_axes(x.ndim)), x.ndim))


def unit_of(x: Inexact[Array, "..."], axes: Sequence[int]) -> Float[Array, "..."]:
    """The power of two near the largest entry, over axes that stay with length 1."""
    return power_of_two(jnp.max(jnp.abs(x), axis=tuple(axes), keepdims=True))


def magnitude(x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
    """`x` up to its sign, without an operation: what is squared next; real for complex numbers."""
    return jnp.abs(x) if jnp.iscomplexobj(x) else x


def root_mean_square(
    x: Inexact[Array, "..."], axes: Sequence[int], unit: Float[Array, "..."] | None = None
) -> Float[Array, "..."]:
    """The root mean square over axes that stay with length 1.

    The squares are those of `x` in the given unit, so that they neither underflow nor overflow.
    """
    if unit is not None:
        return unit * root_mean_square(x / unit, axes)
    squares = jnp.square(magnitude(x))
    # One axis after another: the partial sums of a large array then stay of one size, and
    # rounding errors as small as those of its longest axis.
    for axis in reversed(axes):
        squares = jnp.mean(squares, axis=axis, keepdims=True)
    return jnp.sqrt(squares)


def kept_root_mean_square(
    spec: WeightSpec,
    x: Inexact[Array, "..."],
    axes: Sequence[int],
    unit: Float[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """The same over those entries of a weight that a mask keeps: the others, all zero, don't count.

    Along a row or column it is taken to keep as large a share as everywhere.
    """
    size = root_mean_square(x, axes, unit)
    return size if spec.density is None else float(spec.density) ** -0.5 * size
