r"""Format 2: a header, the bytes of the leaves, and their checksums.

| bytes | what |
|---|---|
| 24 | `scalex_eqx checkpoint 2\n` |
| 8 | $n$, the header's size, little-endian |
| $n$ | the header, JSON |
| 4 | the checksum of all before |
| any | the bytes of the arrays, in the order of the header, one right behind the other |
| 4 each | the checksum of each array |
| 4 | the checksum of the header's checksum and the arrays' |

The header says how long the file is, and every byte of it is in some checksum (CRC-32, stored
little-endian).
"""

import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from ._errors import Name, damaged
from ._leaves import (
    Description,
    blank_key_data,
    describe,
    dtype_name,
    host_array,
    is_key,
    number_text,
    stored_size,
)

MAGIC = b"scalex_eqx checkpoint 2\n"
_SUM = 4
_CHUNK = 1 << 20
# No model has as many axes; NumPy allows 64.
_MOST_AXES = 64


def entry(leaf: Any, *, as_bits: bool = False) -> Description:
    """What the header says of a leaf; `describe` with what is stored for it."""
    found = describe(leaf)
    if found["type"] != "array":
        return {**found, "value": number_text(leaf)}
    if is_key(leaf):
        data = blank_key_data(leaf)
        found["stored"] = {"shape": list(data.shape), "dtype": dtype_name(data.dtype)}
    if as_bits and found["dtype"] == "bool":
        found["stored"] = _bits(leaf.shape)
    return found


def _bits(shape: Sequence[int]) -> Description:
    return {"shape": [-(-math.prod(shape) // 8)], "dtype": "uint8"}


def is_packed(described: Mapping[str, Any]) -> bool:
    """Whether a leaf of truth values is stored as bits."""
    return described.get("dtype") == "bool" and "stored" in described


def stored(described: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Shape and dtype of the array that a leaf is stored as; `None` if it is in the header."""
    return described.get("stored", described) if described["type"] == "array" else None


def header_bytes(leaves: Mapping[str, Description], exported: Mapping[str, Any]) -> bytes:
    """All that stands in front of the arrays."""
    header = {"leaves": leaves, "exported": exported}
    text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    head = MAGIC + len(text).to_bytes(8, "little") + text
    return head + _as_bytes(zlib.crc32(head))


def arrays_size(leaves: Mapping[str, Description]) -> int:
    """The number of bytes behind the header."""
    arrays = [array for array in map(stored, leaves.values()) if array is not None]
    return sum(map(stored_size, arrays)) + _SUM * (len(arrays) + 1)


def write(file: BinaryIO, head: bytes, leaves: Mapping[str, Any]) -> None:
    """Writes a file, one leaf in memory at a time."""
    file.write(head)
    sums = head[-_SUM:]
    for leaf in leaves.values():
        if hasattr(leaf, "dtype"):
            sums += _as_bytes(_write_array(file, host_array(leaf)))
    file.write(sums[_SUM:] + _as_bytes(zlib.crc32(sums)))


def _write_array(file: BinaryIO, array: np.ndarray) -> int:
    data = array.reshape(-1).view(np.uint8).data
    checksum = 0
    for start in range(0, len(data), _CHUNK):
        part = data[start : start + _CHUNK]
        checksum = zlib.crc32(part, checksum)
        file.write(part)
    return checksum


def read_header(file: BinaryIO, path: Name) -> tuple[dict[str, Description], Any, bytes]:
    """The leaves, the exported laws, and the checksums, of a file that has the right size.

    The file is left at its first array.

    **Raises:** `ValueError` for a file that was cut off, has bytes behind its end, or whose header
    or checksums have changed.
    """
    size = os.fstat(file.fileno()).st_size
    start = file.read(len(MAGIC) + 8)
    length = int.from_bytes(start[len(MAGIC) :], "little")
    if len(start) < len(MAGIC) + 8 or size < len(start) + length + _SUM:
        raise damaged(path, f"it ends after {size:,} bytes, within its header")
    text, checksum = file.read(length), file.read(_SUM)
    if _as_bytes(zlib.crc32(text, zlib.crc32(start))) != checksum:
        raise damaged(path, "its header is not what was written")
    try:
        header = json.loads(text)
        leaves, exported = _checked(header["leaves"]), header["exported"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(path, f"its header is malformed, {error!r}") from None
    there, expected = size - file.tell(), arrays_size(leaves)
    if there != expected:
        what = f"{expected - there:,} bytes are missing" if there < expected else ""
        what = what or f"{there - expected:,} bytes stand behind its end"
        raise damaged(path, f"{what}, of {size - there + expected:,}")
    return leaves, exported, _read_sums(file, path, leaves, checksum)


def _read_sums(
    file: BinaryIO, path: Name, leaves: Mapping[str, Description], header_sum: bytes
) -> bytes:
    count = sum(stored(described) is not None for described in leaves.values())
    first = file.tell()
    file.seek(-_SUM * (count + 1), os.SEEK_END)
    sums, checksum = file.read(_SUM * count), file.read(_SUM)
    file.seek(first)
    if _as_bytes(zlib.crc32(header_sum + sums)) != checksum:
        raise damaged(path, "its checksums are not those that were written")
    return sums


def read_array(
    file: BinaryIO, path: Name, leaf: str, array: Mapping[str, Any], checksum: bytes
) -> np.ndarray:
    """The next array of the file.

    **Raises:** `ValueError` if its bytes don't have that checksum.
    """
    data = np.empty(stored_size(array), np.uint8)
    view, found = data.data, 0
    for start in range(0, len(view), _CHUNK):
        part = view[start : start + _CHUNK]
        if file.readinto(part) != len(part):  # pyright: ignore[reportAttributeAccessIssue]
            raise damaged(path, f"it ends within leaf {leaf}")
        found = zlib.crc32(part, found)
    if _as_bytes(found) != checksum:
        raise damaged(path, f"the bytes of leaf {leaf} are not those that were written")
    little = np.dtype(array["dtype"]).newbyteorder("<")
    return data.view(little).reshape(array["shape"]).astype(array["dtype"], copy=False)


def _checked(leaves: Any) -> dict[str, Description]:
    """The leaves of a header, which may be made up, with sizes that can be counted with."""
    for described in leaves.values():
        array = stored(described)
        if array is None:
            if not isinstance(described["value"], str):
                raise TypeError("a number that is no text")
            continue
        for shape in (described["shape"], array["shape"]):
            if len(shape) > _MOST_AXES or not all(type(n) is int and n >= 0 for n in shape):
                raise ValueError(f"a shape is {shape!r}")
        if is_packed(described) and array != _bits(described["shape"]):
            raise ValueError(f"truth values of shape {described['shape']!r} as {array!r}")
        if dtype_name(array["dtype"]) != array["dtype"]:
            raise ValueError(f"a dtype is {array['dtype']!r}")
    return dict(leaves)


def _as_bytes(checksum: int) -> bytes:
    return checksum.to_bytes(_SUM, "little")
