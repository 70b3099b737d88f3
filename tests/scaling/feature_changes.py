"""How much a block's outputs change in training at every width: gated blocks beside plain ones.

    python tests/scaling/feature_changes.py [--out docs/results/feature_changes.json]

Each model is trained on one sequence of eight tokens, for four steps of Adam under full alignment
at a learning rate of 2^-12, at widths 64, 192 and 512 (base width 64), with eight seeds. The change
is the RMS of what a layer puts out after the steps minus before; exponents are fitted to the mean
of its logarithm over the seeds. Two parameterizations are enough: under Adam, NTK trains as
standard does, and mean-field as muP.

`plain` is a block of `sx.nn.Transformer`. The others are Llama's: RMS norms, rotary positions,
normalised queries and keys with gains, and a gated MLP of 8/3 of the width, rounded up to a
multiple of 64. In `grouped` there is a key-value head for two query heads; in `fixed` there are two
of them at every width; `smaller` is the same with initial values that are smaller by the root of
the width's ratio; `experts` is `fixed` with four gated MLPs, of which a token has two. Writes the
table that the docs show.
"""

import argparse
import functools
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import scalex_eqx as sx
from scalex_eqx import nn
from scalex_eqx.diagnostics import Table, record

WIDTHS, SEEDS, STEPS, TOKENS = (64, 192, 512), 8, 4, 8
LEARNING_RATE = 2.0**-12
VOCABULARY, DEPTH, HEAD_DIMENSION = 16, 2, 16
PARAMETERIZATIONS = (sx.standard, sx.mup)
FAST_COMPILE = {"xla_backend_optimization_level": 0}


def rounded(width: int, multiple: int = 64) -> int:
    return -(-(8 * width // 3) // multiple) * multiple


def gated(
    width: int, key: Any, *, grows: bool = False, smaller: bool = False, experts: int = 0
) -> nn.Decoder:
    def block(key: Any) -> nn.DecoderBlock:
        attention, mlp = jax.random.split(key)
        inner = rounded(width)
        layer = nn.GroupedQueryAttention(
            width,
            head_dimension=HEAD_DIMENSION,
            key_value_heads=width // HEAD_DIMENSION // 2 if grows else 2,
            query_key_norm="gain",
            key=attention,
        )
        if smaller:
            factor = (width / WIDTHS[0]) ** -0.5
            layer = eqx.tree_at(
                lambda layer: layer.value.weight.value, layer, replace_fn=lambda w: factor * w
            )
        return nn.DecoderBlock(
            attention_norm=nn.RMSNorm(width),
            attention=layer,
            mlp_norm=nn.RMSNorm(width),
            mlp=nn.MixtureOfExperts(width, inner, experts=experts, top_k=2, key=mlp)
            if experts
            else nn.GatedMLP(width, inner, width, key=mlp),
        )

    return nn.Decoder(vocabulary_size=VOCABULARY, width=width, depth=DEPTH, block=block, key=key)


def plain(width: int, key: Any) -> nn.Transformer:
    return nn.Transformer(
        vocabulary_size=VOCABULARY,
        sequence_length=TOKENS,
        width=width,
        depth=DEPTH,
        head_dimension=HEAD_DIMENSION,
        key=key,
    )


MODELS = {
    "plain": plain,
    "grouped": functools.partial(gated, grows=True),
    "fixed": gated,
    "smaller": functools.partial(gated, smaller=True),
    "experts": functools.partial(gated, experts=4),
}


def outputs(model: Any, tokens: Any) -> dict[str, Any]:
    """What the layers of `model` put out: its own forward pass, written out."""
    x = jax.vmap(model.token_embedding)(tokens)
    if hasattr(model, "position_embedding"):
        x = x + sx.effective(model.position_embedding.weight)[: len(tokens)]
    found = {}
    for layer in range(DEPTH):
        block = jax.tree.map(lambda leaf, layer=layer: leaf[layer], model.blocks)
        normed = jax.vmap(block.attention_norm)(x)
        found[f"{layer} key"] = jax.vmap(block.attention.key)(normed)
        found[f"{layer} value"] = jax.vmap(block.attention.value)(normed)
        found[f"{layer} attention"] = block.attention(normed)
        x = x + found[f"{layer} attention"]
        mlp = jax.vmap(block.mlp)(jax.vmap(block.mlp_norm)(x))
        if isinstance(mlp, tuple):
            found[f"{layer} router"] = jax.vmap(block.mlp.router)(jax.vmap(block.mlp_norm)(x))
        found[f"{layer} mlp"] = mlp[0] if isinstance(mlp, tuple) else mlp
        x = x + found[f"{layer} mlp"]
        found[f"{layer} residual"] = x
    found["logits"] = jax.vmap(model.readout)(jax.vmap(model.final_norm)(x))
    return found


def changes(make: Any, parameterization: Any, rates: Any, width: int, seed: Any) -> dict[str, Any]:
    """The RMS change of each output."""
    key = jax.random.key(seed)
    tokens = jax.random.randint(key, (TOKENS + 1,), 0, VOCABULARY)
    inputs, targets = tokens[:-1], tokens[1:]
    draw = jax.random.fold_in(key, width)
    model = sx.parameterize(
        lambda width: make(width, draw),
        width=width,
        base_width=WIDTHS[0],
        parameterization=parameterization,
    )
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(params: Any) -> Any:
        logits = eqx.combine(params, static)(inputs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    tx = sx.adam(LEARNING_RATE, rates)

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    (trained, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=STEPS)
    after, before = outputs(eqx.combine(trained, static), inputs), outputs(model, inputs)
    return {name: jnp.sqrt(jnp.mean(jnp.square(after[name] - before[name]))) for name in after}


def exponents(
    make: Any,
    parameterization: Any,
    rates: Any = sx.full_alignment,
    widths: tuple[int, ...] = WIDTHS,
    seeds: int = SEEDS,
) -> dict[str, float]:
    """How the change of each output goes with the width."""
    logs: list[dict[str, Any]] = []
    for width in widths:
        run = functools.partial(changes, make, parameterization, rates, width)
        found = jax.jit(jax.vmap(run), compiler_options=FAST_COMPILE)(jnp.arange(seeds))
        logs.append({name: np.mean(np.log2(jax.device_get(x))) for name, x in found.items()})
    x = np.log2(widths)
    return {name: float(np.polyfit(x, [log[name] for log in logs], 1)[0]) for name in logs[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/feature_changes.json"))
    arguments = parser.parse_args()
    rows = []
    for parameterization in PARAMETERIZATIONS:
        by_model = {name: exponents(make, parameterization) for name, make in MODELS.items()}
        for output in by_model["experts"]:
            rows.append(
                {
                    "parameterization": parameterization.name,
                    "output": output,
                    **{name: found.get(output) for name, found in by_model.items()},
                }
            )
            print(rows[-1], flush=True)
    columns = ("parameterization", "output", *MODELS)
    table = Table("feature changes", ("parameterization", "output"), columns, rows, tolerance=0.05)
    print(table.to_markdown())
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    command = "python tests/scaling/feature_changes.py"
    arguments.out.write_text(record([table], command).to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
