import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import PyTree

from ._fingerprint import fingerprint, laws
from ._pages import Section, listed, see
from ._weight import path_string

_FORMAT = "scalex_eqx checkpoint 1"


def save(path: str | Path, tree: PyTree) -> None:
    """Writes the arrays of `tree` to a file, with the scaling laws that they belong to.

    An older file of that name stays until the new one is complete.

    **Arguments:**

    - `path`: of the file; its folder must exist.
    - `tree`: a model, an optimizer's state, or several things in a tuple or dictionary. Random
        keys are kept as well.
    """
    header = {
        "format": _FORMAT,
        "fingerprint": fingerprint(tree),
        "laws": laws(tree),
        "arrays": _arrays(tree),
    }
    partial = Path(f"{path}.partial")
    with partial.open("wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        eqx.tree_serialise_leaves(file, jtu.tree_map(_key_data, tree))
    os.replace(partial, path)


def load(path: str | Path, like: PyTree) -> PyTree:
    """Reads what `save` has written into a tree like `like`.

    **Arguments:**

    - `path`: of the file.
    - `like`: a tree of the same structure, shapes and dtypes, such as a fresh model from the
        same `parameterize`. Shapes alone will do: `eqx.filter_eval_shape(make_model)`.

    **Returns:** `like` with the arrays of the file.

    **Raises:** `ValueError` if the file is not such a checkpoint, or, listing every difference, if
    its arrays have other paths, shapes or dtypes than those of `like`, or its weights have other
    scaling laws: the arrays of a standard model would fit into an NTK model of the same shape, and
    mean something else there.
    """
    with Path(path).open("rb") as file:
        header = _header(file, path)
        for what in ("laws", "arrays"):
            wanted = laws(like) if what == "laws" else _arrays(like)
            found = differences(header[what], wanted, "in the file", "in the tree")
            if found:
                kind = "weights with other scaling laws" if what == "laws" else "other arrays"
                heading = f"{path} holds {kind} than the tree to load it into:"
                raise ValueError(listed(heading, found) + see(Section.checkpoint))
        plain = eqx.tree_deserialise_leaves(file, jtu.tree_map(_key_data, like))
    return jtu.tree_map(_as_key, plain, like)


def _arrays(tree: PyTree) -> dict[str, dict[str, Any]]:
    """Shape and dtype of every array of `tree` by its path."""
    return {
        path_string(path): {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
        for path, leaf in jtu.tree_leaves_with_path(tree)
        if hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    }


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _key_data(leaf: Any) -> Any:
    if not _is_key(leaf):
        return leaf
    is_shape = isinstance(leaf, jax.ShapeDtypeStruct)
    return jax.eval_shape(jax.random.key_data, leaf) if is_shape else jax.random.key_data(leaf)


def _as_key(leaf: Any, like: Any) -> Any:
    return jax.random.wrap_key_data(leaf, impl=like.dtype) if _is_key(like) else leaf


def _header(file: BinaryIO, path: str | Path) -> dict[str, Any]:
    try:
        header = json.loads(file.readline())
        if header["format"] == _FORMAT:
            return header
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(
        f"{path} is not a checkpoint written by scalex_eqx.save; a file of "
        "equinox.tree_serialise_leaves is read by equinox.tree_deserialise_leaves, which doesn't "
        f"check the scaling laws{see(Section.checkpoint)}"
    )


def differences(
    one: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]], name: str, other_name: str
) -> list[str]:
    """A line for each entry that two dictionaries by path don't share."""
    lines = [f"{path}: only {name}" for path in one if path not in other]
    lines += [f"{path}: only {other_name}" for path in other if path not in one]
    for path in one:
        lines += [
            f"{path}: {field} is {_shown(value)} {name}, {_shown(other[path].get(field))} "
            f"{other_name}"
            for field, value in one[path].items()
            if path in other and other[path].get(field) != value
        ]
    return lines


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
