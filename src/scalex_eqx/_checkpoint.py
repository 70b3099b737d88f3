import json
from pathlib import Path
from typing import Any, BinaryIO

import equinox as eqx
from jaxtyping import PyTree

from ._fingerprint import fingerprint, laws

_FORMAT = "scalex_eqx checkpoint 1"


def save(path: str | Path, tree: PyTree) -> None:
    """Writes the arrays of `tree` to a file, with the scaling laws that they belong to.

    **Arguments:**

    - `path`: of the file; its folder must exist.
    - `tree`: a model, an optimizer's state, or both in a tuple.
    """
    header = {"format": _FORMAT, "fingerprint": fingerprint(tree), "laws": laws(tree)}
    with Path(path).open("wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        eqx.tree_serialise_leaves(file, tree)


def load(path: str | Path, like: PyTree) -> PyTree:
    """Reads what `save` has written into a tree like `like`.

    **Arguments:**

    - `path`: of the file.
    - `like`: a tree of the same structure, shapes and dtypes, such as a fresh model from the
        same `parameterize`. Shapes alone will do: `eqx.filter_eval_shape(make_model)`.

    **Returns:** `like` with the arrays of the file.

    **Raises:** `ValueError` if the file is not such a checkpoint, or, listing every difference, if
    its weights have other scaling laws than those of `like`: the arrays of a standard model would
    fit into an NTK model of the same shape, and mean something else there.
    """
    with Path(path).open("rb") as file:
        header = _header(file, path)
        found, wanted = header["laws"], json.loads(json.dumps(laws(like)))
        if found != wanted:
            raise ValueError(
                f"{path} holds weights with other scaling laws than the tree to load it into:\n  "
                + "\n  ".join(differences(found, wanted, "in the file", "in the tree"))
            )
        return eqx.tree_deserialise_leaves(file, like)


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
        "check the scaling laws"
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
