"""Files of the format before are read; `format1.ckpt` was written by the version that had it."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.optim._stateless import StatelessState

FILE = Path(__file__).with_name("format1.ckpt")
NUMPY = ("bfloat16", "float8_e5m2", "float8_e4m3fn", "int4", "float4_e2m1fn")


def make(width: int) -> Any:
    return sx.nn.MLP(2, width, 3, key=jax.random.key(0))


def blank(parameterization: Any = sx.mup) -> dict[str, Any]:
    model = sx.parameterize(make, width=8, base_width=4, parameterization=parameterization)
    tx = sx.sgd(optax.constant_schedule(0.1), momentum=0.9)
    return {
        "model": model,
        "state": tx.init(eqx.filter(model, eqx.is_inexact_array)),
        "key": jax.random.key(0),
        "step": 0,
        "loss": 0.0,
        "done": False,
        "numpy": {name: np.zeros(4, name) for name in NUMPY},
        "float8": jnp.zeros(3, "float8_e4m3fn"),
        "int4": jnp.zeros(3, "int4"),
        "half": jnp.zeros(3, "bfloat16"),
        "fortran": np.zeros((3, 2)),
        "big": np.zeros(3, ">i4"),
    }


def assert_as_written(found: dict[str, Any]) -> None:
    """The numbers that the file was made of, after one step with a gradient of ones."""
    for layer, shape in (("up", (8, 2)), ("down", (3, 8))):
        value = getattr(found["model"], layer).weight.value
        assert np.array_equal(value, np.arange(np.prod(shape)).reshape(shape))
        assert np.array_equal(getattr(found["state"][0].trace, layer).weight.value, np.ones(shape))
    assert found["state"][-1].count == 1
    assert np.array_equal(jax.random.key_data(found["key"]), jax.random.key_data(jax.random.key(3)))
    assert (found["step"], found["loss"], found["done"]) == (7, 0.5, True)
    for name in NUMPY:
        expected = np.arange(4).astype(name)
        assert found["numpy"][name].dtype == expected.dtype
        assert found["numpy"][name].tobytes() == expected.tobytes()
    for name in ("float8", "int4", "half"):
        assert np.array_equal(np.asarray(found[name]).astype(int), [0, 1, 2])
    assert np.array_equal(found["fortran"], np.arange(6.0).reshape(2, 3).T)
    assert found["big"].dtype.str == ">i4" and found["big"].tolist() == [0, 1, 2]


def test_a_file_of_format_1_is_read():
    """Also its bfloat16, float8 and int4 arrays of NumPy, which that version could not read."""
    assert_as_written(sx.load(FILE, blank()))


def test_it_is_read_into_shapes_and_saved_anew(tmp_path: Path):
    like = blank()
    shapes = eqx.filter_eval_shape(lambda: like["model"])
    found = sx.load(FILE, {**like, "model": shapes})
    assert_as_written(found)
    sx.save(tmp_path / "a.ckpt", found)
    assert_as_written(sx.load(tmp_path / "a.ckpt", like))


def test_a_part_without_arrays_may_have_come_into_the_chain():
    like = blank()
    momentum, width, rate = like["state"]
    longer = (momentum, StatelessState(width.rule), width, rate)
    found = sx.load(FILE, {**like, "state": longer})
    assert len(found["state"]) == 4
    assert_as_written(found)
    # The control: a part with an array, or one in front that moves the laws, is refused.
    with pytest.raises(ValueError, match="state/1/count: only in the tree"):
        sx.load(FILE, {**like, "state": (momentum, rate, width, rate)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda like: blank(sx.ntk), "parameterization is mup in the file, ntk in the tree"),
        (lambda like: {**like, "half": jnp.zeros(4, "bfloat16")}, r"half: shape is \[3\] in the"),
        (lambda like: {**like, "half": jnp.zeros(3)}, "half: dtype is bfloat16 in the file, floa"),
        (lambda like: {**like, "more": jnp.zeros(3)}, "more: only in the tree"),
        (lambda like: {**like, "step": 0.5}, "is damaged: leaf step: an array of dtype int64"),
    ],
)
def test_another_tree_is_refused(change: Any, message: str):
    with pytest.raises(ValueError, match=message):
        sx.load(FILE, change(blank()))


def test_what_can_be_seen_of_damage_is_seen(tmp_path: Path):
    """Cut off anywhere, or with more behind the end. It has no checksums."""
    data, like, path = FILE.read_bytes(), blank(), tmp_path / "a"
    for changed in (data + b"\0", *(data[:n] for n in range(40, len(data), 97))):
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=f"{path} is damaged"):
            sx.load(path, like)
