"""The tokens that the language models train on.

Text is read byte by byte, so that a vocabulary needs no tokenizer: by default it is the Python
standard library's own source, which is real, large enough and always there. Files of tokens
from elsewhere are read as they are.
"""

import hashlib
import os
import sysconfig
import tokenize
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
from jaxtyping import Int

from .._memory import available, in_words
from .._usage import UsageError, shown

BYTES = 256
_LARGEST_VOCABULARY = 2**31 - 1
_SNIFFED_BYTES = 8192
_KINDS = "a UTF-8 text file, a folder of them, a .bin file of uint16 tokens or a .npy array"
# Installed packages are no part of the library, and its tests are often not installed.
_SKIPPED = ("site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test")
# Written when an interpreter is built or set up, so they differ between machines.
_BUILD_SPECIFIC = ("config-", "_sysconfigdata", "_sysconfig_vars", "sitecustomize.")


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text as tokens: what is trained on, and what every run is judged on.

    **Arguments:**

    - `tokens`: one-dimensional and read-only; `uint8`, `uint16` or `int32`, the narrowest that
        holds the vocabulary.
    - `vocabulary_size`: every token is below it.
    - `name`: for people to read.
    - `digest`: SHA-256 of the tokens, their type and the vocabulary's size. Equal digests mean
        equal data, wherever it was read from.
    """

    tokens: np.ndarray = field(repr=False)
    vocabulary_size: int
    name: str
    digest: str

    @property
    def train(self) -> np.ndarray:
        """The first nine tenths, from which training windows are drawn."""
        return self.tokens[: self._boundary]

    @property
    def held_out(self) -> np.ndarray:
        """The last tenth, never seen in training."""
        return self.tokens[self._boundary :]

    @property
    def _boundary(self) -> int:
        return len(self.tokens) * 9 // 10


def corpus_of_tokens(tokens: np.ndarray, *, vocabulary_size: int, name: str) -> Corpus:
    """A corpus of tokens that are known to lie within the vocabulary."""
    # One type per vocabulary size: the digest then does not depend on the kind of file.
    narrow = tokens.astype(_narrowest_type(vocabulary_size), copy=False).view(np.ndarray)
    narrow.flags.writeable = False
    return Corpus(narrow, vocabulary_size, name, _digest(narrow, vocabulary_size))


def load_corpus(source: Path | str | None, *, vocabulary_size: int | None = None) -> Corpus:
    """Reads the text or the tokens to train on.

    **Arguments:**

    - `source`: a text file or a folder of text files, read as bytes; a `.bin` file of
        little-endian `uint16` tokens; a `.npy` file of a one-dimensional integer array; `None`
        for the Python standard library's source. In a folder, hidden files and files that are
        not UTF-8 text are left out.
    - `vocabulary_size`: for files of tokens only; otherwise one more than the largest token.

    **Returns:**

    A [`Corpus`][scalex_eqx.experiments.Corpus]. Anything that cannot be trained on raises
    `UsageError`.
    """
    if isinstance(source, str) and not source:
        raise UsageError(f"data '' is an empty name; expected {_KINDS}")
    path = Path(sysconfig.get_path("stdlib") if source is None else source)
    with readable(path):
        # A missing path is reported with the reason that the system gives.
        path.stat()
        if path.suffix in (".bin", ".npy") and path.is_file():
            return _token_corpus(path, vocabulary_size)
        if vocabulary_size is not None:
            raise UsageError(
                f"data {shown(path)} is read as bytes, whose vocabulary size is {BYTES}, not "
                f"{vocabulary_size}; leave out --vocabulary-size"
            )
        return _standard_library(path) if source is None else _text_corpus(path)


def held_out_windows(corpus: Corpus, *, count: int, length: int) -> np.ndarray:
    """Windows of the held-out part, evenly spaced, disjoint and the same for every run.

    **Arguments:**

    - `count`: how many windows are wanted; fewer are returned if fewer fit without overlap.
    - `length`: the number of predicted tokens in each.

    **Returns:**

    An `int32` array of shape `[windows, length + 1]`.
    """
    held_out = corpus.held_out
    starts = window_starts(corpus.name, len(held_out), count=count, length=length)
    return held_out[starts[:, None] + np.arange(length + 1)].astype(np.int32)


def window_starts(
    name: str, held_out: int, *, count: int, length: int
) -> Int[np.ndarray, " windows"]:
    """Where the windows of a held-out part begin in it.

    **Raises:** `UsageError` unless one window of `length + 1` tokens is asked for, and fits.
    """
    if count < 1:
        raise UsageError(f"{count} held-out windows were asked for; expected at least 1")
    check_one_window(name, "held-out", held_out, length)
    fitting = min(count, held_out // (length + 1))
    return np.arange(fitting) * held_out // fitting


def check_parts(corpus: Corpus, *, length: int) -> None:
    """Raises `UsageError` unless both parts hold a window of `length + 1` tokens."""
    check_one_window(corpus.name, "training", len(corpus.train), length)
    check_one_window(corpus.name, "held-out", len(corpus.held_out), length)


def check_one_window(name: str, part: str, available: int, length: int) -> None:
    """Refuses a part that holds no window of `length + 1` tokens."""
    if length < 1:
        raise UsageError(f"sequence length {length}; expected at least 1: --sequence-length")
    if available < length + 1:
        raise UsageError(
            f"data {name}: its {part} part has {available} tokens, one window needs "
            f"{length + 1}; give more text or a smaller --sequence-length"
        )


def check_batch(name: str, batch_size: int, available: int, length: int) -> None:
    """Refuses a batch that predicts more tokens than there are to train on."""
    if batch_size * length > available:
        raise UsageError(
            f"data {name}: a batch of {batch_size} x {length} tokens is more than the {available} "
            "of its training part; give more text or smaller batches"
        )


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What the system refuses becomes a `UsageError` with its reason."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"data {shown(error.filename or path)} cannot be read: {error.strerror}; expected "
            f"{_KINDS}; check the path and its permissions"
        ) from error


def _standard_library(root: Path) -> Corpus:
    def is_skipped(name: str) -> bool:
        return name in _SKIPPED or name.startswith(_BUILD_SPECIFIC)

    paths = [path for path in _files_below(root, is_skipped) if path.suffix == ".py"]
    check_fits(root, sum(path.stat().st_size for path in paths))
    texts = [text for text in map(Path.read_bytes, paths) if text]
    if not texts:
        raise UsageError(
            f"this Python has no source of its standard library at {shown(root)}; name a "
            "text with --data"
        )
    version = sysconfig.get_python_version()
    return _byte_corpus(texts, f"Python {version} standard library, {len(texts)} files")


def _text_corpus(path: Path) -> Corpus:
    if path.is_dir():
        return _folder_corpus(path)
    if path.is_file():
        check_fits(path, path.stat().st_size)
    text = _read_text(path) if path.is_file() else None
    if text is None:
        raise UsageError(
            f"data {shown(path)} is of a kind that cannot be read; expected {_KINDS}; convert it "
            "to one of these"
        )
    if not text:
        raise UsageError(
            f"data {shown(path)} is empty; expected text; name another file with --data"
        )
    return _byte_corpus([text], shown(path.name))


def _folder_corpus(root: Path) -> Corpus:
    paths = _files_below(root, lambda name: name.startswith("."))
    check_fits(root, sum(path.stat().st_size for path in paths))
    found = [_read_text(path) for path in paths]
    texts = [text for text in found if text]
    if not texts:
        raise UsageError(
            f"data folder {shown(root)} holds no text; expected UTF-8 text in one of its "
            f"{len(paths)} files; name another with --data"
        )
    # A folder of token files may hold a script or two: the name shows what was not read.
    skipped, plural = found.count(None), "s" if len(texts) > 1 else ""
    note = f" ({skipped} not text, left out)" if skipped else ""
    return _byte_corpus(texts, f"{shown(root.resolve().name)}, {len(texts)} file{plural}{note}")


def _files_below(root: Path, is_skipped: Callable[[str], bool]) -> list[Path]:
    def stop(error: OSError) -> NoReturn:
        raise error

    paths: list[Path] = []
    for folder, folders, files in os.walk(root, onerror=stop):
        folders[:] = [name for name in folders if not is_skipped(name)]
        paths.extend(Path(folder, name) for name in files if not is_skipped(name))

    # In alphabetical order the held-out tenth would be one subject, here xml to zipfile.
    def place(path: Path) -> bytes:
        relative = path.relative_to(root).as_posix()
        return hashlib.sha256(relative.encode("utf-8", "surrogateescape")).digest()

    return sorted(filter(Path.is_file, paths), key=place)


def _read_text(path: Path) -> bytes | None:
    """The bytes of a UTF-8 text, and `None` for any other file."""
    with path.open("rb") as file:
        start = file.read(_SNIFFED_BYTES)
        # Most binary files are known by their beginning, and may be too large to read.
        if b"\0" in start:
            return None
        text = start + file.read()
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if b"\0" in text else text


def _byte_corpus(texts: Iterable[bytes], name: str) -> Corpus:
    tokens = np.frombuffer(b"\n".join(texts), dtype=np.uint8)
    return corpus_of_tokens(tokens, vocabulary_size=BYTES, name=name)


def _token_corpus(path: Path, vocabulary_size: int | None) -> Corpus:
    tokens = _read_bin(path) if path.suffix == ".bin" else _read_npy(path)
    if len(tokens) == 0:
        raise UsageError(f"data {shown(path)} is empty; expected tokens; name another with --data")
    if vocabulary_size is None:
        _check_range(path, tokens, _LARGEST_VOCABULARY)
        size = int(tokens.max()) + 1
        name = f"{shown(path.name)} (vocabulary size {size}: one more than its largest token)"
        return corpus_of_tokens(tokens, vocabulary_size=size, name=name)
    check_vocabulary_size(vocabulary_size)
    _check_range(path, tokens, vocabulary_size)
    return corpus_of_tokens(tokens, vocabulary_size=vocabulary_size, name=shown(path.name))


def check_vocabulary_size(size: int) -> None:
    """Refuses a size that no token's type has."""
    if not 1 <= size <= _LARGEST_VOCABULARY:
        raise UsageError(
            f"vocabulary size {size}; expected 1 to {_LARGEST_VOCABULARY}: --vocabulary-size"
        )


