"""Every layer's statistics against the gradients of single examples, one by one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx.nn import unit

from . import every_layer

KEY = jax.random.key(0)
EXAMPLES = 3
STATISTICS = ("square", "norm", "sign", "fourth", "clipped")
# Of float64: sums of some hundred terms in another order, of which none is much larger than the
# largest entry.
TOLERANCE = 1e-11


def drawn(*shape: int) -> Any:
    return np.random.default_rng(7).normal(size=(EXAMPLES, *shape))


def tokens(*shape: int) -> Any:
    # With rows that are looked up twice by an example.
    return np.random.default_rng(8).integers(0, 4, size=(EXAMPLES, *shape))


class Recurrent(eqx.Module):
    cell: Any

    def __call__(self, xs: Any) -> Any:
        start = jnp.zeros(3)
        state = start if isinstance(self.cell, eqx.nn.GRUCell) else (start, start)
        state, _ = jax.lax.scan(lambda state, x: (self.cell(x, state), None), state, xs)
        return jnp.stack(jax.tree.leaves(state))


class Tied(eqx.Module):
    embedding: sx.nn.Embedding
    readout: sx.nn.TiedReadout

    def __call__(self, index: Any) -> Any:
        x = jnp.tanh(jax.vmap(self.embedding)(index))
        return jax.vmap(lambda x: self.readout(x, self.embedding))(x)


class Each(eqx.Module):
    layer: Callable[..., Any]

    def __call__(self, x: Any) -> Any:
        return jax.vmap(self.layer)(x)


class Attention(eqx.Module):
    attention: eqx.nn.MultiheadAttention

    def __call__(self, x: Any) -> Any:
        return self.attention(x, x, x)


class Scaled(eqx.Module):
    """A layer of unit scaling, whose factors follow the number of examples."""

    norm: Any
    linear: Any

    def __call__(self, x: Any) -> Any:
        return self.linear(self.norm(x, mapped=EXAMPLES), mapped=EXAMPLES)


def scaled() -> Any:
    def make(width: int) -> Any:
        return Scaled(unit.RMSNorm(width, use_gain=True), unit.Linear(width, 2 * width, key=KEY))

    return sx.parameterize(make, width=8, base_width=4, parameterization=sx.u_mup)


def adapted(inputs: int, outputs: int) -> Any:
    return sx.nn.LoRA(sx.nn.Linear(inputs, outputs, key=KEY), rank=2, key=KEY)


def masked() -> Any:
    model = laws(lambda n: sx.nn.MLP(n, 2 * n, n, key=KEY))
    return sx.sparsify(model, "1/2", key=KEY, pattern="balanced")


def transformer(**options: Any) -> Any:
    return sx.nn.Transformer(
        vocabulary_size=5,
        sequence_length=4,
        width=8,
        depth=2,
        head_dimension=4,
        key=KEY,
        **options,
    )


def laws(make: Callable[[int], Any]) -> Any:
    return sx.parameterize(make, width=8, base_width=4, parameterization=sx.mup)


Layers = dict[str, tuple[Callable[[], Any], Any, set[str]]]
SURGERY, VMAP = {"surgery"}, {"vmap"}

# By group, whose losses are added up and compiled as one: what makes a layer, its inputs, and the
# ways that its weights take.
GROUPS: dict[str, Layers] = {
    "once": {
        "linear": (lambda: eqx.nn.Linear(4, 3, key=KEY), drawn(4), SURGERY),
        "mlp": (lambda: eqx.nn.MLP(4, 3, 5, 2, key=KEY), drawn(4), SURGERY),
        "embedding": (lambda: eqx.nn.Embedding(4, 3, key=KEY), tokens(), SURGERY),
        "layer norm": (lambda: eqx.nn.LayerNorm(4), drawn(4), SURGERY),
        "rms norm": (lambda: eqx.nn.RMSNorm(4), drawn(4), SURGERY),
        "prelu": (lambda: eqx.nn.PReLU(), drawn(4), VMAP),
        "ours": (lambda: laws(lambda n: sx.nn.MLP(4, n, 3, key=KEY)), drawn(4), SURGERY),
        "our linear": (lambda: sx.nn.Linear(4, 3, use_bias=True, key=KEY), drawn(4), SURGERY),
    },
    "sequences": {
        "linear": (lambda: Each(eqx.nn.Linear(4, 3, key=KEY)), drawn(5, 4), SURGERY),
        "embedding": (lambda: Each(eqx.nn.Embedding(4, 3, key=KEY)), tokens(6), SURGERY),
        "layer norm": (lambda: Each(eqx.nn.LayerNorm(4)), drawn(5, 4), SURGERY),
        "group norm": (lambda: eqx.nn.GroupNorm(2, 4), drawn(4, 3), VMAP),
        "attention": (
            lambda: Attention(eqx.nn.MultiheadAttention(2, 4, use_query_bias=True, key=KEY)),
            drawn(5, 4),
            SURGERY,
        ),
        "heads' norm": (
            lambda: Each(sx.nn.HeadNorm(2, 3, use_gain=True)),
            drawn(5, 2, 3),
            SURGERY,
        ),
    },
    "convolutions": {
        "one axis": (lambda: eqx.nn.Conv1d(2, 3, 3, stride=2, key=KEY), drawn(2, 9), {"surgery"}),
        "two axes, in groups": (
            lambda: eqx.nn.Conv2d(4, 4, 3, padding=1, groups=2, key=KEY),
            drawn(4, 5, 5),
            SURGERY,
        ),
        "transposed": (
            lambda: eqx.nn.ConvTranspose1d(2, 3, 3, stride=2, key=KEY),
            drawn(2, 5),
            SURGERY,
        ),
    },
    "used again": {
        "gru": (lambda: Recurrent(eqx.nn.GRUCell(2, 3, key=KEY)), drawn(5, 2), VMAP),
        "lstm": (lambda: Recurrent(eqx.nn.LSTMCell(2, 3, key=KEY)), drawn(5, 2), VMAP),
        "tied": (
            lambda: Tied(sx.nn.Embedding(5, 4, key=KEY), sx.nn.TiedReadout(4)),
            tokens(6),
            VMAP,
        ),
    },
    "ours": {
        "gated mlp": (
            lambda: Each(laws(lambda n: sx.nn.GatedMLP(n, 2 * n, n, key=KEY))),
            drawn(5, 8),
            SURGERY,
        ),
        "lora": (lambda: adapted(4, 3), drawn(4), SURGERY),
        "norms": (
            lambda: eqx.nn.Sequential(
                [sx.nn.LayerNorm(4, use_bias=True), eqx.nn.Lambda(jnp.tanh), sx.nn.RMSNorm(4)]
            ),
            drawn(4),
            SURGERY,
        ),
        "scaled": (scaled, drawn(5, 8), VMAP),
        "masked": (masked, drawn(8), SURGERY),
    },
    "stacked, recomputed": {
        "transformer": (lambda: sx.nn.recompute_blocks(transformer()), tokens(4), SURGERY)
    },
}


def statistics_one_by_one(loss: Any, model: Any, batch: Any, clip: float) -> dict[str, Any]:
    """By `vmap(grad)`, and NumPy."""
    found = eqx.filter_jit(eqx.filter_vmap(eqx.filter_grad(loss), in_axes=(None, 0)))(model, batch)
    gradients = [np.asarray(g) for g in jax.tree.leaves(found)]
    return every_layer.statistics_by_numpy(gradients, clip)


def assert_equal(found: Any, expected: dict[str, Any], rtol: float = TOLERANCE) -> None:
    for name, values in expected.items():
        leaves = jax.tree.leaves(getattr(found, name))
        assert len(leaves) == len(values), name
        for x, value in zip(leaves, values, strict=True):
            # Of what cancels only the largest entry says how exact it can be.
            size = np.max(np.abs(value), initial=1e-30)
            np.testing.assert_allclose(x, value, rtol=rtol, atol=rtol * size, err_msg=name)


def run(loss: Any, model: Any, batch: Any, **options: Any) -> sx.GradientStatistics:
    return eqx.filter_jit(
        lambda model, batch: sx.gradient_statistics(loss, model, batch, **options)
    )(model, batch)


def loss(model: Any, batch: Any) -> Any:
    """Of a group of layers: one that says something of every entry of each result."""
    terms = []
    for name, layer in sx.resolve(model).items():
        y = layer(batch[name])
        y = y[0] if isinstance(y, tuple) else y
        weights = jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
        terms.append(jnp.sum(weights * y) ** 2 + jnp.sum(y**2))
    return sum(terms)


def made(group: str) -> tuple[Any, Any, dict[str, set[str]]]:
    layers = GROUPS[group]
    model = {name: make() for name, (make, _, _) in layers.items()}
    # Away from biases of zero and gains of one.
    model = jax.tree.map(lambda x: x + 0.1 if eqx.is_inexact_array(x) else x, model)
    batch = {name: jnp.asarray(x) for name, (_, x, _) in layers.items()}
    return model, batch, {name: ways for name, (_, _, ways) in layers.items()}


@pytest.mark.parametrize("group", GROUPS)
def test_layers(group: str, x64: None):
    model, batch, ways = made(group)
    clip = 3.0
    found = run(loss, model, batch, statistics=STATISTICS, clip=clip)
    assert_equal(found, statistics_one_by_one(loss, model, batch, clip))
    for name, expected in ways.items():
        assert {
            way for path, way in found.method.items() if path.startswith(name + "/")
        } == expected


def test_every_layer_is_in_the_table_of_all():
    """Measured by a script, alone each; a layer that is new has to be measured too."""
    table = Path(__file__).parents[2] / "docs" / "results" / "example_layers.json"
    rows = json.loads(table.read_text(encoding="utf-8"))["tables"][0]["rows"]
    assert {row["layer"] for row in rows} == set(every_layer.LAYERS)
    assert every_layer.names_of_layers() == set(every_layer.LAYERS)
    assert all(row["apart"] <= every_layer.TOLERANCE for row in rows)
    assert every_layer.control()
