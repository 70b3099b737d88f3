"""Arrays from which a layer computes its weight, so that their spread need not be the weight's."""

from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu

from .._weight import path_string
from ._kinds import is_mapping, is_of, said_kind
from ._nodes import Node

# What Linen's WeightNorm and SpectralNorm keep of a kernel, as `Dense_0/kernel/scale`.
_KERNEL = (jtu.DictKey("kernel"),)
_KEPT = ("scale", "sigma")


def is_wrapped(node: Node) -> bool:
    """Whether a weight is computed from an array by what stands around it."""
    return _normaliser(node) is not None or _wrapper(node) is not None


def refused(node: Node, *, told: bool) -> str | None:
    """Why an array that grows gets no law, although its axes may be known; `None` if it does.

    **Arguments:**

    - `told`: whether the caller says what the array is, which settles it where the weight's
        entries are no more than a function of the array's.
    """
    norm = _normaliser(node)
    if norm is not None:
        return (
            f"{norm}, which normalises the weight, so that its spread is not its own; use the "
            "layer without it, or freeze its arrays"
        )
    wrapper = _wrapper(node)
    if wrapper is None or told:
        return None
    return (
        f"in {said_kind(wrapper)}, which computes the weight from it, so that its spread need not "
        "be the weight's; where the entries keep their size, name its axes in layouts, or else "
        "freeze it"
    )


def unmasked(node: Node) -> Node:
    """An array under paramax's mask, as if it stood in the mask's place; others as they are."""
    for place, (parent, relative) in enumerate(node.parents):
        if _is_mask(parent) and path_string(relative) == "args/1":
            inside = len(relative)
            return Node(node.leaf, tuple((x, path[:-inside]) for x, path in node.parents[:place]))
    return node


def _normaliser(node: Node) -> str | None:
    """Where an array stands that is normalised."""
    own = (f"in {said_kind(parent)}" for parent, _ in node.parents if _normalises(parent))
    return next(own, None) or next(_normalisers_of_linen(node), None)


def _normalises(x: Any) -> bool:
    if issubclass(type(x), eqx.nn.WeightNorm | eqx.nn.SpectralNorm):
        return True
    nnx = is_of(x, "flax.nnx", "WeightNorm", "SpectralNorm")
    return nnx or is_of(x, "paramax", "WeightNormalization")


def _normalisers_of_linen(node: Node) -> Iterator[str]:
    """The modules of Linen that keep something of a kernel beside its layer, by their names."""
    around = [parent for parent, _ in node.parents]
    if len(around) < 2 or node.parents[-1][1] != _KERNEL or not is_mapping(around[-2]):
        return
    names = [path_string(relative[:1]) for _, relative in node.parents]
    kernel = "/".join(names[-2:])
    near = [around[-2]]
    for place, (tree, _) in enumerate(node.parents):
        if names[place] == "params" and is_mapping(tree):
            near.append(_descended(tree.get("batch_stats"), names[place + 1 : -2]))
    for modules in filter(is_mapping, near):
        for name, module in modules.items():
            if is_mapping(module) and any(f"{kernel}/{kept}" in module for kept in _KEPT):
                yield f"under Linen's {name}"


def _descended(tree: Any, names: list[str]) -> Any:
    for name in names:
        if not is_mapping(tree):
            return None
        tree = tree.get(name)
    return tree


def _wrapper(node: Node) -> Any | None:
    """What stands around an array that paramax's `unwrap` replaces by a function of it."""
    for parent, _ in unmasked(node).parents:
        if is_of(parent, "paramax", "AbstractUnwrappable"):
            return parent
    return None


def _is_mask(x: Any) -> bool:
    """Whether `unwrap` leaves an array's entries as they are, but for those that it sets."""
    return is_of(x, "paramax", "Parameterize") and x.fn is jnp.where and len(x.args) == 3
