"""Gradients of single units by `vmap`, so many at once as the memory holds."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ._sums import clip_factors, entrywise, squared_norms, total, wide

LossOf = Callable[[PyTree, PyTree], Array]


def chunked(
    loss: LossOf,
    params: PyTree,
    units: PyTree,
    statistics: Sequence[str],
    *,
    chunk: int,
    clip: Any = None,
    factors: Array | None = None,
) -> dict[str, Any]:
    """Sums over all units, by a scan over chunks of them.

    **Arguments:**

    - `loss`: of the parameters and one unit.
    - `units`: arrays whose leading axis numbers the units.
    - `chunk`: how many units' gradients there are at once.
    - `factors`: each unit's part in `clipped`, if other parameters have a say in it.

    **Returns:** `loss` and `gradient`, and what was asked for; `norms` by unit.
    """
    count = jax.tree.leaves(units)[0].shape[0]
    turns, rest = divmod(count, chunk)

    def some(units: PyTree, factors: Array | None) -> tuple[dict[str, Any], PyTree]:
        grad = jax.value_and_grad(loss)
        values, gradients = jax.vmap(grad, in_axes=(None, 0))(params, units)
        return _summed(values, gradients, statistics, clip, factors)

    def turn(sums: PyTree, one: PyTree) -> tuple[PyTree, PyTree]:
        more, norms = some(*one)
        return jax.tree.map(jnp.add, sums, more), norms

    # Neighbours go to different chunks: of a batch that is split over devices each has its part
    # in every chunk.
    inputs = (units, factors)
    body = jax.tree.map(lambda x: _dealt(x[: turns * chunk], turns), inputs)
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        jax.eval_shape(lambda one: some(*one)[0], jax.tree.map(lambda x: x[0], body)),
    )
    sums, norms = jax.lax.scan(turn, zeros, body)
    norms = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1).reshape(-1), norms)
    if rest:
        more, last = some(*jax.tree.map(lambda x: x[turns * chunk :], inputs))
        sums = jax.tree.map(jnp.add, sums, more)
        norms = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), norms, last)
    return {**sums, "norms": norms}


def _dealt(x: Array, turns: int) -> Array:
    return jnp.swapaxes(x.reshape(-1, turns, *x.shape[1:]), 0, 1)


def _summed(
    values: Array, gradients: PyTree, statistics: Sequence[str], clip: Any, factors: Array | None
) -> tuple[dict[str, Any], PyTree]:
    sums: dict[str, Any] = {
        "loss": jnp.sum(wide(values)),
        "gradient": jax.tree.map(lambda g: jnp.sum(wide(g), axis=0), gradients),
    }
    for name in statistics:
        if name not in ("norm", "clipped"):
            sums[name] = jax.tree.map(lambda g, name=name: entrywise(name, g), gradients)
    norms = None
    if {"norm", "clipped"} & set(statistics):
        norms = jax.tree.map(squared_norms, gradients)
    if "clipped" in statistics:
        factors = clip_factors(total(norms), clip) if factors is None else factors
        sums["clipped"] = jax.tree.map(
            lambda g: jnp.tensordot(factors.astype(wide(g).dtype), wide(g), 1), gradients
        )
    return sums, norms if "norm" in statistics else None
