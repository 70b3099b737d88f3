import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.tree_util as jtu
import optax
from jaxtyping import PyTree

from .._weight import Weight, is_weight
from ..theory import Role
from ._checked import check_state
from ._places import is_place


def for_roles(
    tx: optax.GradientTransformation, roles: Collection[Role]
) -> optax.GradientTransformation:
    """A rule of the library's for the weights of some roles; it hands on the others' updates.

    To the rule the other weights are ones that a filter has taken out. Its state says which roles
    it is for.
    """

    def is_other(spec: Any) -> bool:
        return spec.is_complete and spec.role not in roles

    def with_roles(state: Any) -> Any:
        return state._replace(rule=dataclasses.replace(state.rule, roles=tuple(sorted(roles))))

    def init(params: optax.Params) -> Any:
        return with_roles(tx.init(_without(is_other, params)))

    def update(updates, state, params=None):
        own: Any = jax.eval_shape(tx.init, {})
        check_state(with_roles(own).rule, type(own), state)
        moved, new = tx.update(
            _without(is_other, updates),
            state._replace(rule=own.rule),
            _without(is_other, params),
        )
        return _merged(is_other, moved, updates), with_roles(new)

    return optax.GradientTransformation(init, update)


def _without(is_other: Callable[[Any], bool], tree: PyTree) -> PyTree:
    """The tree with no value for the weights that the rule is not for."""

    def of(leaf: Any) -> Any:
        return Weight(None, leaf.spec) if is_weight(leaf) and is_other(leaf.spec) else leaf

    return jtu.tree_map(of, tree, is_leaf=is_place)


def _merged(is_other: Callable[[Any], bool], moved: PyTree, updates: PyTree) -> PyTree:
    def of(one: Any, update: Any) -> Any:
        return update if is_weight(update) and is_other(update.spec) else one

    return jtu.tree_map(of, moved, updates, is_leaf=is_place)
