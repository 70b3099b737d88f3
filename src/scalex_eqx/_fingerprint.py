import functools
import hashlib
import json
from collections.abc import Iterable
from typing import Any, TypeVar

import jax.tree_util as jtu
from jaxtyping import PyTree

from ._laws import law_data
from ._weight import Tie, Weight, is_weight, of_kind, path_string

_Entry = TypeVar("_Entry")


def laws(tree: PyTree) -> dict[str, Any]:
    """The scaling law of every weight and tie of `tree` by its path, as plain data."""
    is_one = of_kind(Weight, Tie)
    # Weights of one law share their spec.
    law = functools.cache(law_data)
    return by_path(
        (path, dict(law(leaf.spec)) if is_weight(leaf) else {"factor": leaf.factor})
        for path, leaf in jtu.tree_leaves_with_path(tree, is_leaf=is_one)
        if is_one(leaf)
    )


def by_path(entries: Iterable[tuple[Any, _Entry]]) -> dict[str, _Entry]:
    """A dictionary of what stands at tree paths, none of it lost.

    `{"a/b": x, "a": {"b": y}}` has two leaves of one path as text: the second is `a/b (2)`.
    """
    found: dict[str, _Entry] = {}
    for key_path, entry in entries:
        path = unique = path_string(key_path)
        copies = 1
        while unique in found:
            copies += 1
            unique = f"{path} ({copies})"
        found[unique] = entry
    return found


def fingerprint(tree: PyTree) -> str:
    """Sixteen hexadecimal digits that stand for the scaling laws of all weights of `tree`.

    Two models have the same one if their weights have the same paths, roles, axes, exponents,
    width ratios and constants. Values and shapes are not in it.
    """
    text = json.dumps(laws(tree), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
