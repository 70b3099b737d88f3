"""The moments of one weight's gradients, with decay rates that are learned."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...ops import power_of_two
from ...ops._power import inverse_power_of_two
from ._features import FeatureSet, Moments, safe_sqrt


def steps_of(features: FeatureSet, offsets: Float[Array, " decays"]) -> Float[Array, " decays"]:
    r"""$1 - \beta = (1 - \beta_0)\, e^{10 \theta_\beta}$ of each moment, 1 at most."""
    first = jnp.asarray([1 - decay for decay in features.decays], offsets.dtype)
    return jnp.minimum(first * jnp.exp(10 * offsets), 1)


def moved_moments(
    moments: Moments,
    g: Float[Array, "*shape"],
    steps: Float[Array, " decays"],
    axes: tuple[int, int] | None,
) -> Moments:
    """The moments after one more gradient.

    **Arguments:**

    - `axes`: those of rows and columns; `None` for a weight that is no matrix.
    """
    count = moments.means.shape[0]

    def along(which: slice) -> Float[Array, "k ..."]:
        return steps[which].reshape(-1, *[1] * g.ndim)

    size = jnp.abs(g)
    means = towards_each(moments.means, g, along(slice(count)))
    root = _moved_root(moments.root[None], size, along(slice(count, count + 1)))[0]
    step = along(slice(count + 1, None))
    if axes is None:
        full = None if moments.full is None else _moved_root(moments.full, size, step)
        return Moments(means, root, None, None, full)
    if moments.row is None or moments.column is None:
        return Moments(means, root, None, None, None)
    unit = power_of_two(jnp.max(size))
    square = jnp.square(g / unit)
    row, column = (
        _moved_root(x, unit * safe_sqrt(jnp.mean(square, axis=axis, keepdims=True)), step)
        for x, axis in ((moments.row, axes[1]), (moments.column, axes[0]))
    )
    return Moments(means, root, row, column, None)


def towards_each(
    start: Float[Array, "k ..."], end: Float[Array, "..."], step: Float[Array, "k ..."]
) -> Float[Array, "k ..."]:
    """`scalex_eqx.ops.towards` for several means of one value, each with a step of its own."""
    end = jnp.broadcast_to(end[None], start.shape)
    beyond = step > 0.5
    near, far = jnp.where(beyond, end, start), jnp.where(beyond, start, end)
    return near + jnp.minimum(step, 1 - step) * (far - near)


def _moved_root(
    root: Float[Array, "k ..."], size: Float[Array, "..."], step: Float[Array, "k ..."]
) -> Float[Array, "k ..."]:
    """`scalex_eqx.ops.moving_root_mean_square`, with a derivative where both are zero."""
    sizes = jnp.broadcast_to(size[None], root.shape)
    # In units of the smallest number the derivatives of zeros would overflow.
    is_zero = jnp.maximum(root, sizes) == 0
    unit = jnp.where(is_zero, 1, power_of_two(root, sizes))
    inverse = inverse_power_of_two(unit)
    old, new = jnp.square(root * inverse), jnp.square(size[None] * inverse)
    return unit * safe_sqrt(old + step * (new - old))
