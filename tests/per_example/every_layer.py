"""Every layer with weights, of Equinox and of this library, against single examples' gradients.

    python tests/per_example/every_layer.py [--only NAME ...] [--out FILE]

For each layer a loss of one example that says something of every entry of the result. Mean
gradient, squares, signs, fourth powers, clipped mean and norms are compared with what NumPy makes
of the gradients of the examples one by one, in float64. Written is the largest difference of any of
them, relative to the largest entry of its array, and the ways that the weights took.

The control adds a millionth to one entry of one array, and has to be seen.
"""

import argparse
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import scalex_eqx as sx
from scalex_eqx.diagnostics import Table, record
from scalex_eqx.nn import unit

KEY = jax.random.key(0)
EXAMPLES, CLIP = 3, 3.0
STATISTICS = ("square", "norm", "sign", "fourth", "clipped")
TOLERANCE = 1e-11
WITHOUT_WEIGHTS = {
    # Of Equinox, and of this library.
    *("Dropout", "Identity", "Lambda", "RotaryPositionalEmbedding", "State", "StateIndex"),
    *("StatefulLayer", "Sequential", "Shared", "Conv", "ConvTranspose", "Pool", "AdaptivePool"),
    *("nn.Routing", "nn.TiedReadout", "unit.Multipliers"),
}

Case = tuple[Callable[[], Any], tuple[int, ...], Callable[[Any, Any], Any]]


def plain(layer: Any, x: Any) -> Any:
    return layer(x)


def each(layer: Any, x: Any) -> Any:
    return jax.vmap(layer)(x)


def scaled(layer: Any, x: Any) -> Any:
    return layer(x, mapped=EXAMPLES)


def scaled_alone(layer: Any, x: Any) -> Any:
    return layer(x[None], mapped=EXAMPLES)[0]


def over_time(layer: Any, xs: Any) -> Any:
    zeros = jnp.zeros(3)
    state = zeros if isinstance(layer, eqx.nn.GRUCell) else (zeros, zeros)
    state, _ = jax.lax.scan(lambda state, x: (layer(x, state), None), state, xs)
    return jnp.stack(jax.tree.leaves(state))


def attending(layer: Any, x: Any) -> Any:
    return layer(x, x, x)


def with_state(layer: Any, x: Any) -> Any:
    inner, state = layer
    return inner(x, state)[0]


