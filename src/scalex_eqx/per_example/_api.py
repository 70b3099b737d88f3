"""The one call."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, PyTree

from .._weight import is_weight, path_string
from ._batch import batch_size, check_unit, microbatches
from ._chunks import chunked
from ._result import STATISTICS, GradientStatistics, Statistic, Unit
from ._sums import total

Loss = Callable[[Any, Any], Array]

_METHODS = ("vmap",)


def gradient_statistics(
    loss: Loss,
    model: PyTree,
    batch: PyTree,
    *,
    statistics: Sequence[Statistic] = ("square",),
    of: Unit = "example",
    clip: float | Array | None = None,
    method: str | None = None,
    memory: int | None = None,
) -> GradientStatistics:
    r"""Means over a batch of functions of the single examples' gradients, beside its gradient.

    $$G = \frac1n \sum_i g_i, \qquad \frac1n \sum_i g_i^2, \qquad \lvert g_i \rvert^2, \ \dots$$
    """
    statistics = _checked_statistics(statistics, clip)
    if method is not None and method not in _METHODS:
        raise ValueError(
            f"method is {method!r}; expected None, which takes the cheapest way for each weight, "
            f"or {', '.join(map(repr, _METHODS))}"
        )
    size = batch_size(batch)
    check_unit(of, size)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    if of == "token":
        raise NotImplementedError("of='token'")

    def of_example(params: PyTree, example: PyTree) -> Array:
        return loss(eqx.combine(params, static), example)

    def of_unit(params: PyTree, examples: PyTree) -> Array:
        return jnp.mean(jax.vmap(of_example, in_axes=(None, 0))(params, examples))

    units, of_one = (batch, of_example) if of == "example" else (microbatches(batch, of), of_unit)
    count = size if of == "example" else size // of
    sums = chunked(of_one, params, units, statistics, chunk=min(count, 8), clip=clip)
    ways = tuple((path, "vmap") for path in _paths(params))
    return _result(params, sums, count, of, ways, statistics)


def _result(
    params: PyTree,
    sums: dict[str, Any],
    count: int,
    of: Unit,
    ways: tuple[tuple[str, str], ...],
    statistics: Sequence[str],
) -> GradientStatistics:
    def mean(name: str) -> Any:
        return jax.tree.map(lambda x: x / count, sums[name]) if name in sums else None

    gradient = jax.tree.map(lambda g, p: g.astype(p.dtype), mean("gradient"), params)
    norms = sums["norms"]
    return GradientStatistics(
        loss=mean("loss"),
        gradient=gradient,
        square=mean("square"),
        norm=total(norms) if "norm" in statistics else None,
        norms=norms if "norm" in statistics else None,
        sign=mean("sign"),
        fourth=mean("fourth"),
        clipped=mean("clipped"),
        count=count,
        of=of,
        ways=ways,
    )


def _paths(params: PyTree) -> list[str]:
    leaves = jtu.tree_leaves_with_path(params, is_leaf=is_weight)
    return [
        path_string(path) for path, leaf in leaves if not is_weight(leaf) or leaf.value is not None
    ]


def _checked_statistics(statistics: Any, clip: Any) -> tuple[Statistic, ...]:
    if isinstance(statistics, str):
        raise ValueError(f"statistics is {statistics!r}; expected a tuple: ({statistics!r},)")
    names = tuple(statistics)
    unknown = [repr(name) for name in names if name not in STATISTICS]
    if unknown:
        raise ValueError(
            f"unknown statistics: {', '.join(unknown)}; expected of {', '.join(STATISTICS)}"
        )
    if ("clipped" in names) != (clip is not None):
        raise ValueError(
            "clip is the norm that 'clipped' clips at; give both or neither: "
            f"statistics is {names}, clip is {clip!r}"
        )
    if isinstance(clip, int | float | np.number) and not clip > 0:
        raise ValueError(f"clip is {clip!r}; expected a norm greater than 0")
    return names
