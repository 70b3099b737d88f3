"""Language models on a file of tokens that no memory holds."""

import functools
import hashlib
import math
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from .._memory import total
from .._usage import UsageError, shown
from ._corpus import (
    check_batch,
    check_kind,
    check_one_window,
    check_vocabulary_size,
    npy_header,
    readable,
    window_starts,
)
from ._problem import Problem, data_key
from ._text import language_model

# The digest is of so many blocks of so many bytes: 16 MiB in all, whatever the file's size.
_BLOCKS, _BLOCK = 256, 1 << 16

# What one 32-bit draw reaches.
_NARROW = 2**31 - 1


class TokenFile:
    """The tokens of a file, read by position.

    It isn't mapped into memory: where a mapped file becomes shorter, the process ends.

    **Raises:** `UsageError` if the file can't be read, or changes while it is used.
    """

    def __init__(self, path: Path, vocabulary_size: int):
        self.path, self.vocabulary_size = path, vocabulary_size
        with readable(path):
            dtype, offset, count = _described(path)
            self._descriptor = os.open(path, os.O_RDONLY)
        self.dtype, self._offset, self.count = dtype, offset, count
        self._written = self._now()

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    @property
    def boundary(self) -> int:
        """Where the held-out last tenth begins."""
        return self.count * 9 // 10

    def windows(self, starts: Int[np.ndarray, " n"], length: int) -> Int[np.ndarray, "n length"]:
        """The tokens from each start on, as `int32`.

        **Raises:** `UsageError` for a token beyond the vocabulary, and if the file has changed.
        """
        if self._now() != self._written:
            raise UsageError(
                f"data {shown(self.path)} was written to while it was trained on; start again when "
                "it is whole"
            )
        found = np.stack([self._read(int(start), length) for start in starts])
        bad = (found < 0) | (found >= self.vocabulary_size)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise UsageError(
                f"data {shown(self.path)}: token {found[row, column]} at position "
                f"{starts[row] + column} lies outside 0 to {self.vocabulary_size - 1}; correct the "
                "file, or the vocabulary size"
            )
        return found.astype(np.int32)

    def _read(self, start: int, length: int) -> np.ndarray:
        size = self.dtype.itemsize
        with readable(self.path):
            found = os.pread(self._descriptor, length * size, self._offset + start * size)
        if len(found) < length * size:
            raise UsageError(
                f"data {shown(self.path)} became shorter while it was read; start again when it is "
                "whole"
            )
        return np.frombuffer(found, self.dtype)

    def _now(self) -> tuple[int, int]:
        stat = os.fstat(self._descriptor)
        return stat.st_size, stat.st_mtime_ns

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of type, number of tokens, vocabulary size, and blocks that are evenly spaced
        from the first tokens to the last."""
        name = f"{self.dtype.newbyteorder('<').str} {self.count} {self.vocabulary_size} "
        digest = hashlib.sha256(name.encode())
        length = min(self.count, _BLOCK // self.dtype.itemsize)
        blocks = min(_BLOCKS, math.ceil(self.count / length))
        for block in range(blocks):
            start = (self.count - length) * block // max(1, blocks - 1)
            tokens = self._read(start, length)
            digest.update(tokens.astype(self.dtype.newbyteorder("<"), copy=False).tobytes())
        return digest.hexdigest()


def _described(path: Path) -> tuple[np.dtype, int, int]:
    """Type, offset and number of the tokens of a file."""
    size = path.stat().st_size
    if path.suffix == ".npy":
        header = npy_header(path)
        check_kind(path, header)
        return header.dtype, header.offset, header.size
    if path.suffix != ".bin":
        raise UsageError(
            f"data {shown(path)} is no file of tokens; expected a .bin file of uint16 tokens or a "
            ".npy array; convert it to one of these"
        )
    if size % 2:
        raise UsageError(
            f"data {shown(path)} has an odd number of bytes, {size}; expected little-endian uint16 "
            "tokens, two bytes each; write it again"
        )
    return np.dtype("<u2"), 0, size // 2


def token_file(
    path: Path | str,
    *,
    vocabulary_size: int,
    sequence_length: int = 64,
    batch_size: int = 4,
    head_dimension: int = 16,
    held_out_windows: int = 256,
) -> Problem:
    r"""[`scalex_eqx.problems.text`][] on a file of tokens that may be larger than the memory.

    Each batch is read from the file when it is needed. While the training part has fewer than
    $2^{31}$ windows, these are the ones that `text` draws on the device, for every seed and step.
    Beyond, where `text` can't index them, they come from 64 random bits each.

    Stored runs know the file by its `digest`: SHA-256 of the tokens' type, their number,
    the vocabulary's size and 256 blocks of 64 KiB, evenly spaced from the file's beginning to its
    end. Another file, or one with tokens appended, is other data; a change between two blocks that
    leaves the size as it is goes unnoticed. It is not the digest of a
    [`Corpus`][scalex_eqx.experiments.Corpus]: the two routes don't share stored runs.

    **Arguments:**

    - `path`: a `.bin` file of little-endian `uint16` tokens, or a `.npy` file of a one-dimensional
        integer array. Its last tenth is held out.
    - `vocabulary_size`: every token is below it. It can't be found out without reading everything;
        each window is held against it when it is read.
    - the others: as for `text`.

    **Raises:** `UsageError` if the file can't be read, has a token beyond the vocabulary, or is
        written to while it is trained on.
    """
    settings = {
        "sequence_length": sequence_length,
        "batch_size": batch_size,
        "head_dimension": head_dimension,
        "held_out_windows": held_out_windows,
    }
    check_vocabulary_size(vocabulary_size)
    tokens = TokenFile(Path(path), vocabulary_size)
    name = shown(Path(path).name)
    check_one_window(name, "training", tokens.boundary, sequence_length)
    held_out = window_starts(
        name, tokens.count - tokens.boundary, count=held_out_windows, length=sequence_length
    )
    length = sequence_length + 1
    choices = tokens.boundary - length + 1

    def rebatched(size: int) -> Problem:
        check_batch(name, size, tokens.boundary, sequence_length)
        return token_file(path, vocabulary_size=vocabulary_size, **{**settings, "batch_size": size})

    def read(seed: int, step: int) -> Any:
        return tokens.windows(drawn_starts(seed, step, batch_size, choices), length)

    return language_model(
        vocabulary_size,
        settings,
        read=read,
        rebatched=rebatched,
        held_out=tokens.windows(tokens.boundary + held_out, length),
        name=name,
        digest=f"sampled:{tokens.digest}",
        tokens=tokens.count,
    )


def is_larger_than_memory(path: Path) -> bool:
    """Whether a file of tokens takes more than half of the memory that the machine has in all.

    What is free at the moment is no measure: the same command would find other data later.
    """
    memory = total()
    if memory is None or path.suffix not in (".bin", ".npy") or not path.is_file():
        return False
    return 2 * path.stat().st_size > memory


def drawn_starts(seed: int, step: int, batch_size: int, choices: int) -> Int[np.ndarray, " batch"]:
    """Where the windows of a step begin, each evenly drawn from 0 to `choices - 1`."""
    is_narrow = choices <= _NARROW
    draw = _narrow_draw if is_narrow else _wide_draw
    with jax.default_device(_host()):
        found = np.asarray(draw(seed, step, batch_size, choices if is_narrow else 0))
    if is_narrow:
        return found.astype(np.int64)
    high, low = found.astype(np.uint64)
    # The remainder favours small numbers by no more than choices / 2^64 of their share.
    return ((high << np.uint64(32) | low) % np.uint64(choices)).astype(np.int64)


@functools.partial(jax.jit, static_argnums=2)
def _narrow_draw(seed: Any, step: Any, batch_size: int, choices: Any) -> Any:
    key = jax.random.fold_in(data_key(seed), step)
    return jax.random.randint(key, (batch_size, 1), 0, choices)[:, 0]


@functools.partial(jax.jit, static_argnums=2)
def _wide_draw(seed: Any, step: Any, batch_size: int, choices: Any) -> Any:
    del choices
    return jax.random.bits(jax.random.fold_in(data_key(seed), step), (2, batch_size), "uint32")


@functools.cache
def _host() -> Any:
    """The CPU, or where JAX has none the device that it has."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return jax.local_devices()[0]
