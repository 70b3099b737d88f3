"""What a tree may hold comes back to the bit, and what can't is refused when it is saved."""

import enum
import tracemalloc
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import scalex_eqx as sx

# The dtypes that ml_dtypes adds to NumPy, whichever its version knows.
ADDED = sorted(
    name
    for name in dir(ml_dtypes)
    if isinstance(getattr(ml_dtypes, name), type) and name not in ("finfo", "iinfo")
)


def returned(folder: Path, tree: Any, like: Any) -> Any:
    sx.save(folder / "a.ckpt", tree)
    return sx.load(folder / "a.ckpt", like)


def assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if hasattr(expected, "dtype"):
        assert found.dtype == expected.dtype and found.shape == expected.shape
        # As bytes: NaNs, signs of zeros and unused bits too.
        assert np.asarray(found).tobytes() == np.asarray(expected).tobytes()
    else:
        assert repr(found) == repr(expected)


def test_the_added_dtypes_are_seen():
    assert {"bfloat16", "float8_e4m3fn", "float4_e2m1fn", "float6_e2m3fn", "int4"} <= set(ADDED)


@pytest.mark.parametrize("name", [*ADDED, "bool", "float16", "float64", "complex128", "uint8"])
def test_a_numpy_array_of_every_dtype(tmp_path: Path, name: str):
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    blank = np.zeros((2, 3), dtype)
    assert_same(returned(tmp_path, {"x": array}, {"x": blank})["x"], array)
    scalar = array[0, 1]
    if isinstance(scalar, np.generic):
        assert_same(returned(tmp_path, {"x": scalar}, {"x": blank[0, 0]})["x"], scalar)


@pytest.mark.parametrize(
    "name",
    [
        *("float32", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn"),
        *("int2", "int4", "uint4", "bool", "complex64"),
    ],
)
def test_a_jax_array(tmp_path: Path, name: str):
    for shape in ((2, 3), (), (0, 4)):
        array = jnp.ones(shape, name)
        blank = {"x": jnp.zeros(shape, name)}
        for like in (blank, eqx.filter_eval_shape(lambda blank=blank: blank)):
            assert_same(returned(tmp_path, {"x": array}, like)["x"], array)


NAN = np.array([0x7FC00001, 0xFF800000, 0x80000000], np.uint32).view(np.float32)
BASE = np.arange(24.0).reshape(4, 6)


@pytest.mark.parametrize(
    "array",
    [
        *(BASE.T, BASE[::2, ::-1], np.broadcast_to(BASE[0], (3, 6)), np.asfortranarray(BASE)),
        *(np.arange(3, dtype=">i4"), np.array(2.5, ">f8"), np.zeros((0, 3)), np.array(7), NAN),
        *(np.array(["a", "bcd"]), np.array([b"a"]), np.array(["2020-01-01"], "M8[D]")),
    ],
    ids=lambda array: f"{array.dtype}-{array.strides}",
)
def test_a_numpy_array_however_it_lies_in_memory(tmp_path: Path, array: np.ndarray):
    found = returned(tmp_path, [array], [np.zeros_like(array)])[0]
    assert_same(found, array)
    assert found.dtype.str == array.dtype.str and found.flags.writeable


def test_a_mapped_array(tmp_path: Path):
    mapped = np.memmap(tmp_path / "m", np.int16, "w+", shape=(5,))
    mapped[:] = np.arange(5)
    found = returned(tmp_path, [mapped], [np.zeros(5, np.int16)])[0]
    assert found.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("number", "like"),
    [
        *((True, False), (False, True), (3, 0), (-(10**5000), 0), (0.1, 0.0), (-0.0, 1.0)),
        *((float("nan"), 0.0), (float("-inf"), 0.0), (1e-320, 0.0), (1 + 2j, 0j), (-0.0 - 1j, 0j)),
    ],
    ids=lambda number: type(number).__name__,
)
def test_a_number(tmp_path: Path, number: Any, like: Any):
    found = returned(tmp_path, {"n": number}, {"n": like})["n"]
    assert type(found) is type(number)
    same = hex(found) == hex(number) if type(number) is int else repr(found) == repr(number)
    assert same


def test_a_number_of_an_enumeration(tmp_path: Path):
    class Phase(enum.IntEnum):
        warmup = 1
        decay = 2

    assert returned(tmp_path, [Phase.decay], [Phase.warmup]) == [Phase.decay]


