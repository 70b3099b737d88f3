"""What narrow products cost in training, with unit scaling and without.

    python tests/scaling/unit_formats.py [--out docs/results/unit_formats.json]

Two blocks of width 64 on the text of the Python library: the unit-scaled Transformer under u-muP,
and the library's other one under muP and under the standard parameterization, each at a learning
rate near its best, with Adam. In float32, and with the recipes of `scalex_eqx.diagnostics`, of
which nothing else is changed. Three seeds; held-out losses. The control casts every operand of the
hidden products of weights that are 2^-12 as large, undone behind, to FP8. Writes the table that the
docs show.
"""

import argparse
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import scalex_eqx as sx
from scalex_eqx.diagnostics import Table, record
from scalex_eqx.problems._corpus import load_corpus
from scalex_eqx.problems._text import text

WIDTH, STEPS, SEEDS = 64, 120, (0, 1, 2)
LAWS = {"u_mup": (sx.u_mup, 1.0), "mup": (sx.mup, 2.0**-6), "standard": (sx.standard, 2.0**-7)}
FORMATS = {
    "float32": None,
    "u-muP's FP8": sx.diagnostics.u_mup_fp8,
    "hidden FP8": sx.diagnostics.hidden_fp8,
    "hidden MXFP8": sx.diagnostics.hidden_mxfp8,
    "hidden NVFP4": sx.diagnostics.hidden_nvfp4,
}
# A model whose function is the same, and whose hidden weights are too small for FP8.
TOO_SMALL = sx.Parameterization(
    "mup, hidden weights 2^-12 as large",
    a=sx.LayerExponents("-1/2", "-12", "1/2"),
    b=sx.LayerExponents("1/2", "25/2", "1/2"),
)


def trainer(task: Any, law: Any, rate: float, formats: Any) -> Any:
    """The held-out loss of a model that has been trained, by the seed's key; compiled once."""
    base = None if law.unit else WIDTH // (2 if law is TOO_SMALL else 1)
    data, held_out = jax.tree.map(jnp.asarray, (task.data, task.held_out))
    windows = held_out.reshape(-1, 16, held_out.shape[-1])

    def loss(model: Any, batch: Any) -> Any:
        return task.mean_loss(sx.resolve(model), batch)

    narrow = loss if formats is None else sx.diagnostics.with_narrow_products(loss, formats)

    def learning_rate(count: Any) -> Any:
        time = (count + 1) / STEPS
        return rate * jnp.minimum(time * 10, 0.5 * (1 + jnp.cos(jnp.pi * time)))

    tx = sx.adam(learning_rate, b2=0.95)

    @jax.jit
    def run(key: Any, data: Any, windows: Any) -> Any:
        model = sx.parameterize(
            lambda width: task.build({"width": width, "depth": 2}, key),
            width=WIDTH,
            base_width=base,
            parameterization=law,
        )
        arrays, static = eqx.partition(model, eqx.is_array)

        def step(carry: Any, index: Any) -> Any:
            arrays, state = carry
            batch = task.drawn(data, jax.random.fold_in(key, index))
            gradient = eqx.filter_grad(narrow)(eqx.combine(arrays, static), batch)
            updates, state = tx.update(gradient, state, arrays)
            return (eqx.apply_updates(arrays, updates), state), None

        (arrays, _), _ = jax.lax.scan(step, (arrays, tx.init(arrays)), jnp.arange(STEPS))
        model = eqx.combine(arrays, static)
        # Judged as it was trained: in use its products would be narrow as well.
        return jnp.mean(jax.lax.map(lambda batch: narrow(model, batch), windows))

    return lambda key: float(run(key, data, windows))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/unit_formats.json"))
    arguments = parser.parse_args()
    corpus, rows = load_corpus(None), []
    settings = {"sequence_length": 64, "held_out_windows": 64}
    cells = [(name, law, rate, kind) for name, (law, rate) in LAWS.items() for kind in FORMATS]
    cells += [(TOO_SMALL.name, TOO_SMALL, 2.0**-6, kind) for kind in ("float32", "hidden FP8")]
    exact: dict[tuple[str, int], float] = {}
    for name, law, rate, kind in cells:
        task = text(corpus, unit=law.unit is not None, **settings)
        train = trainer(task, law, rate, FORMATS[kind])
        for seed in SEEDS:
            loss = train(jax.random.key(seed))
            exact.setdefault((name, seed), loss)
            row = {
                "law": name,
                "products": kind,
                "seed": seed,
                "log2 of the rate": float(np.log2(rate)),
                "held-out loss": loss,
                "beyond float32 in %": 100 * (loss / exact[name, seed] - 1),
            }
            rows.append(row)
            print(row, flush=True)
    table = Table("narrow products", ("law", "products", "seed"), tuple(rows[0]), rows)
    print(table.to_markdown())
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    results = record([table], "python tests/scaling/unit_formats.py")
    arguments.out.write_text(results.to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
