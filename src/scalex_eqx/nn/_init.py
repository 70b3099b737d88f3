import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._spec import WeightSpec
from .._weight import Weight, map_weights
from ..theory import Role


def normal(
    shape: tuple[int, ...],
    std: float,
    *,
    role: Role | None = None,
    dtype: Any = None,
    key: PRNGKeyArray,
) -> Weight[Float[Array, "..."]]:
    """A weight of shape `(fan_out, fan_in)` whose entries are drawn from N(0, std^2)."""
    value = std * jax.random.normal(key, shape, default_dtype(dtype))
    return Weight(value, WeightSpec(fan_in=(-1,), fan_out=(-2,), std=std, role=role))


def ends_branch(layer: PyTree) -> PyTree:
    """The layer, with every weight declared to be one in which a residual branch ends.

    Those are what is added to the residual stream: the way back of an attention or an MLP, weight
    and bias. If the parameterization has a law for the depth they carry the branch's factor; if
    it has none nothing changes.

    ```python
    self.down = sx.nn.ends_branch(sx.nn.Linear(4 * width, width, key=key))
    ```

    **Arguments:**

    - `layer`: a layer whose weights are `Weight` nodes.
    """
    return map_weights(
        lambda weight: Weight(weight.value, dataclasses.replace(weight.spec, ends_branch=True)),
        layer,
    )


def named_axes(layer: PyTree, first: str, second: str) -> PyTree:
    """The layer, with the two axes of its matrix called by name, and its bias by the first.

    [`scalex_eqx.shardings`][] splits them over devices by these names. They say nothing of the law.

    ```python
    self.up = sx.nn.named_axes(sx.nn.Linear(width, 4 * width, key=key), "inner", "width")
    ```

    **Arguments:**

    - `layer`: a layer whose weights are `Weight` nodes of two axes or one.
    - `first`, `second`: `width`, `inner`, `heads`, `vocabulary`, or a name of your own, for which
        there is no rule unless you give one.
    """

    def named(weight: Weight) -> Weight:
        axes = (first, second) if weight.spec.fan_in else (first,)
        return Weight(weight.value, dataclasses.replace(weight.spec, axes=axes))

    return map_weights(named, layer)


def constant(
    shape: int | tuple[int, ...], value: float, dtype: Any = None, *, role: Role | None = None
) -> Weight[Float[Array, "..."]]:
    """A gain or a bias: a weight that produces all of its axes."""
    array = jnp.full(shape, value, default_dtype(dtype))
    return Weight(array, WeightSpec(fan_in=(), fan_out=tuple(range(-array.ndim, 0)), role=role))


def default_dtype(dtype: Any) -> Any:
    """`dtype`, or JAX's default: float32, float64 in double precision."""
    return jnp.result_type(float) if dtype is None else dtype


def wide(x: Array) -> Array:
    """`x` in float32 at least: for sums and angles that a shorter dtype can't hold."""
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def each(layer: Callable[[Array], Any], x: Float[Array, "*batch in"]) -> Any:
    """`layer` of each vector in `x`, mapped over a single axis; it puts out vectors.

    With one axis the backward pass is plain matrix products. With several, XLA on the CPU merges
    the activations' derivatives into transposing copies, and a Transformer's step takes twice
    as long.
    """
    y = jax.vmap(layer)(x.reshape(-1, x.shape[-1]))
    return jax.tree.map(lambda y: y.reshape(*x.shape[:-1], y.shape[-1]), y)


def check_positive(**sizes: int) -> None:
    """Refuses a size below one, by name."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; expected a positive integer")
