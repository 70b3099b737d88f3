"""Whether the best learning rate stays as a Transformer on text gets sparser.

    python tests/scaling/density_transfer.py [--out docs/results/density_transfer.json]

One block of width 128 on the text of the Python library, dense and with random masks that keep 1/4
and 1/16 of each matrix of the trunk, as many entries for each output: with the law of the density,
and without it, which is muP, or one learning rate and one spread for all, since the width stays.
The negative control has the law, and masks by magnitude: the largest entries of a model that has
been trained dense, on a fresh draw of its weights. Two seeds, seven learning rates an octave
apart, losses on held-out text. Writes the table that the docs show.
"""

import argparse
import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import scalex_eqx as sx
from scalex_eqx.diagnostics import Table, record
from scalex_eqx.experiments._optimum import fit_optimum
from scalex_eqx.problems._corpus import load_corpus
from scalex_eqx.problems._text import text

WIDTH, STEPS, SEEDS = 128, 120, (0, 1)
DENSITIES = (Fraction(1), Fraction(1, 4), Fraction(1, 16))
RATES = tuple(2.0**k for k in range(-10, -3))
KINDS = ("law", "none", "by magnitude")


def problem() -> Any:
    return text(load_corpus(None), sequence_length=32, head_dimension=32, held_out_windows=64)


def dense(task: Any, seed: int) -> Any:
    key = jax.random.key(seed)
    return sx.parameterize(
        lambda width: task.build({"width": width, "depth": 1}, key),
        width=WIDTH,
        base_width=WIDTH,
        parameterization=sx.mup,
    )


def start(task: Any, kind: str, density: Fraction, seed: int, trained: Any) -> tuple[Any, float]:
    """A model whose specs are those of all, and the factor of its hidden learning rates."""
    model = dense(task, seed)
    if kind == "by magnitude" and density < 1:
        masks = sx.magnitude_masks(trained, density)
        model = sx.with_masks(model, masks)
    else:
        base = None if kind == "none" else 1
        key = jax.random.key(seed + 100)
        model = sx.sparsify(model, density, key=key, base_density=base, pattern="balanced")
    rows = [row for row in sx.plan(model, sx.adam(1.0)).rows if row.density is not None]
    (factor,) = {row.learning_rate_factor for row in rows}
    assert factor is not None

    def plain(x: Any) -> Any:
        if type(x) is not sx.Masked:
            return x
        spec = dataclasses.replace(x.spec, density=None, sizes=())
        return sx.Masked(x.value, spec, x.mask)

    # One program for all: the numbers are those that the library's law has found.
    return jax.tree.map(plain, model, is_leaf=lambda x: isinstance(x, sx.Weight)), factor


def trainer(task: Any) -> Any:
    """Trains a model at several learning rates; returns the models and their held-out losses."""
    data, held_out = jax.tree.map(jnp.asarray, (task.data, task.held_out))

    def one(rate: Any, model: Any, factor: Any, seed: Any) -> Any:
        arrays, static = eqx.partition(model, eqx.is_array)

        def learning_rate(count: Any) -> Any:
            time = (count + 1) / STEPS
            return rate * jnp.minimum(time * 10, 0.5 * (1 + jnp.cos(jnp.pi * time)))

        tx = sx.adam(learning_rate, b2=0.95, role_multipliers={"hidden": factor})

        def step(carry: Any, index: Any) -> Any:
            arrays, state = carry
            model = eqx.combine(arrays, static)
            batch = task.drawn(data, jax.random.fold_in(jax.random.key(seed), index))
            gradient = eqx.filter_grad(lambda m: task.mean_loss(sx.resolve(m), batch))(model)
            params = eqx.filter(model, eqx.is_inexact_array)
            updates, state = tx.update(gradient, state, params)
            return (eqx.filter(eqx.apply_updates(model, updates), eqx.is_array), state), None

        state = tx.init(eqx.filter(model, eqx.is_inexact_array))
        (arrays, _), _ = jax.lax.scan(step, (arrays, state), jnp.arange(STEPS))
        model = eqx.combine(arrays, static)
        return task.judged(sx.resolve(model), held_out), model

    return eqx.filter_jit(eqx.filter_vmap(one, in_axes=(0, None, None, None)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/density_transfer.json"))
    arguments = parser.parse_args()
    task, rows, trained = problem(), [], {}
    train, rates = trainer(task), jnp.asarray(RATES)
    cells = [("law", DENSITIES[0])] + [(k, d) for k in KINDS for d in DENSITIES[1:]]
    for kind, density in cells:
        for seed in SEEDS:
            model, factor = start(task, kind, density, seed, trained.get(seed))
            losses, models = train(rates, model, jnp.asarray(factor), jnp.asarray(seed))
            (metric,) = losses.values()
            found = [float(x) for x in metric]
            if density == 1:
                lowest = int(np.nanargmin(found))
                own = jax.tree.map(lambda x, i=lowest: x[i] if eqx.is_array(x) else x, models)
                trained[seed] = unmasked(own)
            best = fit_optimum(RATES, found)
            rows.append(
                {
                    "masks": "dense" if density == 1 else kind,
                    "density": str(density),
                    "seed": seed,
                    "log2 of the best rate": best.log2_learning_rate,
                    "inside": best.inside,
                    "loss": best.loss,
                    **{f"2^{np.log2(rate):.0f}": x for rate, x in zip(RATES, found, strict=True)},
                }
            )
            print(rows[-1], flush=True)
    keys = ("masks", "density", "seed")
    table = Table("the best rate over densities", keys, tuple(rows[0]), rows)
    print(table.to_markdown())
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    command = "python tests/scaling/density_transfer.py"
    arguments.out.write_text(record([table], command).to_json(), encoding="utf-8")


def unmasked(model: Any) -> Any:
    return sx.map_weights(lambda w: sx.Weight(w.value, w.spec), model)


if __name__ == "__main__":
    main()