def stateful(make: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: eqx.nn.inference_mode(eqx.nn.make_with_state(make)())


def laws(make: Callable[[int], Any], parameterization: Any = sx.mup) -> Callable[[], Any]:
    return lambda: sx.parameterize(make, width=8, base_width=4, parameterization=parameterization)


def of_unit(make: Callable[[int], Any]) -> Callable[[], Any]:
    return laws(make, sx.u_mup)


def block(n: int) -> Any:
    attention = sx.nn.GroupedQueryAttention(n, head_dimension=2, key_value_heads=1, key=KEY)
    return sx.nn.DecoderBlock(
        attention_norm=sx.nn.RMSNorm(n),
        attention=attention,
        mlp_norm=sx.nn.RMSNorm(n),
        mlp=sx.nn.GatedMLP(n, 2 * n, n, key=KEY),
    )


def decoder(n: int) -> Any:
    return sx.nn.Decoder(vocabulary_size=5, width=n, depth=2, block=lambda key: block(n), key=KEY)


def unit_block(layer: Any, x: Any) -> Any:
    return layer(x, jnp.array([0.5, 0.7]), mapped=EXAMPLES)


_TOKENS = (0,)
"""In the place of a shape: whole numbers, of this many axes behind it."""

EQUINOX: dict[str, Case] = {
    "Linear": (lambda: eqx.nn.Linear(4, 3, key=KEY), (4,), plain),
    "MLP": (lambda: eqx.nn.MLP(4, 3, 5, 2, key=KEY), (4,), plain),
    "Embedding": (lambda: eqx.nn.Embedding(5, 3, key=KEY), (*_TOKENS, 6), each),
    "LayerNorm": (lambda: eqx.nn.LayerNorm(4), (5, 4), each),
    "RMSNorm": (lambda: eqx.nn.RMSNorm(4), (5, 4), each),
    "GroupNorm": (lambda: eqx.nn.GroupNorm(2, 4), (4, 3), plain),
    "BatchNorm": (
        stateful(lambda: eqx.nn.BatchNorm(4, axis_name="batch", mode="batch")),
        (4,),
        with_state,
    ),
    "PReLU": (lambda: eqx.nn.PReLU(), (4,), plain),
    "MultiheadAttention": (
        lambda: eqx.nn.MultiheadAttention(2, 4, use_query_bias=True, key=KEY),
        (5, 4),
        attending,
    ),
    "GRUCell": (lambda: eqx.nn.GRUCell(2, 3, key=KEY), (5, 2), over_time),
    "LSTMCell": (lambda: eqx.nn.LSTMCell(2, 3, key=KEY), (5, 2), over_time),
    "WeightNorm": (lambda: eqx.nn.WeightNorm(eqx.nn.Linear(4, 3, key=KEY)), (4,), plain),
    "SpectralNorm": (
        stateful(lambda: eqx.nn.SpectralNorm(eqx.nn.Linear(4, 3, key=KEY), "weight", key=KEY)),
        (4,),
        with_state,
    ),
    "Conv1d": (lambda: eqx.nn.Conv1d(2, 3, 3, stride=2, key=KEY), (2, 9), plain),
    "Conv2d": (lambda: eqx.nn.Conv2d(4, 4, 3, padding=1, groups=2, key=KEY), (4, 5, 5), plain),
    "Conv3d": (lambda: eqx.nn.Conv3d(2, 3, 2, dilation=2, key=KEY), (2, 4, 4, 4), plain),
    "ConvTranspose1d": (
        lambda: eqx.nn.ConvTranspose1d(2, 3, 3, stride=2, key=KEY),
        (2, 5),
        plain,
    ),
    "ConvTranspose2d": (lambda: eqx.nn.ConvTranspose2d(2, 3, 3, key=KEY), (2, 4, 4), plain),
    "ConvTranspose3d": (lambda: eqx.nn.ConvTranspose3d(2, 2, 2, key=KEY), (2, 3, 3, 3), plain),
}

OURS: dict[str, Case] = {
    "nn.Linear": (laws(lambda n: sx.nn.Linear(n, n, use_bias=True, key=KEY)), (5, 8), each),
    "nn.Readout": (laws(lambda n: sx.nn.Readout(n, 3, key=KEY)), (8,), plain),
    "nn.Embedding": (laws(lambda n: sx.nn.Embedding(5, n, key=KEY)), (*_TOKENS, 6), each),
    "nn.MLP": (laws(lambda n: sx.nn.MLP(4, n, 3, key=KEY)), (5, 4), each),
    "nn.GatedMLP": (laws(lambda n: sx.nn.GatedMLP(n, 2 * n, n, key=KEY)), (5, 8), each),
    "nn.LayerNorm": (laws(lambda n: sx.nn.LayerNorm(n, use_bias=True)), (5, 8), each),
    "nn.RMSNorm": (laws(lambda n: sx.nn.RMSNorm(n)), (5, 8), each),
    "nn.HeadNorm": (lambda: sx.nn.HeadNorm(2, 3, use_gain=True), (5, 2, 3), each),
    "nn.LoRA": (
        lambda: sx.nn.LoRA(sx.nn.Linear(4, 3, key=KEY), rank=2, key=KEY),
        (4,),
        plain,
    ),
    "nn.CausalSelfAttention": (
        laws(lambda n: sx.nn.CausalSelfAttention(n, head_dimension=2, key=KEY)),
        (5, 8),
        plain,
    ),
    "nn.GroupedQueryAttention": (
        laws(
            lambda n: sx.nn.GroupedQueryAttention(n, head_dimension=2, key_value_heads=1, key=KEY)
        ),
        (5, 8),
        plain,
    ),
    "nn.MixtureOfExperts": (
        laws(lambda n: sx.nn.MixtureOfExperts(n, 2 * n, experts=4, top_k=2, key=KEY)),
        (5, 8),
        lambda layer, x: jax.vmap(layer)(x)[0],
    ),
    "nn.Block": (laws(lambda n: sx.nn.Block(n, head_dimension=2, key=KEY)), (5, 8), plain),
    "nn.DecoderBlock": (laws(block), (5, 8), plain),
    "nn.Decoder": (laws(decoder), (*_TOKENS, 6), plain),
    "nn.Transformer": (
        laws(
            lambda n: sx.nn.Transformer(
                vocabulary_size=5, sequence_length=6, width=n, depth=2, head_dimension=2, key=KEY
            )
        ),
        (*_TOKENS, 6),
        plain,
    ),
    "unit.Linear": (of_unit(lambda n: unit.Linear(n, n, use_bias=True, key=KEY)), (5, 8), scaled),
    "unit.Readout": (of_unit(lambda n: unit.Readout(n, 3, key=KEY)), (5, 8), scaled),
    "unit.Embedding": (of_unit(lambda n: unit.Embedding(5, n, key=KEY)), (*_TOKENS, 6), scaled),
    "unit.MLP": (of_unit(lambda n: unit.MLP(n, 2 * n, n, key=KEY)), (5, 8), scaled),
    "unit.GatedMLP": (of_unit(lambda n: unit.GatedMLP(n, 2 * n, n, key=KEY)), (5, 8), scaled),
    "unit.LayerNorm": (of_unit(lambda n: unit.LayerNorm(n, use_gain=True)), (5, 8), scaled),
    "unit.RMSNorm": (of_unit(lambda n: unit.RMSNorm(n, use_gain=True)), (5, 8), scaled),
    "unit.GroupedQueryAttention": (
        of_unit(lambda n: unit.GroupedQueryAttention(n, head_dimension=2, key=KEY)),
        (5, 8),
        scaled,
    ),
    "unit.Conv": (of_unit(lambda n: unit.Conv(n, n, (3,), key=KEY)), (8, 5), scaled_alone),
    "unit.ConvBlock": (of_unit(lambda n: unit.ConvBlock(n, (3,), key=KEY)), (8, 5), scaled_alone),
    "unit.Block": (
        of_unit(
            lambda n: unit.Block(
                n,
                hidden_features=2 * n,
                head_dimension=2,
                key_value_heads=None,
                rotary_base=1e4,
                use_gain=True,
                multipliers=unit.Multipliers(),
                key=KEY,
            )
        ),
        (5, 8),
        unit_block,
    ),
    "unit.Transformer": (
        of_unit(
            lambda n: unit.Transformer(
                vocabulary_size=5, width=n, depth=2, head_dimension=2, use_gain=True, key=KEY
            )
        ),
        (*_TOKENS, 6),
        scaled,
    ),
}
LAYERS = EQUINOX | OURS


def names_of_layers() -> set[str]:
    """What there is: the classes of `equinox.nn`, `nn` and `nn.unit` that hold weights."""
    modules = {"": eqx.nn, "nn.": sx.nn, "unit.": unit}
    found = {
        prefix + name
        for prefix, module in modules.items()
        for name, kind in vars(module).items()
        if inspect.isclass(kind) and not name.startswith("_")
    }
    return {name for name in found - WITHOUT_WEIGHTS if "Pool" not in name}


def measured(name: str) -> dict[str, Any]:
    """The row of a layer."""
    make, shape, call = LAYERS[name]
    rng = np.random.default_rng(7)
    is_tokens = shape[0] == 0
    batch = (
        rng.integers(0, 4, size=(EXAMPLES, *shape[1:]))
        if is_tokens
        else rng.normal(size=(EXAMPLES, *shape))
    )
    # Away from biases of zero and gains of one.
    model = jax.tree.map(lambda x: x + 0.1 if eqx.is_inexact_array(x) else x, make())

    def loss(model: Any, x: Any) -> Any:
        y = call(sx.resolve(model), x)
        weights = jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
        return jnp.sum(weights * y) ** 2 + jnp.sum(y**2)

    found = eqx.filter_jit(
        lambda model, batch: sx.gradient_statistics(
            loss, model, batch, statistics=STATISTICS, clip=CLIP
        )
    )(model, jnp.asarray(batch))
    expected = one_by_one(loss, model, jnp.asarray(batch))
    apart = max(
        apart_by(x, y)
        for key, values in expected.items()
        for x, y in zip(jax.tree.leaves(getattr(found, key)), values, strict=True)
    )
    return {
        "layer": name,
        "arrays": len(expected["gradient"]),
        "ways": ", ".join(sorted(set(found.method.values()))),
        "apart": apart,
        "holds": bool(apart <= TOLERANCE),
    }


def apart_by(x: Any, y: np.ndarray) -> float:
    return float(np.max(np.abs(np.asarray(x) - y)) / max(np.max(np.abs(y)), 1e-30))


def one_by_one(loss: Any, model: Any, batch: Any) -> dict[str, list[np.ndarray]]:
    gradient = eqx.filter_jit(eqx.filter_grad(loss))
    single = [jax.tree.leaves(gradient(model, x)) for x in batch]
    return statistics_by_numpy([np.stack(column) for column in zip(*single, strict=True)], CLIP)


def statistics_by_numpy(columns: list[np.ndarray], clip: float) -> dict[str, list[np.ndarray]]:
    """Of all examples' gradients of each array, which the first axis numbers."""
    norms = [np.sum(g**2, axis=tuple(range(1, g.ndim))) for g in columns]
    norm = np.sum(norms, axis=0)
    factors = np.minimum(1, clip / np.sqrt(norm))
    return {
        "gradient": [np.mean(g, axis=0) for g in columns],
        "square": [np.mean(g**2, axis=0) for g in columns],
        "sign": [np.mean(np.sign(g), axis=0) for g in columns],
        "fourth": [np.mean(g**4, axis=0) for g in columns],
        "clipped": [np.tensordot(factors, g, 1) / len(norm) for g in columns],
        "norms": norms,
        "norm": [norm],
    }


def control() -> bool:
    """Whether a millionth at one entry would be seen."""
    y = np.random.default_rng(0).normal(size=(8, 8))
    x = y.copy()
    x[0, 0] += 1e-6
    return apart_by(x, y) > TOLERANCE


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="*", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--out", type=Path, default=Path("docs/results/example_layers.json"))
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    assert control()
    assert set(LAYERS) == names_of_layers(), set(LAYERS) ^ names_of_layers()
    rows = []
    for name in arguments.only:
        rows.append(measured(name))
        print(rows[-1], flush=True)
    if arguments.only == list(LAYERS):
        command = "python tests/per_example/every_layer.py"
        found = record([Table("layers", ["layer"], tuple(rows[0]), rows)], command)
        arguments.out.write_text(found.to_json(), encoding="utf-8")
    assert all(row["holds"] for row in rows)


if __name__ == "__main__":
    main()
