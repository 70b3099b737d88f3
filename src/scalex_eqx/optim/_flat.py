from collections.abc import Callable
from typing import Any, NamedTuple

import jax.tree_util as jtu
import optax
from jaxtyping import PyTree

from .._weight import path_string
from ._places import is_place
from ._rule import Rule


class Flat:
    """A tree as the list of its places, each with the path that it has in the tree.

    Every part of a chain takes the trees that it is handed apart, and a model is thousands of
    modules. A list is taken apart in no time.

    **Arguments:**

    - `places`: what stands in the tree, as `is_place` tells.
    - `treedef`: the tree around them.
    """

    def __init__(self, places: list[Any], treedef: Any):
        self.places = places
        self.treedef = treedef

    def tree(self) -> PyTree:
        return jtu.tree_unflatten(self.treedef, self.places)

    def with_keys(self) -> tuple[list[tuple[Any, Any]], Any]:
        numbered = jtu.tree_unflatten(self.treedef, range(len(self.places)))
        paths = [path for path, _ in jtu.tree_leaves_with_path(numbered)]
        return list(zip(map(_Key, paths), self.places, strict=True)), self.treedef


class _Key(NamedTuple):
    """The path of a place, as one key."""

    path: tuple[Any, ...]

    def __str__(self) -> str:
        return path_string(self.path)


jtu.register_pytree_with_keys(
    Flat,
    Flat.with_keys,
    lambda treedef, places: Flat(list(places), treedef),
    lambda flat: (flat.places, flat.treedef),
)


def flat(tree: PyTree) -> Flat:
    return Flat(*jtu.tree_flatten(tree, is_leaf=is_place))


def taken_apart(chain: optax.GradientTransformation) -> optax.GradientTransformation:
    """`chain`, of rules of this library, which takes its trees apart once for all of them."""
    # Optax's types know nothing of nodes like Flat.
    inner: Any = chain

    def init(params: optax.Params) -> Any:
        return tuple(map(_in_trees, inner.init(flat(params))))

    def update(updates, state, params=None, **extra):
        states = tuple(map(_in_lists, state))
        weights = None if params is None else flat(params)
        moved, states = inner.update(flat(updates), states, weights, **extra)
        return moved.tree(), tuple(map(_in_trees, states))

    return type(chain)(init, update)


def _in_lists(state: Any) -> Any:
    return _each_tree(flat, state)


def _in_trees(state: Any) -> Any:
    return _each_tree(Flat.tree, state)


def _each_tree(f: Callable[[Any], Any], state: Any) -> Any:
    """The state of a rule with `f` of every tree in it; what is no such state is left alone."""
    rule = getattr(state, "rule", None)
    if not isinstance(rule, Rule) or not all(hasattr(state, name) for name, _ in rule.fields):
        return state
    return state._replace(**{name: f(getattr(state, name)) for name, _ in rule.fields})
