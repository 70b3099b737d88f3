"""Format 1: a line of JSON, and NumPy's own format for each leaf. It is read, never written.

It has no checksums: what has changed within an array is not noticed.
"""

import ast
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, BinaryIO

import jax.tree_util as jtu
import numpy as np
from jaxtyping import PyTree

from .._export import named_tuples
from .._weight import path_string
from ._errors import Name, damaged
from ._leaves import Description, blank_key_data, dtype_name, is_key, leaves_by_path

MAGIC = b'{"format": "scalex_eqx checkpoint 1"'
_NPY = b"\x93NUMPY\x01\x00"


def read_header(file: BinaryIO, path: Name) -> dict[str, Any]:
    """The header; the file is left at its first array."""
    try:
        header = json.loads(file.readline())
        if not all(isinstance(header[part], Mapping) for part in ("laws", "arrays")):
            raise TypeError("laws or arrays")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(path, f"its header is malformed, {error!r}") from None
    return header


def entries(arrays: Mapping[str, Mapping[str, Any]]) -> dict[str, Description]:
    """The arrays of a header as format 2 describes them."""
    return {
        path: {
            "type": "array",
            "shape": array["shape"],
            # NumPy's own come with a byte order: "<f4".
            "dtype": dtype if dtype.startswith("key<") else dtype_name(dtype),
        }
        for path, array in arrays.items()
        for dtype in [array["dtype"]]
    }


def read_array(file: BinaryIO, path: Name, leaf: str, like: Any) -> np.ndarray:
    """The next array of the file, which must be as `like` is.

    NumPy's format has no names for bfloat16, float8 and their like, only `V2` and `V1`.
    """
    like = blank_key_data(like) if is_key(like) else like
    if not hasattr(like, "dtype"):
        like = np.asarray(like)
    start = file.read(10)
    size = int.from_bytes(start[8:], "little")
    try:
        if start[:8] != _NPY:
            raise ValueError("no array begins here")
        described = ast.literal_eval(file.read(size).decode("latin-1"))
        descr, shape = described["descr"], tuple(described["shape"])
        dtype = like.dtype if descr == like.dtype.str else np.dtype(descr)
        if shape != tuple(like.shape) or dtype_name(dtype) != dtype_name(like.dtype):
            raise ValueError(f"an array of dtype {dtype} and shape {shape}")
        count = int(np.prod(shape, dtype=object)) * dtype.itemsize
        data = file.read(count)
        if len(data) < count:
            raise ValueError(f"{count - len(data):,} bytes are missing")
    except (ValueError, KeyError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise damaged(path, f"leaf {leaf}: {error}") from None
    array = np.frombuffer(data, dtype)
    array = array.reshape(shape, order="F" if described["fortran_order"] else "C")
    return array.astype(like.dtype.newbyteorder("="))


def check_end(file: BinaryIO, path: Name) -> None:
    """Refuses a file that goes on behind its last array."""
    if file.read(1):
        raise damaged(path, "bytes stand behind its end")


def paths_in(like: PyTree, paths: Collection[str]) -> Callable[[str], str]:
    """What turns a path of a file with leaves at `paths` into the path in `like`.

    A part without arrays may have come into an optimizer's chain since the file was written, and
    moved the numbers of those behind it. So only parts with arrays are counted.
    """
    in_tree = list(leaves_by_path(like))
    chains = {
        path_string(path[:-1])
        for path, _ in named_tuples(like)
        if path and isinstance(path[-1], jtu.SequenceKey)
    }

    def path_in_tree(path: str) -> str:
        old, new = "", ""
        for part in path.split("/"):
            there, here = _numbers_behind(old, paths), _numbers_behind(new, in_tree)
            moves = new in chains and part in there and len(there) == len(here)
            moved = here[there.index(part)] if moves else part
            old, new = f"{old}/{part}".lstrip("/"), f"{new}/{moved}".lstrip("/")
        return new

    return path_in_tree


def _numbers_behind(prefix: str, paths: Collection[str]) -> list[str]:
    start = f"{prefix}/" if prefix else ""
    found = {path[len(start) :].split("/")[0] for path in paths if path.startswith(start)}
    return sorted((number for number in found if number.isdecimal()), key=int)
