import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._constraint import Constraint, Number, constrained
from ._factors import conv_factors
from ._mapped import Mapped, mapped_size
from ._scale import scale

Padding = str | Sequence[tuple[int, int]]


def conv(
    x: Float[Array, "batch in_channels *space"],
    weight: Float[Array, "out_channels in_channels_of_group *kernel"],
    bias: Float[Array, " out_channels"] | None = None,
    *,
    mapped: Mapped,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    groups: int = 1,
    constraint: Constraint | None = "to_output_scale",
    output_scale: Number | None = None,
) -> Float[Array, "batch out_channels *space_out"]:
    r"""$y = s\,(W * x + b)$, a convolution along any number of axes.

    The factors are those of [`scalex_eqx.ops.scaled.conv_factors`][]. At padded edges fewer terms
    are summed than they count.

    **Arguments:**

    - `x`: examples along the first axis.
    - `weight`: with the channels of one group.
    - `bias`: which has the factor of the output.
    - `mapped`: as for [`scalex_eqx.ops.scaled.linear`][].
    - `stride`: one for all axes, or one each.
    - `padding`: `"VALID"`, `"SAME"`, or what is added at both ends of each axis.
    - `groups`: of channels.
    - `constraint`, `output_scale`: as for [`scalex_eqx.ops.scaled.linear`][].
    """
    axes = x.ndim - 2
    strides = (stride,) * axes if isinstance(stride, int) else tuple(stride)
    out_channels, of_group, *kernel = weight.shape
    shape = jax.eval_shape(lambda x, w: _convolved(x, w, strides, padding, groups), x, weight).shape
    factors = conv_factors(
        of_group * groups,
        out_channels,
        math.prod(kernel),
        shape[0] * math.prod(shape[2:]) * mapped_size(mapped),
        stride=math.prod(strides),
        groups=groups,
        constraint=None,
    )
    output = factors.output if output_scale is None else output_scale
    forward, backward = constrained(constraint, output, *factors.inputs)
    (of_weight,) = factors.weights
    weight = scale(weight, backward=of_weight)
    y = _convolved(scale(x, backward=backward), weight, strides, padding, groups)
    if bias is not None:
        own = scale(bias, backward=of_weight).reshape(1, -1, *[1] * axes)
        y = y + jnp.broadcast_to(own, y.shape)
    return scale(y, forward=forward)


def _convolved(
    x: Array, weight: Array, strides: tuple[int, ...], padding: Padding, groups: int
) -> Array:
    return jax.lax.conv_general_dilated(x, weight, strides, padding, feature_group_count=groups)
