"""How large what attention puts out is at first in a unit-scaled Transformer, by layer and length.

    python tests/scaling/unit_sizes.py [--out docs/results/unit_sizes.json]

Three layers with heads of 16. In the limit of a large width, from the share of positions that have
the same token alone (`_unit_sizes.py`); and measured at width 256 on random tokens and on the text
of the Python library. Writes the table that the docs show.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _unit_sizes import layers

import scalex_eqx as sx
from scalex_eqx.diagnostics import Table, record
from scalex_eqx.problems._corpus import load_corpus

WIDTH, DEPTH, D, TOKENS = 256, 3, 16, 1024
LENGTHS, MEASURED = (64, 256, 1024, 2048), (64, 256)


def measured(tokens: Any) -> list[float]:
    """The sizes in each layer of one model on one batch."""

    def make(width: int) -> Any:
        return sx.nn.unit.Transformer(
            vocabulary_size=256, width=width, depth=DEPTH, head_dimension=D, key=jax.random.key(0)
        )

    found = sx.diagnostics.scales(
        lambda model, batch: model.loss(batch[:, :-1], batch[:, 1:], mapped=1),
        sx.parameterize(make, width=WIDTH, parameterization=sx.u_mup),
        sx.adam(1.0),
        lambda key: jnp.asarray(tokens),
        steps=1,
        at=[0],
        key=jax.random.key(1),
    )
    name = "blocks/attention/output/weight"
    return [row.size for row in found.rows if row.kind == "input" and row.weight.startswith(name)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/unit_sizes.json"))
    arguments = parser.parse_args()
    text = np.asarray(load_corpus(None).tokens)
    rng = np.random.default_rng(0)
    shares = np.bincount(text, minlength=256) / len(text)
    same = {"random": 1 / 256, "text": float(np.sum(shares**2))}
    rows = []
    for kind, probability in same.items():
        for length in LENGTHS:
            row: dict[str, Any] = {"tokens": kind, "length": length, "same token": probability}
            predicted = layers(length, DEPTH, same=probability, d=D)
            row |= {f"limit, layer {i}": float(size) for i, (size, _) in enumerate(predicted, 1)}
            row |= {f"measured, layer {i}": None for i in range(1, DEPTH + 1)}
            if length in MEASURED:
                batch = rng.integers(0, 256, (TOKENS // length, length + 1))
                if kind == "text":
                    starts = rng.integers(0, len(text) - length, (TOKENS // length, 1))
                    batch = text[starts + np.arange(length + 1)].astype(np.int32)
                row |= {f"measured, layer {i}": x for i, x in enumerate(measured(batch), 1)}
            rows.append(row)
            print(row, flush=True)
    table = Table("sizes behind attention", ("tokens", "length"), tuple(rows[0]), rows)
    print(table.to_markdown())
    results = record([table], "python tests/scaling/unit_sizes.py")
    arguments.out.write_text(results.to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