def _read_bin(path: Path) -> np.ndarray:
    size = path.stat().st_size
    if size % 2:
        raise UsageError(
            f"data {shown(path)} has an odd number of bytes, {size}; expected little-endian uint16 "
            "tokens, two bytes each; rename it if it is text, or write it again"
        )
    return _read_tokens(path, np.dtype("<u2"), size // 2, offset=0)


def _read_tokens(path: Path, dtype: np.dtype, count: int, *, offset: int) -> np.ndarray:
    """Read as a whole: all devices get a copy in any case, and a mapped file that changes while
    it is trained on would change the text behind the digest, or end the process."""
    check_fits(path, dtype.itemsize * count)
    tokens = np.fromfile(path, dtype, count, offset=offset)
    if len(tokens) < count:
        raise UsageError(
            f"data {shown(path)} became shorter while it was read; start again when it is whole"
        )
    return tokens


def check_fits(path: Path, size: int) -> None:
    """Refuses a file, or a folder, that memory has no room for."""
    free = available()
    if free is not None and size > free:
        raise UsageError(
            f"data {shown(path)} has {in_words(size)}, and {in_words(free)} of memory are free; "
            "give a part of it"
        )


def _read_npy(path: Path) -> np.ndarray:
    mapped = npy_header(path)
    check_kind(path, mapped)
    return _read_tokens(path, mapped.dtype, mapped.size, offset=mapped.offset)


def npy_header(path: Path) -> np.memmap:
    """The array of a file, mapped and not read."""
    try:
        # Unlike `numpy.load`, this neither unpickles nor opens archives. It reads the header, and
        # holds it against the file's size.
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, OverflowError, SyntaxError, tokenize.TokenError) as error:
        raise UsageError(
            f"data {shown(path)} is not a readable .npy file: {error}; write it with numpy.save"
        ) from error


