import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalex_eqx._usage import UsageError
from scalex_eqx.problems._corpus import load_corpus


def check_error(path: Path | str | None, *parts: str, vocabulary_size: int | None = None):
    """One line that holds all the parts, in this order."""
    with pytest.raises(UsageError) as caught:
        load_corpus(path, vocabulary_size=vocabulary_size)
    message = str(caught.value)
    assert "\n" not in message
    assert re.search(".*".join(map(re.escape, parts)), message), message


@pytest.mark.parametrize("name", ["missing", "missing.txt", "missing.bin", "missing.npy"])
@pytest.mark.parametrize("vocabulary_size", [None, 10])
def test_missing_path(tmp_path, name, vocabulary_size):
    path = tmp_path / name
    check_error(path, str(path), "No such file", "check", vocabulary_size=vocabulary_size)


def test_empty_name():
    check_error("", "data ''", "expected a UTF-8 text file")


def test_empty_file_or_folder(tmp_path):
    for name in ("a.txt", "a.bin"):
        (tmp_path / name).touch()
        check_error(tmp_path / name, name, "is empty", "--data")
    np.save(tmp_path / "a.npy", np.zeros(0, np.int64))
    check_error(tmp_path / "a.npy", "a.npy", "is empty", "--data")
    check_error(tmp_path, f"data folder {tmp_path} holds no text", "3 files", "--data")


def test_unreadable_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("text")

    opened = Path.open

    def refuse(self: Path, *arguments: Any, **more: Any):
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", refuse)
    check_error(path, str(path), "Permission denied", "permissions")
    check_error(tmp_path, str(path), "Permission denied", "permissions")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_unreadable_folder_is_not_skipped(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "closed").mkdir(mode=0)
    check_error(tmp_path, "closed", "Permission denied")


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08\0", b"\xff\xfe", b"caf\xe9", b"PK\3\4\0"])
def test_unknown_kind_of_file(tmp_path, content):
    path = tmp_path / "a.gz"
    path.write_bytes(content)
    check_error(path, str(path), "kind", "expected a UTF-8 text file", "convert")


def test_neither_file_nor_folder(tmp_path):
    os.mkfifo(tmp_path / "pipe.bin")
    check_error(tmp_path / "pipe.bin", "pipe.bin", "kind", "expected")


@pytest.mark.parametrize("size", [256, 1000])
def test_vocabulary_size_of_bytes(tmp_path, size):
    (tmp_path / "a.txt").write_text("text")
    for path in (tmp_path, tmp_path / "a.txt", None):
        parts = ("read as bytes", "is 256", f"not {size}", "--vocabulary-size")
        check_error(path, *parts, vocabulary_size=size)


def test_bin_of_half_a_token(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"\0\1\2")
    check_error(tmp_path / "a.bin", "a.bin", "odd number of bytes, 3", "uint16")


@pytest.mark.parametrize("size", [0, -1, 2**31])
def test_vocabulary_size_that_cannot_be(tmp_path, size):
    (tmp_path / "a.bin").write_bytes(b"\0\0")
    parts = (f"vocabulary size {size}", "expected 1 to 2147483647", "--vocabulary-size")
    check_error(tmp_path / "a.bin", *parts, vocabulary_size=size)


@pytest.mark.parametrize(
    ("values", "dtype", "parts"),
    [
        ([[1, 2], [3, 4]], "int64", ["shape (2, 2)", "one-dimensional", "reshape(-1)"]),
        (3, "int64", ["shape ()", "one-dimensional"]),
        ([1.0, 2.0], "float32", ["float32", "expected integers", "astype"]),
        ([True], "bool", ["bool", "expected integers"]),
        (["a"], "U1", ["<U1", "expected integers"]),
        ([None], "object", ["not a readable .npy file", "numpy.save"]),
        ([5, 2, -3, -4], "int64", ["token -3 at position 2", "0 to 2147483646"]),
        ([0, 2**31], "int64", ["token 2147483648 at position 1", "0 to 2147483646"]),
        ([0, 2**63], "uint64", ["token 9223372036854775808 at position 1"]),
    ],
)
def test_npy_that_is_not_tokens(tmp_path, values, dtype, parts):
    path = tmp_path / "a.npy"
    np.save(path, np.asarray(values, dtype))
    check_error(path, str(path), *parts)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\3\4" * 9, b"\x93NUMPY\1\0"])
def test_npy_that_is_something_else(tmp_path, content):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    check_error(path, str(path), "not a readable .npy file", "numpy.save")


def test_npy_that_is_cut_off(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(1000))
    path.write_bytes(path.read_bytes()[:5000])
    check_error(path, str(path), "not a readable .npy file")


def test_pickled_arrays_are_not_run(tmp_path):
    path, witness = tmp_path / "a.npy", tmp_path / "witness"

    class Touch:
        def __reduce__(self):
            return Path.touch, (witness,)

    np.save(path, np.array([Touch()], dtype=object), allow_pickle=True)
    check_error(path, "not a readable .npy file")
    assert not witness.exists()


def test_token_beyond_the_vocabulary(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(np.array([4, 9, 10, 11], "<u2").tobytes())
    parts = ("a.bin", "token 10 at position 2", "outside 0 to 9", "--vocabulary-size")
    check_error(path, *parts, vocabulary_size=10)
    assert load_corpus(path, vocabulary_size=12).vocabulary_size == 12
