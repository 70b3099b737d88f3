"""A batch that is split over eight devices gives the statistics of one device."""

import os
import subprocess
import sys

CODE = """
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import scalex_eqx as sx

assert jax.device_count() == 8
model = sx.nn.MLP(8, 16, 4, use_bias=True, key=jax.random.key(0))
xs = jax.random.normal(jax.random.key(1), (16, 3, 8))

def loss(model, x):
    return jnp.mean(jax.vmap(model)(x) ** 2)

def statistics(method):
    return eqx.filter_jit(
        lambda model, xs: sx.gradient_statistics(
            loss, model, xs, statistics=("square", "norm"), method=method
        )
    )

mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
split = jax.device_put(xs, NamedSharding(mesh, PartitionSpec("batch")))
for method in (None, "vmap"):
    call = statistics(method)
    one, eight = call(model, xs), call(model, split)
    for x, y in zip(jax.tree.leaves(eight), jax.tree.leaves(one), strict=True):
        # Sums of 48 terms in another order, 2^-24 each.
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)
print("ok")
"""


def test_eight_devices():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, env=environment
    )
    assert run.stdout.strip() == "ok", run.stderr[-2000:]
