"""Whether the best learning rate stays as a Transformer on text gets sparser.

    python tests/scaling/density_transfer.py [--out docs/results/density_transfer.json]

One block of width 128, base width 64, on the text of the Python library, dense and with masks that
keep 1/4 and 1/16 of each matrix of the trunk. The factors of the embedding's and the readout's
learning rates are the best of the dense base model, which `--tune` measures. Masks are

- random, as many entries for each output, with the law of the density; with muP alone; and with
  the standard parameterization and one learning rate and spread for all, whose factors are 1;
- the largest entries of the fresh draw, with the law: the negative control;
- the largest entries of a model that has been trained dense, whose values go on to be trained,
  with the learning rates of the law;
- reached by gradual pruning by magnitude, with the spread and the learning rates that the law has
  for the final density, and with those of the dense model.

Three seeds, learning rates an octave apart, losses on held-out text. Writes the optima, and by
kind of mask how far they lie from the dense model's, with the 90 % interval over the seeds.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import scalex_eqx as sx
from scalex_eqx.diagnostics import Table, record
from scalex_eqx.experiments._drift import t_interval
from scalex_eqx.experiments._optimum import fit_optimum
from scalex_eqx.problems._corpus import load_corpus
from scalex_eqx.problems._text import text

WIDTH, BASE, STEPS, SEEDS = 128, 64, 120, (0, 1, 2)
DENSITIES = (Fraction(1), Fraction(1, 4), Fraction(1, 16))
PRUNED_EVERY, PRUNED_FROM, PRUNED_UNTIL = 10, 20, 90
GAMMAS = {"embedding": 16.0, "readout": 4.0}
COUNT = 9


@dataclasses.dataclass(frozen=True)
class Kind:
    """How masks are made, and what follows the density.

    **Arguments:**

    - `first`: log2 of the smallest of its learning rates.
    - `dense`: of which kind the dense model is that its optima are compared with.
    - `law`: whether spread and learning rates follow the density.
    - `one_rate`: the standard parameterization, with one learning rate for all.
    """

    first: int
    dense: str
    law: bool = True
    one_rate: bool = False


TRAINED = "largest of a trained model"
KINDS = {
    "random, law": Kind(-11, "random, law"),
    "random, muP": Kind(-8, "random, law", law=False),
    "random, one rate": Kind(-11, "random, one rate", law=False, one_rate=True),
    "largest of the draw": Kind(-11, "random, law"),
    TRAINED: Kind(-13, TRAINED),
    "gradual, law": Kind(-11, "random, law"),
    "gradual, muP": Kind(-10, "random, law", law=False),
}


def problem() -> Any:
    return text(load_corpus(None), sequence_length=32, head_dimension=32, held_out_windows=64)


def dense(task: Any, seed: int, *, width: int = WIDTH, law: Any = sx.mup) -> Any:
    """Every entry of the trunk's matrices is kept."""
    key = jax.random.key(seed)
    model = sx.parameterize(
        lambda width: task.build({"width": width, "depth": 1}, key),
        width=width,
        base_width=BASE,
        parameterization=law,
    )
    return sx.sparsify(model, 1, key=key)


def start(
    task: Any, name: str, density: Fraction, seed: int, trained: dict[int, Any]
) -> tuple[Any, float]:
    """The model to train, and the density's factor on its learning rates."""
    kind = KINDS[name]
    model = dense(task, seed, law=sx.standard if kind.one_rate else sx.mup)
    key = jax.random.key(seed + 100)
    spread, rate = factors(model, density, key) if kind.law else (1.0, 1.0)
    if name.startswith("random"):
        masks = weights(sx.sparsify(unmasked(model), density, key=key, pattern="balanced"))
        model, _ = sx.remasked(model, {path: weight.mask for path, weight in masks.items()})
    elif name == TRAINED:
        model, spread = trained[seed], 1.0
        model, _ = sx.pruned(model, float(density))
    elif name == "largest of the draw":
        model, _ = sx.pruned(model, float(density))

    def spread_of(weight: Any) -> Any:
        value = weight.value * spread if type(weight) is sx.Masked else weight.value
        return dataclasses.replace(weight, value=value)

    return sx.map_weights(spread_of, model), rate


def weights(model: Any) -> dict[str, Any]:
    found = sx.weights_with_paths(model)
    return {path: weight for path, weight in found.items() if type(weight) is sx.Masked}


