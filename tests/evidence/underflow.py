"""From gradients that fall with the width to a loss: what a constant epsilon costs at a width,
predicted from the base width and measured.

    python tests/evidence/underflow.py [--out docs/results/evidence_underflow.json]

The evidence's model (base width 32) under Adam with full alignment at 2^-5 (and the octaves beside
it), in mean-field and in the standard parameterization, three seeds: epsilons of 1e-2 to 1e-3 that
stay, at widths 32 to 256, less the loss of one of 1e-12 that follows the gradients.

Gradients fall as r^-g by the parameterization's exponent, so that epsilon at the width ratio r is
what epsilon x r^g is at the base width. Each role of matrices has its own g: predicted is the
range of costs that the base width has at the smallest and the largest of them, interpolated in log
epsilon between seven epsilons, 1e-4 to 1e-1.
"""

import argparse
import dataclasses
import io
import json
import os
from pathlib import Path
from typing import Any

import jax

if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", min(os.cpu_count() or 1, 8))

import numpy as np
from _models import problem
from _rows import BASE
from _written import write
from rich.console import Console

import scalex_eqx as sx
from scalex_eqx.experiments import Run, parse_recipe, sweep
from scalex_eqx.experiments._drift import t_interval
from scalex_eqx.theory import Role, gradient_exponents

EPSILONS = ("1e-02", "3e-03", "1e-03")
BESIDE = ("1e-01", "3e-02", "3e-04", "1e-04")
LAWS = {"mean_field": sx.mean_field, "standard": sx.standard}
RATE = 2.0**-5
Costs = dict[str, tuple[float, float, float]]


@dataclasses.dataclass(frozen=True)
class Sizes:
    widths: tuple[int, ...] = (32, 64, 128, 256)
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 100


def predicted(
    law: sx.Parameterization, epsilon: float, width: int, base: Costs
) -> list[float | None]:
    """The base width's cost at epsilon x r^g, for the least and the largest g of a matrix.

    `None` beyond the epsilons that were tried there.
    """
    exponents = gradient_exponents(law)
    found = [float(exponents[role]) for role in (Role.embedding, Role.hidden, Role.readout)]
    return [_at(epsilon * (width / BASE) ** g, base) for g in (min(found), max(found))]


def _at(epsilon: float, base: Costs) -> float | None:
    tried = sorted((float(eps), found[0]) for eps, found in base.items())
    if not tried[0][0] <= epsilon * 1.001 or epsilon > tried[-1][0] * 1.001:
        return None
    logs, costs = np.log([eps for eps, _ in tried]), [cost for _, cost in tried]
    return float(np.interp(np.log(epsilon), logs, costs))


def recipe(law: str, epsilon: str | None) -> str:
    rule = "adam" if epsilon is None else f"adam(eps={epsilon},eps_scaling='constant')"
    return f"{law}:{rule}:full"


def costs(
    law: str, epsilons: tuple[str, ...], widths: tuple[int, ...], sizes: Sizes, folder: Path
) -> dict[int, Costs]:
    """By width and epsilon: the mean over seeds and its interval."""
    recipes = {eps: recipe(law, eps) for eps in (None, *epsilons)}
    sweep(
        problem(BASE),
        [*recipes.values()],
        widths=widths,
        learning_rates=[RATE / 2, RATE, 2 * RATE],
        seeds=sizes.seeds,
        steps=sizes.steps,
        schedule="linear",
        base_width=BASE,
        folder=folder,
        console=Console(file=io.StringIO()),
    )
    read = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    losses = {
        (run.recipe, run.size, run.seed): _finite(run)
        for run in map(Run.from_json, read["runs"])
        if run.learning_rate == RATE
    }
    names = {eps: str(parse_recipe(text)) for eps, text in recipes.items()}
    found: dict[int, Costs] = {width: {} for width in widths}
    for width in widths:
        for eps in epsilons:
            above = [
                losses[names[eps], width, seed] - losses[names[None], width, seed]
                for seed in sizes.seeds
            ]
            interval = t_interval(above)
            assert interval is not None, "two seeds at least"
            found[width][eps] = (float(np.mean(above)), *interval)
    return found


def measured(sizes: Sizes, folder: Path) -> list[dict[str, Any]]:
    # At the base width the parameterizations are one model. A sweep is over two widths.
    two = sizes.widths[:2]
    base = costs("standard", (*EPSILONS, *BESIDE), two, sizes, folder)[BASE]
    rows = []
    for name, law in LAWS.items():
        by_width = costs(name, EPSILONS, sizes.widths, sizes, folder)
        for eps in EPSILONS:
            rows.append(
                {
                    "parameterization": name,
                    "epsilon": eps,
                    "cost": {str(n): by_width[n][eps] for n in sizes.widths},
                    "predicted": {
                        str(n): predicted(law, float(eps), n, base) for n in sizes.widths
                    },
                }
            )
    return [{"parameterization": "base width", "cost": {str(BASE): base}}, *rows]


def _finite(run: Run) -> float:
    if run.held_out_loss is None:
        raise ValueError(f"{run.recipe} at width {run.size}, seed {run.seed}, diverged")
    return run.held_out_loss


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/evidence_underflow.json"))
    parser.add_argument("--folder", type=Path, default=Path("runs/evidence/underflow"))
    parser.add_argument("--widths", type=int, nargs="+", default=Sizes.widths)
    parser.add_argument("--seeds", type=int, nargs="+", default=Sizes.seeds)
    parser.add_argument("--steps", type=int, default=Sizes.steps)
    chosen = parser.parse_args(arguments)
    sizes = Sizes(tuple(chosen.widths), tuple(chosen.seeds), chosen.steps)
    rows = measured(sizes, chosen.folder)
    content = {"sizes": dataclasses.asdict(sizes), "rows": rows}
    write(chosen.out, "python tests/evidence/underflow.py", content)
    for row in rows:
        print(row, flush=True)


if __name__ == "__main__":
    main()
