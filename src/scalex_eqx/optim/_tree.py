import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jax.interpreters import partial_eval
from jaxtyping import Array, PyTree

from .._spec import WeightSpec
from .._weight import Weight, is_trainable, is_weight, map_weights, rebuilt
from ._places import is_place

_Name = TypeVar("_Name")

# Of a JAX that has renamed it nothing is known to be traced: all formulas are then run one by one.
_TRACED: Any = getattr(partial_eval, "DynamicJaxprTracer", ())

_TOGETHER = 32
"""How many weights are traced in one call."""


def map_values(
    f: Callable[..., Array], tree: PyTree, *rest: PyTree, inline: bool = False
) -> PyTree:
    """Replaces the value of every trained `Weight` of `tree` by `f(spec, value, ...)`.

    The remaining arguments are the values at its place in `rest`. A weight that is not trained,
    or that has been masked or filtered out and has no array for a value, stays as it is. `inline`
    is that of `for_each`.
    """
    return move_values(lambda *args: (f(*args),), tree, *rest, inline=inline)[0]


def move_values(
    f: Callable[..., tuple[Array, ...]], *trees: PyTree, inline: bool = False
) -> list[PyTree]:
    """The same for several trees at once: `f` returns a new value for each of the first of them.

    They all have one structure, and the first says which weights are trained.
    """
    leaves, treedef = jtu.tree_flatten(trees[0], is_leaf=is_place)
    moved = [
        i
        for i, leaf in enumerate(leaves)
        if is_weight(leaf) and leaf.spec.is_trained and is_trainable(leaf.value)
    ]
    columns = [leaves, *map(treedef.flatten_up_to, trees[1:])]
    specs = [leaves[i].spec for i in moved]
    values = ([column[i].value for i in moved] for column in columns)
    results = list(zip(*for_each(f, specs, *values, inline=inline), strict=True))
    for column, new in zip(columns, results, strict=False):
        for i, spec, value in zip(moved, specs, new, strict=True):
            column[i] = rebuilt(column[i], value, spec)
    replaced = [jtu.tree_unflatten(treedef, column) for column in columns[: len(results)]]
    return [*replaced, *trees[len(results) :]]


def for_each(
    f: Callable[..., Any], keys: Sequence[Any], *columns: Sequence[Any], inline: bool = False
) -> list[Any]:
    """`f(key, value, ...)` of each key and the values beside it.

    While a step is traced, most of the time goes into the same formula for each of many weights.
    Here `f` is run once for all weights of one key and one shape, as a function of its own that
    the traced step calls, several weights at a time. XLA puts the operations in the place of the
    call before it looks at them, so that the compiled step is what it would be without. Outside of
    a trace `f` is called: what is compiled for a single step would be compiled again for the next.

    With `inline` the operations are written into the step itself, once for each weight. That takes
    longer, and is for an `f` with barriers: in functions of their own XLA takes them for one.
    """
    rows = list(zip(*columns, strict=True))
    results: list[Any] = [None] * len(rows)
    kinds: dict[int, Any] = {}
    for i, (key, row) in enumerate(zip(keys, rows, strict=True)):
        if any(isinstance(x, _TRACED) for x in row):
            # A factor that is traced is no key of a dictionary.
            name = id(key) if isinstance(key, jax.Array) else key
            kinds[i] = (name, row[0].shape, row[0].dtype)
        else:
            results[i] = f(key, *row)
    calls: dict[Any, Callable[..., Any]] = {}
    for part in parts(kinds):
        name = kinds[part[0]][0]
        if name not in calls:
            calls[name] = _of_several(f, keys[part[0]], inline)
        for i, result in zip(part, calls[name]([rows[i] for i in part]), strict=True):
            results[i] = result
    return results


def parts(kinds: Mapping[_Name, Any]) -> Iterator[list[_Name]]:
    """The names of one kind, a few at a time."""
    groups: dict[Any, list[_Name]] = {}
    for name, kind in kinds.items():
        groups.setdefault(kind, []).append(name)
    for members in groups.values():
        for first in range(0, len(members), _TOGETHER):
            yield members[first : first + _TOGETHER]


def _of_several(f: Callable[..., Any], key: Any, inline: bool) -> Callable[..., Any]:
    one = jax.jit(functools.partial(f, key), inline=True)

    def for_several(rows: list[Any]) -> list[Any]:
        return [one(*row) for row in rows]

    return jax.jit(for_several, inline=inline)


def init_values(f: Callable[[WeightSpec, Array], Array], params: PyTree) -> PyTree:
    """State of the shape of the weights: `f(spec, value)` for those that are trained.

    The others get no array: a frozen model's state costs nothing.
    """

    def on_weight(weight: Weight) -> Weight:
        if not weight.spec.is_trained:
            return Weight(None, weight.spec)
        return Weight(f(weight.spec, weight.value), weight.spec)

    return map_weights(lambda w: on_weight(w) if is_trainable(w.value) else w, params)


def without_frozen(updates: PyTree) -> PyTree:
    """`updates` with zeros for weights that are not trained, which other libraries may move."""

    def on_weight(weight: Weight) -> Weight:
        if not weight.spec.is_trained and is_trainable(weight.value):
            return rebuilt(weight, jnp.zeros_like(weight.value))
        return weight

    return map_weights(on_weight, updates)