def unmasked(model: Any) -> Any:
    return sx.map_weights(
        lambda w: sx.Weight(w.value, dataclasses.replace(w.spec, density=None)), model
    )


def factors(model: Any, density: Fraction, key: Any) -> tuple[float, float]:
    """Of spread and learning rate, as the library has them for random masks."""
    sparse = sx.sparsify(unmasked(model), density, key=key, pattern="balanced")
    one, other = numbers(sparse), numbers(model)
    (both,) = {(one[p][0] / other[p][0], one[p][1] / other[p][1]) for p in one}
    return both


def numbers(model: Any) -> dict[str, tuple[Any, Any]]:
    """Initial spread and learning rate of the masked weights."""
    rates = {row.path: row.learning_rate_factor for row in sx.plan(model, sx.adam(1.0)).rows}
    return {path: (w.spec.initial_std, rates[path]) for path, w in weights(model).items()}


def trainer(task: Any, *, one_rate: bool = False, gradual: bool = False) -> Callable[..., Any]:
    """Trains a model at several learning rates; returns held-out losses and the models."""
    data, held_out = jax.tree.map(jnp.asarray, (task.data, task.held_out))

    def one(rate: Any, model: Any, gammas: Any, seed: Any, final: Any) -> Any:
        arrays, static = eqx.partition(model, eqx.is_array)

        def learning_rate(count: Any) -> Any:
            time = (count + 1) / STEPS
            return rate * jnp.minimum(time * 10, 0.5 * (1 + jnp.cos(jnp.pi * time)))

        rates: Any = sx.global_rate if one_rate else sx.full_alignment
        tx = sx.adam(learning_rate, rates, b2=0.95, role_multipliers=gammas)

        def step(carry: Any, index: Any) -> Any:
            arrays, state = carry
            model = eqx.combine(arrays, static)
            batch = task.drawn(data, jax.random.fold_in(jax.random.key(seed), index))
            gradient = eqx.filter_grad(lambda m: task.mean_loss(sx.resolve(m), batch))(model)
            params = eqx.filter(model, eqx.is_inexact_array)
            updates, state = tx.update(gradient, state, params)
            arrays = eqx.filter(eqx.apply_updates(model, updates), eqx.is_array)
            if gradual:
                arrays, state = pruned(arrays, state, index)
            return (arrays, state), None

        def pruned(arrays: Any, state: Any, index: Any) -> Any:
            density = sx.cubic_density(
                index,
                begin=PRUNED_FROM,
                end=PRUNED_UNTIL,
                final=final,
            )

            def changed(arrays: Any, state: Any) -> Any:
                model, after = sx.pruned(eqx.combine(arrays, static), density, state)
                return eqx.filter(model, eqx.is_array), after

            return jax.lax.cond(
                index % PRUNED_EVERY == 0, changed, lambda *same: same, arrays, state
            )

        state = tx.init(eqx.filter(model, eqx.is_inexact_array))
        (arrays, _), _ = jax.lax.scan(step, (arrays, state), jnp.arange(STEPS))
        model = eqx.combine(arrays, static)
        return task.judged(sx.resolve(model), held_out), model

    return eqx.filter_jit(eqx.filter_vmap(one, in_axes=(0, None, None, None, None)))


def densities(name: str) -> list[Fraction]:
    """Those of a kind; the dense models that it shares with an earlier one are trained there."""
    return [d for d in DENSITIES if d < 1 or KINDS[name].dense == name]


def rates_of(name: str) -> list[float]:
    return [2.0 ** (KINDS[name].first + i) for i in range(COUNT)]


def trainers(task: Any) -> Callable[[str], Any]:
    plain = trainer(task)
    one_rate, gradual = trainer(task, one_rate=True), trainer(task, gradual=True)

    def of(name: str) -> Any:
        return one_rate if KINDS[name].one_rate else gradual if "gradual" in name else plain

    return of


