import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.tree_util as jtu
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from .._pages import listed
from .._weight import is_array, is_weight, path_string
from ._axes import logical_axes
from ._rules import SHARDING_RULES, AnyMesh, Rules, check_rules, mesh_axes, partition


def shardings(tree: PyTree, mesh: AnyMesh, rules: Rules = SHARDING_RULES) -> PyTree:
    """How the arrays of `tree` are split over a mesh, read from the weights' axes.

    A weight's value, its mask, its gradient and its moments have one spec, and so are split alike.
    Arrays outside of weights are whole on every device.

    ```python
    mesh = jax.make_mesh((2, 4), ("data", "shard"), axis_types=(AxisType.Auto,) * 2)
    model = jax.jit(make_model, out_shardings=sx.shardings(jax.eval_shape(make_model), mesh))()
    ```

    **Arguments:**

    - `tree`: a model, an optimizer's state, or several things in a tuple or dictionary; of arrays
        or of shapes.
    - `mesh`: its axes, explicit or automatic, have the names that the rules know.
    - `rules`: the mesh's axes that split a logical axis, by its name; see
        [`scalex_eqx.SHARDING_RULES`][].

    **Returns:** the tree with a `jax.sharding.NamedSharding` for each array, and `None` for what
    is none.

    **Raises:** `ValueError` that lists every weight with an axis that the mesh doesn't divide, or
    with two axes that one axis of the mesh would split.
    """
    check_rules(rules)
    problems: list[str] = []

    def of_leaf(path: Any, leaf: Any) -> Any:
        if not is_weight(leaf):
            return NamedSharding(mesh, PartitionSpec()) if is_array(leaf) else None

        def of_array(x: Any) -> NamedSharding:
            names = _split_names(x.shape, logical_axes(leaf.spec, x.shape))
            wrong = _problems(path_string(path), x.shape, names, mesh, rules)
            problems.extend(wrong)
            return NamedSharding(mesh, partition(() if wrong else names, mesh, rules))

        return jax.tree.map(of_array, leaf)

    found = jtu.tree_map_with_path(of_leaf, tree, is_leaf=is_weight)
    if problems:
        sizes = ", ".join(f"{name}={size}" for name, size in mesh.shape.items())
        heading = f"the mesh {sizes} doesn't split all weights evenly:"
        remedy = "\ngive a mesh whose axes divide them, or rules that leave those axes whole"
        raise ValueError(listed(heading, dict.fromkeys(problems)) + remedy)
    return found


def shard(tree: PyTree, mesh: Mesh, rules: Rules = SHARDING_RULES) -> PyTree:
    """`tree` with its arrays placed as [`scalex_eqx.shardings`][] says.

    **Arguments:** those of `shardings`; the arrays must be there.

    **Raises:** as `shardings`.
    """
    placed = shardings(tree, mesh, rules)
    leaves, structure = jax.tree.flatten(tree)
    places = structure.flatten_up_to(placed)
    return structure.unflatten(
        leaf if place is None else jax.device_put(leaf, place)
        for leaf, place in zip(leaves, places, strict=True)
    )


def batch_partition(mesh: AnyMesh, rules: Rules = SHARDING_RULES) -> PartitionSpec:
    """How the examples of a batch are split over a mesh."""
    return partition(("batch",), mesh, rules)


def batch_shards(mesh: AnyMesh, rules: Rules = SHARDING_RULES) -> int:
    """Into how many parts a batch is split."""
    return math.prod(mesh.shape[axis] for axis in mesh_axes("batch", mesh, rules))


def _split_names(shape: Sequence[int], names: Sequence[str]) -> tuple[str, ...]:
    # Statistics over an axis keep it with a size of one.
    return tuple("" if size == 1 else name for size, name in zip(shape, names, strict=True))


def _problems(
    path: str, shape: Sequence[int], names: Sequence[str], mesh: AnyMesh, rules: Rules
) -> list[str]:
    found, seen = [], dict[str, str]()
    for size, name in zip(shape, names, strict=True):
        axes = mesh_axes(name, mesh, rules)
        parts = math.prod(mesh.shape[axis] for axis in axes)
        if size % parts:
            found.append(f"{path}: its axis {name} of {size} is split over {_said(axes, mesh)}")
        for axis in axes:
            if axis in seen:
                found.append(f"{path}: {axis} would split both {seen[axis]} and {name}")
            seen[axis] = name
    return found


def _said(axes: Sequence[str], mesh: AnyMesh) -> str:
    return " x ".join(f"{axis}={mesh.shape[axis]}" for axis in axes)
