"""Unmodified modules of equinox.nn follow their exponents in the first step of Adam.

Full alignment, widths 64 and 1024, base width 64, means over four seeds of draws. An update's size
is the RMS over the entries of an effective weight that have a gradient: a dead unit of the ReLU
has none, and how many are dead at width 64 is chance. Adam's first update has one size at all
others, so its exponent is sharp; a hidden output's change is a sum over many terms, and scatters.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx

from ._measure import FAST_COMPILE, PARAMETERIZATIONS, rms

WIDTHS = (64, 1024)
SEEDS = 4
INPUTS, CLASSES, TOKENS = 8, 4, 8
RATE = 1e-3
UPDATE, CHANGE, MISTAKE = 0.02, 0.1, 0.3


class Block(eqx.Module):
    """A Transformer of one block, made of nothing but layers of equinox.nn."""

    embedding: eqx.nn.Embedding
    norms: list[eqx.nn.LayerNorm]
    attention: eqx.nn.MultiheadAttention
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    readout: eqx.nn.Linear

    def __init__(self, width: int, *, key: Any):
        keys = jax.random.split(key, 5)
        self.embedding = eqx.nn.Embedding(INPUTS, width, key=keys[0])
        self.norms = [eqx.nn.LayerNorm(width) for _ in range(3)]
        self.attention = eqx.nn.MultiheadAttention(width // 16, width, key=keys[1])
        self.up = eqx.nn.Linear(width, 4 * width, key=keys[2])
        self.down = eqx.nn.Linear(4 * width, width, key=keys[3])
        self.readout = eqx.nn.Linear(width, CLASSES, key=keys[4])

    def outputs(self, tokens: Any) -> dict[str, Any]:
        x = jax.vmap(self.embedding)(tokens)
        y = jax.vmap(self.norms[0])(x)
        attended = self.attention(y, y, y)
        x = x + attended
        y = jax.vmap(self.up)(jax.vmap(self.norms[1])(x))
        down = jax.vmap(self.down)(jax.nn.gelu(y))
        logits = jax.vmap(self.readout)(jax.vmap(self.norms[2])(x + down))
        return {"attention": attended, "up": y, "down": down, "logits": logits}


def mlp(width: int, key: Any) -> eqx.nn.MLP:
    return eqx.nn.MLP(INPUTS, CLASSES, width, 3, key=key)


def mlp_outputs(model: eqx.nn.MLP, inputs: Any) -> dict[str, Any]:
    x, found = inputs, {}
    for i, layer in enumerate(model.layers):
        x = jax.vmap(layer)(x)
        found["logits" if i == len(model.layers) - 1 else f"layers/{i}"] = x
        x = jax.nn.relu(x)
    return found


def inputs_of(count: int) -> Any:
    return jax.random.normal(jax.random.key(1), (count, INPUTS))


CASES: dict[str, tuple[Callable, Callable, Any]] = {
    "MLP, batch of 1": (mlp, mlp_outputs, inputs_of(1)),
    "MLP, batch of 64": (mlp, mlp_outputs, inputs_of(64)),
    "attention": (
        lambda width, key: Block(width, key=key),
        Block.outputs,
        jnp.arange(TOKENS) % INPUTS,
    ),
}


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
@pytest.mark.parametrize("case", CASES)
def test_the_first_step_follows_the_exponents(case, parameterization):
    found = slopes(case, parameterization)
    c = sx.theory.learning_rate_exponents(parameterization, "adam", sx.full_alignment)
    for path, role in roles(case).items():
        expected = -float(parameterization.a[role] + c[role])
        assert abs(found[f"update of {path}"] - expected) < UPDATE, path
    changes = {name: x for name, x in found.items() if name.startswith("change of")}
    hidden = {name: x for name, x in changes.items() if name != "change of logits"}
    assert len(hidden) >= 3
    assert max(map(abs, hidden.values())) < CHANGE, hidden


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_a_hidden_weight_labelled_embedding_is_seen(parameterization):
    case, path = "MLP, batch of 64", "layers/1/weight"
    found = slopes(case, parameterization, ((path, "embedding"),))
    c = sx.theory.learning_rate_exponents(parameterization, "adam", sx.full_alignment)
    a, b = parameterization.a.hidden, parameterization.b.hidden
    assert abs(found[f"spread of {path}"] + float(a + b)) > MISTAKE
    assert abs(found[f"update of {path}"] + float(a + c[sx.Role.hidden])) > MISTAKE
    assert found["change of layers/1"] > MISTAKE


def test_a_readout_labelled_hidden_is_another_parameterization():
    """muP with that label is the standard parameterization: no training can tell, shapes can."""
    mislabelled = sx.Parameterization(
        "mislabelled", sx.LayerExponents("-1/2", 0, 0), sx.LayerExponents("1/2", "1/2", "1/2")
    )
    shift = sx.theory.equivalence(mislabelled, sx.standard)
    assert shift == sx.LayerExponents("1/2", 0, 0)
    c = sx.theory.learning_rate_exponents(sx.mup, "adam", sx.full_alignment)
    standard = sx.theory.learning_rate_exponents(sx.standard, "adam", sx.full_alignment)
    assert c[sx.Role.hidden] == standard[sx.Role.readout]
    assert c[sx.Role.embedding] - shift.embedding == standard[sx.Role.embedding]


@functools.cache
def roles(case: str) -> dict[str, sx.Role]:
    make = functools.partial(CASES[case][0], key=jax.random.key(0))
    model = eqx.filter_eval_shape(
        lambda: sx.parameterize(
            make, width=WIDTHS[0], base_width=WIDTHS[0], parameterization=sx.standard
        )
    )
    found = {path: w.spec.role for path, w in sx.weights_with_paths(model).items()}
    return {path: role for path, role in found.items() if role is not None}


@functools.cache
def slopes(
    case: str, parameterization: sx.Parameterization, forced: tuple[tuple[str, str], ...] = ()
) -> dict[str, float]:
    """The exponent of every size that `measure` returns, over the widths."""
    base, wide = WIDTHS
    # At the base width all parameterizations are one model, and so are their rates.
    logs = means(case, sx.standard, base, forced), means(case, parameterization, wide, forced)
    steps = np.log2(WIDTHS)
    return {name: float(np.polyfit(steps, [row[name] for row in logs], 1)[0]) for name in logs[0]}


@functools.cache
def means(
    case: str,
    parameterization: sx.Parameterization,
    width: int,
    forced: tuple[tuple[str, str], ...],
) -> dict[str, Any]:
    """Of the logarithm of every size, over the seeds."""
    measured = jax.jit(
        functools.partial(measure, case, width, parameterization, dict(forced)),
        compiler_options=FAST_COMPILE,
    )
    keys = [jax.random.key(seed, impl="rbg") for seed in range(SEEDS)]  # Twice as fast.
    found = [jax.device_get(measured(key)) for key in keys]
    return {name: np.mean([np.log2(seed[name]) for seed in found]) for name in found[0]}


def measure(
    case: str,
    width: int,
    parameterization: sx.Parameterization,
    forced: dict[str, str],
    key: Any,
) -> dict[str, Any]:
    make, outputs, inputs = CASES[case]
    model = sx.parameterize(
        functools.partial(make, key=key),
        width=width,
        base_width=WIDTHS[0],
        parameterization=parameterization,
        roles=forced,
        force=bool(forced),
    )
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def run(params):
        return outputs(sx.resolve(eqx.combine(params, static)), inputs)

    def loss(params):
        logits = run(params)["logits"]
        return -jnp.mean(jax.nn.log_softmax(logits)[:, 0])

    tx = sx.adam(RATE, eps=0.0)
    updates, _ = tx.update(jax.grad(loss)(params), tx.init(params), params)
    after = eqx.apply_updates(params, updates)
    before, changed = run(params), run(after)
    spreads = {
        f"spread of {path}": jnp.std(sx.effective(w))
        for path, w in sx.weights_with_paths(params).items()
        if w.spec.role not in ("vector", "constant")  # A gain of ones has none.
    }
    sizes = {
        f"update of {path}": rms_of_moved(sx.effective(w))
        for path, w in sx.weights_with_paths(updates).items()
    }
    changes = {f"change of {name}": rms(changed[name] - before[name]) for name in before}
    return spreads | sizes | changes


def rms_of_moved(x: Any) -> Any:
    return jnp.sqrt(jnp.sum(jnp.square(x)) / jnp.sum(x != 0, dtype=x.dtype))
