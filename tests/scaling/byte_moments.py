"""What moments of a byte each cost in training on text.

    python tests/scaling/byte_moments.py [--out docs/results/byte_moments.json]

Two blocks of width 64 on the text of the Python library, 400 steps of Adam near its best learning
rate, with moments in float32, in bfloat16 and in bytes, at two decay rates of the second moment.
Held-out losses of three seeds. What counts as noise is measured: float32 with batches in another
order. The control, float32 at a quarter of the learning rate, has to be seen beside it. The bytes
are also rounded to nearest. Writes the table that the docs show.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import scalex_eqx as sx
from scalex_eqx.diagnostics import Table, record
from scalex_eqx.optim import _adam_bytes
from scalex_eqx.problems._corpus import load_corpus
from scalex_eqx.problems._text import text

WIDTH, STEPS, SEEDS, RATE = 64, 400, (0, 1, 2), 2.0**-7
FLOAT32, OTHER = "float32", "float32, other batches"
CONTROL, NEAREST = "float32, a quarter of the rate", "int8, to nearest"
MOMENTS = (FLOAT32, OTHER, CONTROL, "bfloat16", "int8", NEAREST)
DECAYS = (0.95, 0.999)
# Half a step for both of what `to_byte_pairs` rounds.
HALVES = np.uint32((1 << 31) | (1 << 19))


def to_nearest(shape: tuple[int, ...], words: Any) -> Any:
    return jnp.full(shape, HALVES)


def trainer(task: Any, moments: str, b2: float) -> Callable[[int], float]:
    """The held-out loss of a model that has been trained, by the seed; compiled once."""
    data, held_out = jax.tree.map(jnp.asarray, (task.data, task.held_out))
    windows = held_out.reshape(-1, 16, held_out.shape[-1])
    order = 1 if moments == OTHER else 0
    rate = RATE / 4 if moments == CONTROL else RATE

    def loss(model: Any, batch: Any) -> Any:
        return task.mean_loss(sx.resolve(model), batch)

    def learning_rate(count: Any) -> Any:
        time = (count + 1) / STEPS
        return rate * jnp.minimum(time * 10, 0.5 * (1 + jnp.cos(jnp.pi * time)))

    kind: Any = moments.split(",")[0]
    tx = sx.adam(learning_rate, b2=b2, moment_dtype=kind)

    @jax.jit
    def run(key: Any, data: Any, windows: Any) -> Any:
        model = sx.parameterize(
            lambda width: task.build({"width": width, "depth": 2}, key),
            width=WIDTH,
            base_width=WIDTH,
            parameterization=sx.standard,
        )
        arrays, static = eqx.partition(model, eqx.is_array)

        def step(carry: Any, index: Any) -> Any:
            arrays, state = carry
            batch = task.drawn(data, jax.random.fold_in(key, STEPS * order + index))
            gradient = eqx.filter_grad(loss)(eqx.combine(arrays, static), batch)
            updates, state = tx.update(gradient, state, arrays)
            return (eqx.apply_updates(arrays, updates), state), None

        (arrays, _), _ = jax.lax.scan(step, (arrays, tx.init(arrays)), jnp.arange(STEPS))
        model = eqx.combine(arrays, static)
        return jnp.mean(jax.lax.map(lambda batch: loss(model, batch), windows))

    def train(seed: int) -> float:
        with mock.patch.object(
            _adam_bytes, "hashed", to_nearest if moments == NEAREST else _adam_bytes.hashed
        ):
            return float(run(jax.random.key(seed), data, windows))

    return train


def summed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By moments and decay rate the mean loss, and by how much it is above float32's."""
    losses = {(row["b2"], row["moments"], row["seed"]): row["held-out loss"] for row in rows}
    table = []
    for b2 in DECAYS:
        for moments in MOMENTS:
            own = np.asarray([losses[b2, moments, seed] for seed in SEEDS])
            above = own - [losses[b2, FLOAT32, seed] for seed in SEEDS]
            table.append(
                {
                    "b2": b2,
                    "moments": moments,
                    "held-out loss": float(own.mean()),
                    "above float32": float(above.mean()),
                    "least": float(above.min()),
                    "greatest": float(above.max()),
                }
            )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/byte_moments.json"))
    out = parser.parse_args().out
    task = text(load_corpus(None), sequence_length=64, held_out_windows=64)
    rows: list[dict[str, Any]] = []
    for b2 in DECAYS:
        for moments in MOMENTS:
            train = trainer(task, moments, b2)
            for seed in SEEDS:
                row = {"b2": b2, "moments": moments, "seed": seed, "held-out loss": train(seed)}
                rows.append(row)
                print(row, flush=True)
    means = summed(rows)
    tables = [
        Table("moments in bytes", ("b2", "moments", "seed"), tuple(rows[0]), rows),
        Table("moments in bytes, means", ("b2", "moments"), tuple(means[0]), means),
    ]
    print(tables[1].to_markdown())
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(record(tables, "python tests/scaling/byte_moments.py").to_json(), "utf-8")


if __name__ == "__main__":
    main()
