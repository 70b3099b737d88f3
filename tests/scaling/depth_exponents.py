"""What a Transformer's sizes do as it gets deeper, with a law for the depth and without.

    python tests/scaling/depth_exponents.py [--out docs/results/depth_exponents.json]

The library's Transformer of width 32 at depths 2, 4, 8 and 16, the base depth 2, with three seeds:
the residual stream at first, the first gradients and updates inside the stack, and what eight steps
of Adam or SGD change of the stream. Numbers are exponents p of root mean squares that go as L^p.
Writes the table that the docs show.
"""

import argparse
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import scalex_eqx as sx
from scalex_eqx.diagnostics import Table, record
from scalex_eqx.diagnostics._exponent import fit_exponent

WIDTH, DEPTHS, SEEDS, STEPS = 32, (2, 4, 8, 16), (0, 1, 2), 8
LAWS = {
    "none": sx.mup,
    "alpha = 1/2": sx.mup.deep("1/2"),
    "alpha = 1": sx.mup.deep(1),
}
OPTIMIZERS = {"adam": sx.adam(2**-8), "sgd": sx.sgd(0.1)}
INSIDE = ("blocks/attention/value/weight", "blocks/mlp/up/weight")
ENDS = ("blocks/attention/output/weight", "blocks/mlp/down/weight")


def build(law: Any, depth: int, key: Any, width: int = WIDTH, base: int = DEPTHS[0]) -> Any:
    def make(width: int, depth: int = depth) -> Any:
        return sx.nn.Transformer(
            vocabulary_size=16,
            sequence_length=8,
            width=width,
            depth=depth,
            head_dimension=8,
            key=key,
        )

    depths: Any = {} if law.branch is None else {"depth": depth, "base_depth": base}
    return sx.parameterize(make, width=width, base_width=width, parameterization=law, **depths)


def batch(key: Any) -> Any:
    """Sequences that count on by three."""
    start = jax.random.randint(key, (8, 1), 0, 16)
    return (start + 3 * jnp.arange(9)[None]) % 16


def loss(model: Any, tokens: Any) -> Any:
    logits = model(tokens[:, :-1])
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]))


def stream(model: Any, tokens: Any) -> Any:
    """What stands in front of the last norm."""
    positions = sx.effective(model.position_embedding.weight)
    embedded = jax.vmap(jax.vmap(model.token_embedding))(tokens)
    arrays, static = eqx.partition(model.blocks, eqx.is_array)
    x, _ = jax.lax.scan(
        lambda x, block: (eqx.combine(block, static)(x), None), embedded + positions[None], arrays
    )
    return x


def size(x: Any) -> Any:
    return jnp.sqrt(jnp.mean(jnp.square(x)))


def of_layers(tree: Any, paths: tuple[str, ...], multiplied: bool) -> Any:
    """The root mean square of some stacked weights, effective or as they are."""
    weights = sx.weights_with_paths(tree)
    found = [weights[path] for path in paths]
    return size(
        jnp.concatenate(
            [jnp.ravel(w.value * (w.spec.multiplier if multiplied else 1.0)) for w in found]
        )
    )


@eqx.filter_jit
def measured(model: Any, tx: Any, key: Any, steps: int = STEPS) -> dict[str, Any]:
    tokens = batch(key)
    arrays, static = eqx.partition(model, eqx.is_inexact_array)
    state = tx.init(arrays)
    gradient = eqx.filter_grad(loss)(model, tokens)
    update, _ = tx.update(gradient, state, arrays)

    def step(carry: Any, key: Any) -> Any:
        arrays, state = carry
        gradient = eqx.filter_grad(loss)(eqx.combine(arrays, static), batch(key))
        updates, state = tx.update(gradient, state, arrays)
        return (eqx.apply_updates(arrays, updates), state), None

    (after, _), _ = jax.lax.scan(step, (arrays, state), jax.random.split(key, steps))
    trained = eqx.combine(after, static)
    before = stream(model, tokens[:, :-1])
    return {
        "stream at first": size(before),
        "gradient": of_layers(gradient, INSIDE + ENDS, multiplied=False),
        "update, inside a branch": of_layers(update, INSIDE, multiplied=True),
        "update, at its end": of_layers(update, ENDS, multiplied=True),
        "change of the stream": size(stream(trained, tokens[:, :-1]) - before),
    }


def expected(law: Any, name: str) -> dict[str, float | None]:
    """What the theory says; it says nothing where there is no law."""
    alpha = law.branch
    if alpha is None:
        return dict.fromkeys(MEASURED)
    family = sx.theory.as_family(name).of_role(sx.theory.Role.hidden)
    rate = sx.theory.depth_exponent(law, family, sx.full_alignment)
    inside = rate + family.gradient_degree * alpha
    values = (0, -alpha, -inside, -(inside + alpha), 0)
    return {key: float(value) for key, value in zip(MEASURED, values, strict=True)}


MEASURED = (
    "stream at first",
    "gradient",
    "update, inside a branch",
    "update, at its end",
    "change of the stream",
)


def exponents(
    law: Any,
    tx: Any,
    depths: tuple[int, ...] = DEPTHS,
    seeds: tuple[int, ...] = SEEDS,
    **sizes: int,
) -> dict[str, Any]:
    """The fitted exponent of each size that is measured."""
    found = [
        [
            measured(build(law, depth, jax.random.key(seed), base=depths[0], **sizes), tx, key)
            for seed in seeds
            for key in [jax.random.key(100 + seed)]
        ]
        for depth in depths
    ]
    return {
        name: fit_exponent(depths, [[float(np.asarray(one[name])) for one in row] for row in found])
        for name in MEASURED
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/depth_exponents.json"))
    arguments = parser.parse_args()
    rows = []
    for name, law in LAWS.items():
        for rule, tx in OPTIMIZERS.items():
            theory, found = expected(law, rule), exponents(law, tx)
            for what, exponent in found.items():
                rows.append(
                    {
                        "law": name,
                        "optimizer": rule,
                        "size": what,
                        "exponent": None if exponent is None else exponent.value,
                        "low": None if exponent is None else exponent.interval[0],
                        "high": None if exponent is None else exponent.interval[1],
                        "theory": theory[what],
                    }
                )
                print(rows[-1], flush=True)
    columns = ("law", "optimizer", "size", "exponent", "low", "high", "theory")
    table = Table("exponents of the depth", columns[:3], columns, rows)
    print(table.to_markdown())
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    command = "python tests/scaling/depth_exponents.py"
    arguments.out.write_text(record([table], command).to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
