"""What sizes of a mixture of experts that grow by themselves do, at one width.

    python tests/scaling/expert_sizes.py [--out docs/results/expert_sizes.json]

A gated block with experts, at width 64, is trained on sequences of eight tokens for four steps of
Adam at a learning rate of 2^-12, with sixteen seeds. Exponents are those of the mixture's output at
first, of its change, and of the first gradients of the experts' `down` and of the router, under a
random cotangent of the logits that is divided by the number of tokens. What grows is

- `experts`: 4, 16 and 64 of them, of which a token has two; one sequence;
- `experts and tokens`: the same, with 1, 4 and 16 sequences;
- `experts and top_k`: 4, 16 and 64 experts, of which a token has half; one sequence;
- `inner`: the inner size of four experts, 32, 128 and 512, with `down`'s rate as its fan-in asks,
  1 / fan-in; one sequence;
- `inner, extra factor`: the same with `down`'s initial spread divided once more by the root of the
  ratio.

Writes the table that the docs show.
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

WIDTH, VOCABULARY, TOKENS, STEPS, SEEDS, LEARNING_RATE = 64, 16, 8, 4, 16, 2.0**-12
FAST_COMPILE = {"xla_backend_optimization_level": 0}
RATIOS = (1, 4, 16)


Numbers = tuple[int, int, int, int]
"""Experts, top_k, inner size, sequences."""


def model(width: int, experts: int, top_k: int, inner: int, key: Any) -> nn.Decoder:
    def block(key: Any) -> nn.DecoderBlock:
        attention, mlp = jax.random.split(key)
        return nn.DecoderBlock(
            attention_norm=nn.RMSNorm(width),
            attention=nn.GroupedQueryAttention(
                width, head_dimension=16, key_value_heads=2, key=attention
            ),
            mlp_norm=nn.RMSNorm(width),
            mlp=nn.MixtureOfExperts(
                width, inner * width // WIDTH, experts=experts, top_k=top_k, key=mlp
            ),
        )

    return nn.Decoder(vocabulary_size=VOCABULARY, width=width, depth=1, block=block, key=key)


def output(model: nn.Decoder, tokens: Any) -> Any:
    """What the mixture puts out, for sequences of tokens."""
    block = jax.tree.map(lambda leaf: leaf[0], model.blocks)

    def each(f: Any) -> Any:
        return jax.vmap(jax.vmap(f))

    x = each(model.token_embedding)(tokens)
    x = x + block.attention(each(block.attention_norm)(x))
    return each(block.mlp)(each(block.mlp_norm)(x))[0]


def rms(x: Any) -> Any:
    return jnp.sqrt(jnp.mean(jnp.square(x)))


def down(model: Any) -> Any:
    return model.blocks.mlp.experts.down.weight.value


def sizes(numbers: Numbers, inner_ratio: int, extra: bool, seed: Any) -> Any:
    """The output's size, that of its change, and those of the gradients of `down` and router."""
    key = jax.random.key(seed)
    experts, top_k, inner, sequences = numbers
    tokens = jax.random.randint(key, (sequences, TOKENS + 1), 0, VOCABULARY)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    shape = (sequences, TOKENS, VOCABULARY)
    cotangent = jax.random.normal(jax.random.fold_in(key, 1), shape) / (sequences * TOKENS)
    # At the base width nothing is scaled by the width.
    made = sx.parameterize(
        lambda width: model(width, experts, top_k, inner, jax.random.fold_in(key, 2)),
        width=WIDTH,
        base_width=WIDTH,
        parameterization=sx.standard,
    )
    if extra:
        made = eqx.tree_at(down, made, replace_fn=lambda w: w * inner_ratio**-0.5)
    params, static = eqx.partition(made, eqx.is_inexact_array)

    def loss(params: Any) -> Any:
        logits = eqx.combine(params, static)(inputs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    def projected(params: Any) -> Any:
        return jnp.sum(cotangent * eqx.combine(params, static)(inputs))

    tx = sx.adam(LEARNING_RATE)
    gradient = jax.grad(projected)(params)

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        updates = eqx.tree_at(down, updates, replace_fn=lambda u: u / inner_ratio)
        return (optax.apply_updates(params, updates), state), None

    (trained, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=STEPS)
    before, after = output(made, inputs), output(eqx.combine(trained, static), inputs)
    router = gradient.blocks.mlp.router.weight.value
    return jnp.stack([rms(before), rms(after - before), rms(down(gradient)), rms(router)])


CASES: dict[str, tuple[list[Numbers], bool]] = {
    "experts": ([(4 * r, 2, 32, 1) for r in RATIOS], False),
    "experts and tokens": ([(4 * r, 2, 32, r) for r in RATIOS], False),
    "experts and top_k": ([(4 * r, 2 * r, 32, 1) for r in RATIOS], False),
    "inner": ([(4, 2, 32 * r, 1) for r in RATIOS], False),
    "inner, extra factor": ([(4, 2, 32 * r, 1) for r in RATIOS], True),
}
COLUMNS = ("output", "change", "gradient of down", "gradient of router")


def exponents(numbers: list[Numbers], extra: bool) -> dict[str, float]:
    """How each size goes with the ratio."""
    logs = []
    for own in numbers:
        run = functools.partial(sizes, own, own[2] // 32, extra)
        found = jax.jit(jax.vmap(run), compiler_options=FAST_COMPILE)(jnp.arange(SEEDS))
        logs.append(np.mean(np.log2(jax.device_get(found)), axis=0))
    return dict(zip(COLUMNS, np.polyfit(np.log2(RATIOS), np.stack(logs), 1)[0], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/expert_sizes.json"))
    arguments = parser.parse_args()
    rows = []
    for name, (numbers, extra) in CASES.items():
        found = {column: float(x) for column, x in exponents(numbers, extra).items()}
        rows.append({"what grows": name, **found})
        print(rows[-1], flush=True)
    table = Table("expert sizes", ("what grows",), ("what grows", *COLUMNS), rows, tolerance=0.05)
    print(table.to_markdown())
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    command = "python tests/scaling/expert_sizes.py"
    arguments.out.write_text(record([table], command).to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