def check_kind(path: Path, tokens: np.ndarray) -> None:
    """Refuses what is no list of integers."""
    if tokens.ndim != 1:
        raise UsageError(
            f"data {shown(path)} has shape {tokens.shape}; expected a one-dimensional array of "
            "integers; save tokens.reshape(-1)"
        )
    if not np.issubdtype(tokens.dtype, np.integer):
        raise UsageError(
            f"data {shown(path)} holds {tokens.dtype}; expected integers; save "
            "tokens.astype('int32')"
        )


def _check_range(path: Path, tokens: np.ndarray, size: int) -> None:
    if int(tokens.min()) >= 0 and int(tokens.max()) < size:
        return
    position = int(np.argmax((tokens < 0) | (tokens >= size)))
    raise UsageError(
        f"data {shown(path)}: token {tokens[position]} at position {position} lies outside 0 to "
        f"{size - 1}; correct the file, or --vocabulary-size"
    )


def _narrowest_type(vocabulary_size: int) -> type[np.integer]:
    if vocabulary_size <= 2**8:
        return np.uint8
    return np.uint16 if vocabulary_size <= 2**16 else np.int32


def _digest(tokens: np.ndarray, vocabulary_size: int) -> str:
    digest = hashlib.sha256(f"{tokens.dtype.name} {vocabulary_size} ".encode())
    # Hashed in place: there may be many.
    digest.update(np.ascontiguousarray(tokens, dtype=tokens.dtype.newbyteorder("<")).data)
    return digest.hexdigest()
