"""What is loaded lies on the devices as its skeleton does, on meshes of eight devices."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys
os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=8"
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import scalex_eqx as sx


def numbers(x):
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x)


def assert_same(found, expected):
    for name, x in expected.items():
        assert found[name].sharding == x.sharding, name
        assert found[name].committed == x.committed, name
        assert jax.typeof(found[name]) == jax.typeof(x), name
        assert np.array_equal(numbers(found[name]), numbers(x)), name


kind = getattr(AxisType, sys.argv[2])
mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(kind, kind))


def put(x, *spec):
    return jax.device_put(x, NamedSharding(mesh, P(*spec)))


tree = {
    "both": put(jnp.arange(64.0).reshape(8, 8), "a", "b"),
    "one": put(jnp.arange(24.0).reshape(3, 8), None, ("b", "a")),
    "everywhere": put(jnp.arange(3.0)),
    "int4": put(jnp.arange(8, dtype="int4"), "a"),
    "keys": put(jax.random.split(jax.random.key(0), 8), "a"),
    "free": jnp.arange(3.0),
    "there": jax.device_put(jnp.arange(2.0), jax.devices()[3]),
}
path = sys.argv[1]
sx.save(path, tree)
# To save it leaves no copy of a sharded array in this process.
assert tree["both"]._npy_value is None
blank = {
    name: x if name in ("keys", "free") else jax.device_put(x * 0, x.sharding)
    for name, x in tree.items()
}
assert_same(sx.load(path, blank), tree)
shapes = {
    name: jax.ShapeDtypeStruct(
        x.shape, x.dtype, sharding=x.sharding if x.committed else None
    )
    for name, x in tree.items()
}
assert_same(sx.load(path, shapes), tree)

# Arrays of one device go onto a mesh, and back.
loose = {name: jnp.asarray(numbers(x)) for name, x in tree.items() if name != "keys"}
sx.save(path, loose)
meshed = {name: x for name, x in tree.items() if name != "keys"}
assert_same(sx.load(path, meshed), meshed)
sx.save(path, meshed)
assert_same(sx.load(path, loose), loose)

if kind is AxisType.Explicit:
    # The types of explicit meshes say where an array is, without the devices.
    sx.save(path, {"both": tree["both"]})
    shapes = eqx.filter_eval_shape(lambda: {"both": tree["both"]})
    with jax.set_mesh(mesh):
        assert_same(sx.load(path, shapes), {"both": tree["both"]})
    for other in (jax.sharding.get_mesh(), jax.make_mesh((8,), ("a",))):
        try:
            with jax.set_mesh(other):
                sx.load(path, shapes)
        except ValueError as error:
            assert "leaf both: its sharding P('a', 'b') is over a mesh without" in str(error)
        else:
            raise AssertionError("loaded without its mesh")

# The law of a model goes with it, sharded or not.
model = sx.parameterize(
    lambda width: sx.nn.MLP(8, width, 8, key=jax.random.key(0)),
    width=16, base_width=8, parameterization=sx.mup,
)
model = jax.tree.map(lambda x: put(x, "a") if eqx.is_array(x) else x, model)
sx.save(path, model)
found = sx.load(path, model)
assert found.up.weight.value.sharding == model.up.weight.value.sharding
print("done")
"""


@pytest.mark.parametrize("kind", ["Explicit", "Auto"])
def test_sharding_is_kept(tmp_path: Path, kind: str):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "a.ckpt"), kind]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.stdout == "done\n", run.stderr
