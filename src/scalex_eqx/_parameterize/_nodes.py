"""The leaves of a model that need a scaling law, and the modules that they stand in."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax.tree_util as jtu
from jaxtyping import PyTree

from .._weight import Tie, Weight, is_trainable, is_weight, of_kind, path_string

Path = tuple[Any, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """A `Weight`, a `Tie` or a floating-point array of a model, or the shape of one.

    **Arguments:**

    - `leaf`: the node itself.
    - `parents`: the nodes that it stands in, outermost first, each with the leaf's path from it.
    """

    leaf: Any
    parents: tuple[tuple[Any, Path], ...]

    @property
    def array(self) -> Any:
        """The array, or its shape, of a `Weight` or of the leaf itself."""
        return self.leaf.value if is_weight(self.leaf) else self.leaf


def find_nodes(model: PyTree) -> dict[Path, Node]:
    """Every node of `model` that needs a scaling law, by its path.

    The state of `equinox.nn`'s stateful layers, integers and keys need none.
    """
    return dict(_walk(model, (), ()))


def declares_all(model: PyTree) -> bool:
    """Whether every node of `model` that needs a scaling law is a `Weight` already."""
    return all(is_weight(node.leaf) for _, node in _walk(model, (), ()))


# Whether something is handled as a whole, although it is no leaf; made for `is_leaf`.
is_node = of_kind(Weight, Tie)
_is_state = of_kind(eqx.nn.State, eqx.nn.StateIndex)


def _walk(tree: PyTree, path: Path, parents: tuple[tuple[Any, int], ...]) -> Iterator:
    if _is_state(tree):
        return
    if is_node(tree) or is_trainable(tree):
        yield path, Node(tree, tuple((parent, path[depth:]) for parent, depth in parents))
        return
    for key, child in jtu.tree_leaves_with_path(tree, is_leaf=lambda x: x is not tree):
        if key:
            yield from _walk(child, (*path, *key), (*parents, (tree, len(path))))


def sorted_strings(paths: set[Path]) -> list[str]:
    """Paths as they are printed."""
    return sorted(map(path_string, paths))