def row(
    task: Any, train: Any, name: str, density: Fraction, seed: int, trained: dict[int, Any]
) -> dict[str, Any]:
    model, factor = start(task, name, density, seed, trained)
    own = {"embedding": 1.0, "readout": 1.0} if KINDS[name].one_rate else GAMMAS
    gammas = {role: jnp.asarray(x) for role, x in {**own, "hidden": factor}.items()}
    rates = rates_of(name)
    # The density that pruning ends at is checked, and so no traced number.
    numbers = (jnp.asarray(seed), float(density) if "gradual" in name else 1.0)
    losses, models = train(name)(jnp.asarray(rates), model, gammas, *numbers)
    (metric,) = losses.values()
    found = [float(x) for x in metric]
    if (name, density) == ("random, law", 1):
        lowest = int(np.nanargmin(found))
        trained[seed] = jax.tree.map(lambda x: x[lowest] if eqx.is_array(x) else x, models)
    best = fit_optimum(rates, found)
    return {
        "masks": name,
        "density": str(density),
        "seed": seed,
        "log2 of the best rate": best.log2_learning_rate,
        "inside": best.inside,
        "loss": best.loss,
        "log2 of the first rate": KINDS[name].first,
        "losses": " ".join(f"{x:.4f}" for x in found),
    }


def shifts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By kind and density, octaves between its best rates and the dense model's, paired by seed."""
    by_cell = {(r["masks"], r["density"], r["seed"]): r for r in rows}
    table = []
    for name, density in dict.fromkeys((r["masks"], Fraction(r["density"])) for r in rows):
        own = [by_cell[name, str(density), seed] for seed in SEEDS]
        dense = [by_cell[KINDS[name].dense, "1", seed] for seed in SEEDS]
        inside = all(r["inside"] for r in (*own, *dense))
        key = "log2 of the best rate"
        by_seed = [r[key] - d[key] for r, d in zip(own, dense, strict=True)]
        low, high = (t_interval(by_seed) or (None, None)) if inside else (None, None)
        table.append(
            {
                "masks": name,
                "density": str(density),
                "best": float(np.mean([r[key] for r in own])),
                "inside": inside,
                "shift": float(np.mean(by_seed)),
                "low": low,
                "high": high,
                "loss": float(np.mean([r["loss"] for r in own])),
            }
        )
    return table


def shown(row: Mapping[str, Any]) -> str:
    """A row as the docs have it."""
    best = f"2^{row['best']:.1f}" + ("" if row["inside"] else " or beyond")
    # Without a sign of zero.
    shift, low, high = (
        None if row[name] is None else f"{round(row[name], 1) + 0.0:+.1f}"
        for name in ("shift", "low", "high")
    )
    moved = f"{shift}" + ("" if row["inside"] else " or more")
    moved += f", {low} to {high}" if row["inside"] else ""
    moved = "-" if row["density"] == "1" else moved
    return f"| {row['masks']} | {row['density']} | {best} | {moved} | {row['loss']:.3f} |"


def tune(task: Any) -> None:
    """The best loss of the dense base model by the factors of embedding and readout."""
    train = trainer(task)
    rates = jnp.asarray([2.0**k for k in range(-11, -3)])
    for embedding in (1.0, 4.0, 16.0):
        for readout in (0.25, 1.0, 4.0):
            best = []
            for seed in SEEDS[:2]:
                gammas = {"embedding": embedding, "readout": readout, "hidden": 1.0}
                model = dense(task, seed, width=BASE)
                numbers = (jnp.asarray(seed), jnp.asarray(1.0))
                losses, _ = train(rates, model, jax.tree.map(jnp.asarray, gammas), *numbers)
                (metric,) = losses.values()
                best.append(fit_optimum(rates.tolist(), [float(x) for x in metric]))
            rate, loss = (
                [round(float(getattr(x, n)), 3) for x in best]
                for n in ("log2_learning_rate", "loss")
            )
            print(f"embedding {embedding}, readout {readout}: 2^{rate}, loss {loss}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/density_transfer.json"))
    parser.add_argument("--tune", action="store_true", help="the base model's factors alone")
    arguments = parser.parse_args()
    task = problem()
    if arguments.tune:
        tune(task)
        return
    train, trained, rows = trainers(task), {}, []
    for name in KINDS:
        for density, seed in itertools.product(densities(name), SEEDS):
            rows.append(row(task, train, name, density, seed, trained))
            print(rows[-1], flush=True)
        write(arguments.out, rows)


def write(out: Path, rows: list[dict[str, Any]]) -> None:
    """What there is after each kind of masks: it takes long."""
    keys = ("masks", "density", "seed")
    table = Table("the best rate over densities", keys, tuple(rows[0]), rows)
    moved = shifts(rows)
    summary = Table("octaves from the dense model", keys[:2], tuple(moved[0]), moved)
    print("\n".join(map(shown, moved)), flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    command = "python tests/scaling/density_transfer.py"
    out.write_text(record([table, summary], command).to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
