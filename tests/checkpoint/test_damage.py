"""A file that isn't what was written is refused, with its name and what is wrong."""

import importlib.util
import json
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx

TREE = {"x": jnp.arange(4.0), "y": {"z": np.arange(3, dtype=np.int16)}, "n": 2}
MAGIC = b"scalex_eqx checkpoint 2\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    sx.save(tmp_path / "a.ckpt", TREE)
    return tmp_path / "a.ckpt"


@pytest.fixture(scope="module")
def robustness() -> ModuleType:
    file = Path(__file__).parents[1] / "robustness/bit_flips.py"
    spec = importlib.util.spec_from_file_location("bit_flips", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def refusal(path: Path, like: Any = TREE) -> str:
    with pytest.raises(ValueError) as caught:
        sx.load(path, like)
    message = str(caught.value)
    assert str(path) in message.split("\n")[0]
    return message


def rewritten(path: Path, change: Any) -> None:
    """Changes the header, and its checksums with it, as someone would who wants to do harm."""
    data = path.read_bytes()
    size = int.from_bytes(data[24:32], "little")
    header = json.loads(data[32 : 32 + size])
    change(header)
    text = json.dumps(header).encode()
    head = MAGIC + len(text).to_bytes(8, "little") + text
    checksum = zlib.crc32(head).to_bytes(4, "little")
    rest = data[36 + size :]
    sums = rest[-12:-4]
    last = zlib.crc32(checksum + sums).to_bytes(4, "little")
    path.write_bytes(head + checksum + rest[:-4] + last)


def test_the_file_is_as_documented(path: Path):
    """Read here without the library: header, arrays one behind the other, checksums."""
    data = path.read_bytes()
    size = int.from_bytes(data[24:32], "little")
    header = json.loads(data[32 : 32 + size])
    assert data.startswith(MAGIC) and set(header) == {"leaves", "exported"}
    assert list(header["leaves"]) == ["n", "x", "y/z"]
    assert header["leaves"]["n"] == {"type": "int", "value": "0x2"}
    assert header["leaves"]["y/z"] == {"type": "array", "shape": [3], "dtype": "int16"}
    x, z = np.arange(4, dtype="<f4").tobytes(), np.arange(3, dtype="<i2").tobytes()
    sums = [zlib.crc32(part).to_bytes(4, "little") for part in (data[: 32 + size], x, z)]
    last = zlib.crc32(b"".join(sums)).to_bytes(4, "little")
    assert data[32 + size :] == sums[0] + x + z + sums[1] + sums[2] + last


def test_every_bit_of_a_file_is_checked(path: Path):
    """Every byte of the small file, one bit of each."""
    data = path.read_bytes()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        refusal(path)


def test_every_length_but_one_is_refused(path: Path):
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        refusal(path)
    for more in (b"\n", b"\0" * 4, data):
        path.write_bytes(data + more)
        assert f"is damaged: {len(more):,} bytes stand behind its end" in refusal(path)


def test_damage_to_models(tmp_path: Path, robustness: ModuleType):
    """A small part of what `tests/robustness/bit_flips.py` does."""
    found = robustness.run(40, tmp_path, ["MLP, muP, adamw", "arrays of many dtypes"])
    assert set(found) == {"bit in an array", "bit elsewhere", "cut off", "more behind the end"}
    assert all(set(outcomes) == {"refused"} for outcomes in found.values())


def test_the_damaged_leaf_is_named(path: Path):
    data = bytearray(path.read_bytes())
    data[-13] ^= 4
    path.write_bytes(data)
    message = refusal(path)
    assert "the bytes of leaf y/z are not those that were written" in message
    assert message.endswith("docs/checkpoints.md#a-damaged-file")


def test_two_files_with_one_header_do_not_mix(path: Path, tmp_path: Path):
    """As two writers would mix them: the arrays of one, the checksums of another."""
    sx.save(tmp_path / "b.ckpt", {**TREE, "x": jnp.ones(4)})
    one, other = path.read_bytes(), (tmp_path / "b.ckpt").read_bytes()
    assert len(one) == len(other)
    path.write_bytes(one[:-30] + other[-30:])
    refusal(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h["leaves"]["x"].update(shape=[1 << 60]), "bytes are missing"),
        (lambda h: h["leaves"]["x"].update(shape=[-4]), "header is malformed"),
        (lambda h: h["leaves"]["x"].update(shape=[True]), "header is malformed"),
        (lambda h: h["leaves"]["x"].update(dtype="object"), "header is malformed"),
        (lambda h: h["leaves"]["x"].update(dtype="V4"), "header is malformed"),
        (lambda h: h["leaves"]["x"].update(dtype=">f4"), "header is malformed"),
        (lambda h: h["leaves"]["x"].update(dtype="int32"), "x: dtype is int32 in the file, float"),
        (lambda h: h["leaves"]["x"].update(shape=[2, 2]), r"x: shape is [2, 2] in the file, [4]"),
        (lambda h: h["leaves"]["n"].update(value="import os"), "leaf n: invalid literal for int"),
        (lambda h: h["leaves"]["n"].update(value=3), "header is malformed"),
        (lambda h: h.update(leaves=[]), "header is malformed"),
        (lambda h: h.pop("exported"), "header is malformed"),
        (lambda h: h["exported"].update(version=2), "have version 2; this scalex_eqx knows"),
        (lambda h: h["exported"].update(sizes={}), "have the parts sizes"),
        (lambda h: h["exported"].update(laws=[]), "malformed at 'laws'"),
    ],
)
def test_a_made_up_header(path: Path, change: Any, message: str):
    rewritten(path, change)
    assert message in refusal(path)


