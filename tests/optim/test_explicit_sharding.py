"""Weights that are split over devices by axes of explicit sharding, `jax.make_mesh`'s default.

The number of devices is fixed when JAX starts, so that the rules run in a process of their own.
"""

import os
import subprocess
import sys

# Every rule trains split weights and the same ones on one device; a line for each that differs.
SCRIPT = """
import jax, jax.numpy as jnp, numpy as np, optax
import types
from fractions import Fraction
from jax.sharding import NamedSharding, PartitionSpec as P
import scalex_eqx as sx
from scalex_eqx.optim._catalogue import catalogue

MESH = jax.make_mesh((8,), ("d",))
rng = np.random.default_rng(0)

def weight(shape, fan_in, fan_out, role):
    spec = sx.WeightSpec(fan_in, fan_out, 1.0, sx.Role(role), sx.mup, Fraction(4))
    return sx.Weight(jnp.asarray(rng.normal(size=shape), jnp.float32), spec)

PARAMS = {
    "rows": weight((8, 3), (-1,), (-2,), "hidden"),
    "columns": weight((3, 8), (-1,), (-2,), "readout"),
    "stack": weight((8, 3, 4), (-1,), (-2,), "hidden"),
    "vector": weight((8,), (), (-1,), "vector"),
    "whole": weight((3, 4), (-1,), (-2,), "hidden"),
}
SPLIT = {"rows": P("d"), "columns": P(None, "d"), "stack": P("d"), "vector": P("d"), "whole": P()}
OPTIONS = {
    "adamw": {"weight_decay": 0.1, "decay_mode": "coupled"},
    "sgd": {"momentum": 0.9},
    "adafactor": {"min_factored_size": 3},
}
RULES = {
    **{name: entry.maker(0.01, **OPTIONS.get(name, {})) for name, entry in catalogue.items()},
    "clip": optax.chain(sx.clip_by_effective_norm(1.0), sx.optim.clip_by_rms(0.1), sx.sgd(0.01)),
    "skip": sx.optim.skip_nonfinite(sx.adam(0.01)),
    "master": sx.optim.low_precision(sx.adam(0.01), "master"),
    "kahan": sx.optim.low_precision(sx.adam(0.01), "kahan"),
    "stochastic": sx.optim.low_precision(sx.adam(0.01), "stochastic", key=jax.random.key(0)),
}
NARROW = ("master", "kahan", "stochastic")

def put(tree):
    return {
        name: jax.tree.map(lambda x: jax.device_put(x, NamedSharding(MESH, SPLIT[name])), w)
        for name, w in tree.items()
    }

def parameters(name):
    dtype = jnp.bfloat16 if name in NARROW else jnp.float32
    return jax.tree.map(lambda x: x.astype(dtype), PARAMS)

def train(tx, params):
    grads = jax.tree.map(lambda w: (0.5 * w + 1).astype(w.dtype), params)
    state = tx.init(params)
    square = jax.tree.map(lambda g: jnp.square(g.astype(jnp.float32)), grads)
    statistics = types.SimpleNamespace(square=square)
    tx = optax.with_extra_args_support(tx)
    for _ in range(2):
        updates, state = tx.update(grads, state, params, statistics=statistics)
        params = optax.apply_updates(params, updates)
    return params, state

@jax.jit
def train_all(params):
    return {name: train(tx, params[name]) for name, tx in RULES.items()}

def moments(state):
    found = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, sx.Weight))
    return [w.value for w in found if isinstance(w, sx.Weight) and w.value is not None]

start = {name: parameters(name) for name in RULES}
expected = train_all(start)
with jax.set_mesh(MESH):
    split = {name: put(params) for name, params in start.items()}
    found = train_all(split)
    RULES["adafactor"].init(split["adafactor"])
for name, (params, state) in found.items():
    for key, w in params.items():
        a, b = (np.asarray(x[key].value, np.float32) for x in (params, expected[name][0]))
        if not np.allclose(a, b, rtol=1e-5, atol=1e-7):
            print(name, key, "differs by", np.abs(a - b).max())
        placed = NamedSharding(MESH, SPLIT[key])
        like = [w.value, *(m for m in moments(state) if m.shape == w.value.shape)]
        if not all(x.sharding.is_equivalent_to(placed, x.ndim) for x in like):
            print(name, key, "is placed as", [x.sharding for x in like])
print("tried", len(RULES))
"""


def test_split_weights_train_as_whole_ones_do():
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    }
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.splitlines() == ["tried 17"], run.stdout
