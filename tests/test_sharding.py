"""Weights that are split over eight devices: the page about them, and that nothing moves."""

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs/sharding.md"

# Values at the base width are bitwise those of one device; sharding is what make has placed.
MORE = """
import numpy as np

def foreign(width):
    return eqx.filter(eqx.nn.MLP(8, 16, width, 1, key=jax.random.key(0)), eqx.is_array)

def scaled(make, width=64):
    return sx.parameterize(make, width=width, base_width=32, parameterization=sx.mup)

shapes = [eqx.filter_eval_shape(foreign, width) for width in (32, 16)]
elsewhere = jax.device_put(foreign(32), jax.devices()[1])
for kind in (AxisType.Explicit, AxisType.Auto):
    mesh = jax.make_mesh((8,), ("d",), axis_types=(kind,))
    # Where a mesh is set, JAX itself refuses an array that lies on another device.
    again = {
        width: sx.parameterize_model(
            placed(foreign(width), mesh),
            elsewhere,
            shapes[1],
            values="rescale",
            parameterization=sx.mup,
        )
        for width in (32, 64)
    }
    with jax.set_mesh(mesh):
        for width in (32, 64):
            on_eight = placed(foreign(width), mesh)
            model = scaled(lambda n: placed(foreign(n), mesh), width)
            plain = scaled(foreign, width)
            kept = sx.parameterize_model(
                on_eight, *shapes, values="keep", parameterization=sx.mup
            )
            for tree in (model, again[width], kept, sx.resolve(model)):
                for x, place in zip(jax.tree.leaves(tree), jax.tree.leaves(on_eight), strict=True):
                    assert x.sharding.is_equivalent_to(place.sharding, x.ndim), (x.sharding, place)
            for tree in (model, again[width]):
                for x, expected in zip(jax.tree.leaves(tree), jax.tree.leaves(plain), strict=True):
                    if width == 32:
                        assert np.array_equal(x, expected)
                    # Sums of 512 squares in another order, and a product: 2^-24 each.
                    np.testing.assert_allclose(x, expected, rtol=1e-5)
            sx.plan(model, sx.adam(1e-2), base=placed(foreign(32), mesh))
        jax.jit(lambda: scaled(foreign))()
"""

# A mask lies where its weight does, through drawing, steps and pruning, and keeps what it keeps on
# one device. Rows or columns are split.
MASKS = """
def hidden(width):
    key = jax.random.key(0)
    return eqx.filter(eqx.nn.MLP(8, 16, width, 2, use_bias=False, key=key), eqx.is_array)

def split(model, place):
    matrix = lambda x: jax.device_put(x, place) if x.shape == (64, 64) else x
    return jax.tree.map(matrix, model)

def masked(model):
    return sx.sparsify(model, "1/4", key=jax.random.key(1), pattern="balanced")

def stepped(model):
    params = eqx.filter(model, eqx.is_inexact_array)
    gradients = jax.tree.map(lambda x: jnp.where(x != 0, jnp.cos(x), 0), params)
    updates, state = tx.update(gradients, tx.init(params), params)
    return eqx.apply_updates(model, updates), state

def pruned(model, state):
    # Grown as well as pruned: what is taken in has its mean of squares filled in.
    model, state = sx.remasked(model, {"layers/1/weight": other}, state)
    return sx.pruned(model, 0.1, state)

def lies_like_one(tree, expected, place):
    leaves = jax.tree.leaves(tree)
    for x, one in zip(leaves, jax.tree.leaves(expected), strict=True):
        if x.shape == (64, 64):
            assert x.sharding.is_equivalent_to(place, 2), (x.dtype, x.sharding, place)
        np.testing.assert_allclose(x, one, rtol=1e-5, atol=1e-7)
    return sum(x.shape == (64, 64) for x in leaves)

whole = scaled(hidden)
one = masked(whole)
other = np.roll(one.layers[1].weight.mask, 1, axis=1)
one_step = jax.jit(stepped)(one)
one_pruned = jax.jit(pruned)(*one_step)
# Compiled where types have shardings, and one operation after another where placement is all.
cases = (AxisType.Explicit, 0, jax.jit), (AxisType.Auto, 1, lambda f: f)
for kind, axis, run in cases:
    mesh = jax.make_mesh((8,), ("d",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        place = NamedSharding(mesh, P(*["d" if i == axis else None for i in range(2)]))
        dense = split(whole, place)
        model = run(masked)(dense)
        assert lies_like_one(model, one, place) == 2
        # Value and mask, and both moments.
        after = jax.jit(stepped)(model)
        assert lies_like_one(after, one_step, place) == 4
        assert lies_like_one(run(pruned)(*after), one_pruned, place) == 4
print("done")
"""


def test_the_page_and_what_it_says():
    """In a process of its own, since the number of devices is fixed when JAX starts."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\{\.python \.mesh\}\n(.*?)^```$", text, re.M | re.S)
    outputs = re.findall(r"^```output\n(.*?)^```$", text, re.M | re.S)
    assert len(blocks) == len(outputs) > 3
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    run = subprocess.run(
        [sys.executable, "-c", "\n".join([*blocks, MORE, MASKS])],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.split() == [*"".join(outputs).split(), "done"]