def test_the_header_may_be_written_anew(path: Path):
    """The control: what makes the headers above fail is what was changed in them."""
    rewritten(path, lambda _: None)
    assert sx.load(path, TREE)["n"] == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"hello", "its first bytes are others"),
        (b"PK\x03\x04" + bytes(99), "numpy.savez or torch.save"),
        (b"\x93NUMPY\x01\x00", "equinox.tree_serialise_leaves"),
        (b"\x80\x05cos\nsystem\n", "pickle, which is never read here"),
        (b"\x10\0\0\0\0\0\0\0{}", "safetensors"),
        (b"\x1f\x8b" + bytes(9), "gzip; unpack it first"),
        (b'{"format": "another"}\n', "its first bytes are others"),
        (b"scalex_eqx checkpoint 3\n" + bytes(99), "has checkpoint format 3; this scalex_eqx rea"),
        (b"scalex_eqx checkpoint 12\n", "has checkpoint format 12"),
        (MAGIC, "it ends after 24 bytes, within its header"),
        (MAGIC + b"\xff" * 8 + bytes(99), "within its header"),
        (MAGIC + b"\xff" * 7 + b"\x7f", "within its header"),
        (b'{"format": "scalex_eqx checkpoint 1", "laws": ' + b"[" * 10**5, "header is malformed"),
        (b'{"format": "scalex_eqx checkpoint 1"}\n', "header is malformed"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "a").write_bytes(content)
    assert message in refusal(tmp_path / "a")


def test_what_is_no_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"give the path of a file.*nowhere"):
        sx.load(tmp_path / "nowhere", TREE)
    with pytest.raises(IsADirectoryError, match="expected a file; Orbax writes folders"):
        sx.load(tmp_path, TREE)
    with pytest.raises(ValueError, match="is not a checkpoint"):
        sx.load("/dev/null", TREE)


def test_a_file_that_may_not_be_read(path: Path, monkeypatch: pytest.MonkeyPatch):
    def forbidden(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", forbidden)
    with pytest.raises(PermissionError, match=r"Permission denied: expected a file .* may be read"):
        sx.load(path, TREE)