def test_weak_types_stay(tmp_path: Path):
    """What `inject_hyperparams` keeps is weak, and mustn't widen a bfloat16 update afterwards."""
    tree = {"weak": jnp.asarray(0.1), "strong": jnp.asarray(0.1, jnp.float32)}
    like = {"weak": jnp.asarray(0.0), "strong": jnp.asarray(0.0, jnp.float32)}
    found = returned(tmp_path, tree, like)
    assert {name: x.weak_type for name, x in found.items()} == {"weak": True, "strong": False}
    assert found["weak"] == tree["weak"]


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_random_keys(tmp_path: Path, impl: str):
    keys = jax.random.split(jax.random.key(7, impl=impl), 3)
    blank = {"k": jax.random.split(jax.random.key(0, impl=impl), 3)}
    for like in (blank, eqx.filter_eval_shape(lambda: blank)):
        found = returned(tmp_path, {"k": keys}, like)["k"]
        assert found.dtype == keys.dtype
        assert np.array_equal(jax.random.key_data(found), jax.random.key_data(keys))
    with pytest.raises(ValueError, match="k: dtype is key<"):
        sx.load(tmp_path / "a.ckpt", {"k": jax.random.key_data(keys)})


def test_paths_that_read_the_same(tmp_path: Path):
    tree = {"a": {"b": np.arange(2)}, "a/b": np.arange(3)}
    found = returned(tmp_path, tree, jax.tree.map(np.zeros_like, tree))
    assert found["a"]["b"].tolist() == [0, 1] and found["a/b"].tolist() == [0, 1, 2]
    # The control: other shapes under those two paths are told apart.
    with pytest.raises(ValueError, match=r"shape is \[2\] in the file, \[3\] in the tree"):
        sx.load(tmp_path / "a.ckpt", {"a": {"b": np.arange(3)}, "a/b": np.arange(3)})


RECORD = np.zeros(2, [("x", "f4"), ("y", "i4")])


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (np.array([object()]), "leaf x/0: its dtype is object"),
        (RECORD, "leaf x/0: its dtype is .* convert it"),
        (np.array(["a"], np.dtypes.StringDType()), "leaf x/0: its dtype is StringDType"),
        (np.ones(2, np.longdouble), "leaf x/0: its dtype is float128"),
        (np.ma.masked_array([1, 2], [True, False]), "leaf x/0: it is a MaskedArray"),
        (jax.ShapeDtypeStruct((2,), "float32"), "leaf x/0: it is a shape without values"),
    ],
    ids=["object", "record", "string", "long double", "masked", "shape"],
)
def test_what_cannot_be_kept_is_refused_before_anything_is_written(
    tmp_path: Path, leaf: Any, message: str
):
    with pytest.raises(TypeError, match=message):
        sx.save(tmp_path / "a.ckpt", {"x": [leaf]})
    assert list(tmp_path.iterdir()) == []


def test_deleted_and_traced_arrays_are_refused(tmp_path: Path):
    x = jnp.ones(3)
    x.delete()
    with pytest.raises(ValueError, match="leaf x: its buffer was donated or deleted"):
        sx.save(tmp_path / "a.ckpt", {"x": x})
    with pytest.raises(TypeError, match="leaf x: it is traced"):
        jax.jit(lambda x: sx.save(tmp_path / "a.ckpt", {"x": x}))(jnp.ones(3))


def test_what_jax_would_round_is_refused(tmp_path: Path):
    sx.save(tmp_path / "a.ckpt", {"x": np.arange(2.0)})
    with pytest.raises(ValueError, match=r"leaf x: JAX makes float32 of float64; set jax_enable_"):
        sx.load(tmp_path / "a.ckpt", {"x": jax.ShapeDtypeStruct((2,), np.float64)})


def test_only_one_leaf_is_copied(tmp_path: Path):
    """Eight arrays of 4 MB: neither way holds two copies of them all."""
    tree = {f"x{i}": np.full(1 << 20, i, np.float32) for i in range(8)}
    like = {name: np.broadcast_to(np.float32(0), x.shape) for name, x in tree.items()}
    tracemalloc.start()
    sx.save(tmp_path / "a.ckpt", tree)
    saving = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    sx.load(tmp_path / "a.ckpt", like)
    loading = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert saving < 6e6
    # What is loaded has 33.6 MB.
    assert 33e6 < loading < 40e6
