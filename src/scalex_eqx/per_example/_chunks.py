"""Gradients of single units by `vmap`, so many at once as the memory holds."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..ops._wide import wide
from ._sums import clip_factors, entrywise, squared_norms, total
from ._turns import each_of, in_turns

LossOf = Callable[[PyTree, PyTree], Array]


def chunked(
    loss: LossOf,
    params: PyTree,
    units: PyTree,
    statistics: Sequence[str],
    *,
    at_once: int,
    clip: Any = None,
) -> dict[str, Any]:
    """Sums over all units, by a scan over chunks of them.

    **Arguments:**

    - `loss`: of the parameters and one unit.
    - `units`: arrays whose leading axis numbers the units.
    - `at_once`: how many units' gradients there are at once.

    **Returns:** what was asked for; `norm` by weight and unit.
    """

    grad = jax.grad(loss)

    def some(units: PyTree) -> tuple[dict[str, Any], PyTree]:
        gradients = each_of(lambda unit: grad(params, unit), units)
        sums: dict[str, Any] = {}
        for name in statistics:
            if name not in ("norm", "clipped"):
                sums[name] = jax.tree.map(lambda g, name=name: entrywise(name, g), gradients)
        norms = jax.tree.map(squared_norms, gradients)
        if "clipped" in statistics:
            factors = clip_factors(total(norms), clip)
            sums["clipped"] = jax.tree.map(lambda g: _weighted(factors, g), gradients)
        return sums, norms if "norm" in statistics else None

    sums, norms = in_turns(some, units, at_once)
    return sums if norms is None else {**sums, "norm": norms}


def _weighted(factors: Array, gradients: Array) -> Array:
    return jnp.tensordot(factors.astype(wide(gradients).dtype), wide(gradients), 1)
