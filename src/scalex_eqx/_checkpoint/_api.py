import os
import re
import stat
from collections.abc import Callable, Collection, Mapping
from typing import Any, BinaryIO

import jax.tree_util as jtu
from jaxtyping import PyTree

from .._differences import differences
from .._export import compared, export_laws, read_exported
from .._files import written_whole
from .._pages import Section, listed, see
from . import _format1, _format2
from ._errors import Name, damaged, not_a_checkpoint, of_leaf, reading, writing
from ._leaves import (
    bits_of,
    check_values,
    describe,
    holds_numbers,
    leaves_by_path,
    masks_of,
    number_from,
    placed,
    truth_values,
)

_MAGIC = b"scalex_eqx checkpoint "


def save(path: Name, tree: PyTree) -> None:
    """Writes the arrays of `tree` to a file, with the scaling laws that they belong to.

    An older file of that name stays until the new one is complete and on the disk. Nothing is left
    of a save that fails. Of several at once the last one to finish stands. A sharded array is
    gathered; one array at a time is copied.

    **Arguments:**

    - `path`: of the file; its folder must exist.
    - `tree`: a model, an optimizer's state, or several things in a tuple or dictionary. JAX and
        NumPy arrays of every dtype but objects and records, random keys, and numbers are kept.
        Functions and texts are not.

    **Raises:** `ValueError` or `TypeError` for an array that can't be kept, with its path, and
    `OSError` if the file can't be written, with what to do. The older file is then unharmed.
    """
    leaves = leaves_by_path(tree)
    masks = masks_of(tree)
    entries = {
        leaf: _named(path, leaf, _entry, value, id(value) in masks)
        for leaf, value in leaves.items()
    }
    head = _format2.header_bytes(entries, export_laws(tree))
    packed = [leaf for leaf in leaves if _format2.is_packed(entries[leaf])]
    leaves |= {leaf: bits_of(leaves[leaf]) for leaf in packed}
    with (
        writing(path, len(head) + _format2.arrays_size(entries)),
        written_whole(path) as unfinished,
        unfinished.open("wb") as file,
    ):
        _format2.write(file, head, leaves)


def load(path: Name, like: PyTree, *, accept: Collection[str] = ()) -> PyTree:
    """Reads what `save` has written into a tree like `like`.

    **Arguments:**

    - `path`: of the file, of this format or the one before.
    - `like`: a tree of the same structure, shapes and dtypes, such as a fresh model from the
        same `parameterize`. Shapes alone will do: `eqx.filter_eval_shape(make_model)`. An array
        comes back on the devices, and in the sharding, of its counterpart in `like`.
    - `accept`: what may differ in update rules: names of their settings, such as `"b2"`, or
        `"rates"`, `"family"`, `"rule"`, `"state"`.

    **Returns:** `like` with the arrays of the file.

    **Raises:** `ValueError` if the file is not such a checkpoint, is damaged, or, listing every
    difference, if its arrays have other paths, shapes or dtypes than those of `like`, its weights
    other scaling laws, or its optimizer other rules: the arrays of a standard model would fit into
    an NTK model of the same shape, and mean something else there. `OSError` if the file can't be
    read.

    **Warns:** if a rule that keeps no arrays has other settings, such as another learning rate.
    """
    with reading(path), open(path, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise not_a_checkpoint(path, b"")
        head = file.read(64)
        file.seek(0)
        if head.startswith(_format1.MAGIC):
            values = _load1(file, path, like, accept)
        elif head.startswith(_format2.MAGIC):
            values = _load2(file, path, like, accept)
        else:
            raise _unknown(path, head)
        leaves = iter(values)
        return jtu.tree_map(lambda leaf: next(leaves) if holds_numbers(leaf) else leaf, like)


def _load2(file: BinaryIO, path: Name, like: PyTree, accept: Collection[str]) -> list[Any]:
    entries, exported, sums = _format2.read_header(file, path)
    try:
        exported = read_exported(exported)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None
    wanted = leaves_by_path(like)
    _check_laws(path, exported, export_laws(like), accept)
    _check_leaves(path, entries, wanted)
    loaded = {}
    for leaf, described in entries.items():
        array = _format2.stored(described)
        if array is None:
            loaded[leaf] = _named(path, leaf, number_from, described["value"], wanted[leaf])
        else:
            checksum, sums = sums[:4], sums[4:]
            data = _format2.read_array(file, path, leaf, array, checksum)
            if _format2.is_packed(described):
                data = truth_values(data, tuple(described["shape"]))
            loaded[leaf] = _named(path, leaf, placed, data, wanted[leaf])
    return [loaded[leaf] for leaf in wanted]


def _load1(file: BinaryIO, path: Name, like: PyTree, accept: Collection[str]) -> list[Any]:
    header = _format1.read_header(file, path)
    rename = _format1.paths_in(like, header["arrays"])
    laws, arrays = (
        {rename(old): entry for old, entry in header[part].items()} for part in ("laws", "arrays")
    )
    exported, wanted = export_laws(like), leaves_by_path(like)
    _check_laws(path, {**exported, "laws": laws}, exported, accept)
    in_tree = {leaf: value for leaf, value in wanted.items() if hasattr(value, "dtype")}
    _check_leaves(path, _format1.entries(arrays), in_tree)
    if list(arrays) != list(in_tree):
        raise damaged(path, "its arrays are in another order than those of the tree")
    values = []
    for leaf, value in wanted.items():
        data = _format1.read_array(file, path, leaf, value)
        is_array = hasattr(value, "dtype")
        values.append(
            _named(path, leaf, placed, data, value) if is_array else type(value)(data.item())
        )
    _format1.check_end(file, path)
    return values


def _entry(leaf: Any, as_bits: bool) -> dict[str, Any]:
    check_values(leaf)
    return _format2.entry(leaf, as_bits=as_bits)


def _check_laws(
    path: Name, found: Mapping[str, Any], wanted: Mapping[str, Any], accept: Collection[str]
) -> None:
    kind, problems = compared(found, wanted, "in the file", "in the tree", accept, stacklevel=5)
    if problems:
        heading = f"{os.fspath(path)} holds {kind} than the tree to load it into:"
        raise ValueError(listed(heading, problems) + see(Section.checkpoint))


def _check_leaves(
    path: Name, entries: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, Any]
) -> None:
    kept = ("type", "shape", "dtype")
    there = {leaf: {name: e[name] for name in kept if name in e} for leaf, e in entries.items()}
    here = {leaf: _named(path, leaf, describe, value) for leaf, value in wanted.items()}
    problems = differences(there, here, "in the file", "in the tree")
    if problems:
        heading = f"{os.fspath(path)} holds other arrays than the tree to load it into:"
        raise ValueError(listed(heading, map(str, problems)) + see(Section.checkpoint))


def _named(path: Name, leaf: str, f: Callable[..., Any], *arguments: Any) -> Any:
    """`f(*arguments)`; what it refuses is said with file and leaf."""
    try:
        return f(*arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise of_leaf(path, leaf, error) from error


def _unknown(path: Name, head: bytes) -> ValueError:
    version = re.match(re.escape(_MAGIC) + rb"([1-9][0-9]*)\n", head)
    if version is None:
        return not_a_checkpoint(path, head)
    return ValueError(
        f"{os.fspath(path)} has checkpoint format {version[1].decode()}; this scalex_eqx reads "
        f"formats 1 and 2: use the version that wrote it, or a newer one{see(Section.other_file)}"
    )
