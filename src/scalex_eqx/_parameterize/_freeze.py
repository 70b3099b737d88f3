"""Freezing weights of a model that has its law."""

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import equinox as eqx
import jax.tree_util as jtu
from jaxtyping import PyTree

from .._pages import Section, listed, see
from .._weight import is_weight, rebuilt, require_complete, resolve
from ..theory import Role
from ._nodes import Path, find_nodes
from ._select import Key, as_choices, select
from ._shared import find_uses, half_named

Keys = Collection[Key] | Callable[[str, Any], Any]
"""Path patterns and module types, or a function of path and array."""


def freeze(model: PyTree, weights: Keys) -> PyTree:
    """`model` with some weights frozen: they compute what they did, and are not trained.

    A frozen weight keeps its multiplier in the forward pass. It has no gradient, no update, no
    state of an optimizer and no decay. Make the state anew, `tx.init(...)`, since that of the old
    model has arrays for it.

    **Arguments:**

    - `model`: from `parameterize`, at any time of its training.
    - `weights`: which; a collection of path patterns and module types, or a function of path and
        array, as `frozen` of [`scalex_eqx.parameterize`][]. All but the adapters of a model are
        `lambda path, _: "adapter" not in path`.

    **Returns:** the model. A `buffer`, which is not trained anyway, stays one.

    **Raises:** `ValueError` for a model without its laws, and for a key or a function that matches
    no weight.
    """
    return _set_frozen("freeze", model, weights, frozen=True)


def unfreeze(model: PyTree, weights: Keys) -> PyTree:
    """`model` with some weights trained again that were frozen.

    **Arguments:** those of [`scalex_eqx.freeze`][].

    **Returns:** the model.

    **Raises:** `ValueError` as `freeze` does. A `buffer` has no law to be trained by, and counts
    as no match.
    """
    return _set_frozen("unfreeze", model, weights, frozen=False)


def _set_frozen(name: str, model: PyTree, weights: Keys, *, frozen: bool) -> PyTree:
    require_complete(model)
    nodes = {path: node for path, node in find_nodes(model).items() if is_weight(node.leaf)}
    if not frozen:
        nodes = {path: x for path, x in nodes.items() if x.leaf.spec.role is not Role.buffer}
    uses = find_uses(eqx.filter_eval_shape(resolve, model))
    places = {path: use.node for path, use in uses.items()}
    chosen, errors = select(name, as_choices(name, weights), {**nodes, **places}, bool)
    if not chosen and not errors:
        errors = [f"{name} is given no weight of the model{see(Section.no_match)}"]
    done = {path for path, node in nodes.items() if node.leaf.spec.is_trained is not frozen}
    errors += half_named(uses, chosen.keys() | done)
    if errors:
        raise ValueError(listed(f"{name} cannot be done:", errors))

    def on_leaf(path: Path, leaf: Any) -> Any:
        if path not in chosen or not is_weight(leaf) or leaf.spec.role is Role.buffer:
            return leaf
        return rebuilt(leaf, leaf.value, dataclasses.replace(leaf.spec, frozen=frozen))

    return jtu.tree_map_with_path(on_leaf, model, is_leaf=is_weight)
