"""Rules that look at each example's gradient, on text, each at its own best learning rate.

    python tests/scaling/example_rules.py [--out docs/results/example_rules.json]

One block of width 32, windows of 32 tokens of the Python library, batches of 16, 100 steps. First
signal, noise and tails are measured, at initialisation and after a warm-up of 20 steps of Adam,
on 1024 examples that no training sees; which sign rule is the best is predicted from them. Then
each rule is trained with three seeds at learning rates an octave apart, and judged by the held-out
loss at the vertex of a parabola. Writes every curve, and the best losses with the 90 % interval
over the seeds of the differences to Adam, for the sign rules to SignEMA; and what was predicted.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import scalex_eqx as sx
from scalex_eqx.diagnostics import Table, noise, record
from scalex_eqx.experiments import Setting, parse_recipe
from scalex_eqx.experiments._config import Member
from scalex_eqx.experiments._drift import t_interval
from scalex_eqx.experiments._optimum import fit_optimum
from scalex_eqx.experiments._train import packs, train_pack
from scalex_eqx.problems import text
from scalex_eqx.problems._corpus import load_corpus

WIDTH, STEPS, BATCH, WARM_UP, SEEDS = 32, 100, 16, 20, (0, 1, 2)
BETAS = "b1=0.9,b2=0.95"
ADAM, SIGN_EMA = "adam", "sign_ema, last"
# By name: the recipe, and log2 of the smallest of its six learning rates.
RULES = {
    ADAM: (f"adam({BETAS})", -9),
    "micro_adam, square": (f"micro_adam({BETAS})", -8),
    "micro_adam, variance": (f"micro_adam({BETAS},second='variance')", -8),
    "micro_adam, mean": (f"micro_adam({BETAS},second='mean')", -10),
    SIGN_EMA: ("sign_ema", -10),
    "sign_ema, mean": ("sign_ema(placement='mean')", -9),
    "sign_ema, example": ("sign_ema(placement='example')", -7),
}


def problem() -> Any:
    return text(load_corpus(None), sequence_length=32, batch_size=BATCH, held_out_windows=64)


def predicted(task: Any) -> Any:
    """Signal and noise before the training, on batches of its own."""
    key = jax.random.key(100)

    def make(width: int) -> Any:
        return task.build({"width": width, "depth": 1}, key)

    model = sx.parameterize(make, width=WIDTH, base_width=WIDTH, parameterization=sx.standard)
    data = jnp.asarray(task.data)
    return noise(
        lambda model, one: task.example_loss(sx.resolve(model), one),
        model,
        sx.adam(2.0**-6, b2=0.95),
        lambda key: task.drawn(data, key),
        steps=WARM_UP,
        at=(0, WARM_UP),
        batches=1024 // BATCH,
        key=key,
    )


def curves(task: Any, name: str) -> list[dict[str, Any]]:
    """The losses of a rule by learning rate, for each seed."""
    optimizer, first = RULES[name]
    recipe = parse_recipe(f"standard:{optimizer}:full")
    rates = [2.0 ** (first + i) for i in range(6)]
    members = [Member(recipe, WIDTH, rate, seed) for rate in rates for seed in SEEDS]
    losses: dict[tuple[float, int], float] = {}
    for pack in packs(task, Setting(base_width=WIDTH, steps=STEPS, depth=1), members):
        for member, run in train_pack(pack, at_once=None, progress=lambda *_: None):
            losses[member.learning_rate, member.seed] = run.metrics["held_out_loss"]
    rows = []
    for seed in SEEDS:
        own = [losses[rate, seed] for rate in rates]
        best = fit_optimum(rates, own)
        rows.append(
            {
                "rule": name,
                "seed": seed,
                "log2 of the first rate": first,
                "losses": " ".join(f"{x:.4f}" for x in own),
                "log2 of the best rate": best.log2_learning_rate,
                "inside": best.inside,
                "loss": best.loss,
            }
        )
    return rows


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By rule the best loss, and how much it is above the one that it is compared with."""
    best = {(row["rule"], row["seed"]): row for row in rows}
    table = []
    for name in dict.fromkeys(row["rule"] for row in rows):
        other = SIGN_EMA if name.startswith("sign") else ADAM
        own = [best[name, seed] for seed in SEEDS]
        above = [row["loss"] - best[other, row["seed"]]["loss"] for row in own]
        low, high = t_interval(above) or (None, None)
        table.append(
            {
                "rule": name,
                "log2 of the best rate": float(np.mean([r["log2 of the best rate"] for r in own])),
                "inside": all(row["inside"] for row in own),
                "loss": float(np.mean([row["loss"] for row in own])),
                "compared with": other,
                "above": float(np.mean(above)),
                "low": low,
                "high": high,
            }
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/example_rules.json"))
    out = parser.parse_args().out
    task = problem()
    found = predicted(task)
    print(found, flush=True)
    rows: list[dict[str, Any]] = []
    for name in RULES:
        rows += curves(task, name)
        print(rows[-len(SEEDS) :], flush=True)
    best = compared(rows)
    for row in best:
        print(row, flush=True)
    tables = [
        Table("the best rate of each rule", ["rule", "seed"], tuple(rows[0]), rows),
        Table("best losses", ["rule"], tuple(best[0]), best),
        found.table(),
        found.prediction_table(),
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    command = "python tests/scaling/example_rules.py"
    out.write_text(record(tables, command).to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
