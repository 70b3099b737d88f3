"""From gradients that fall with the width to a loss: the width where a constant epsilon begins to
cost, predicted from the base width's gradients and measured by training.

    python tests/evidence/underflow.py [--out docs/results/evidence_underflow.json]

The evidence's model (base width 32) under Adam with full alignment, in mean-field and in the
standard parameterization, with epsilons of 1e-2 to 1e-3 that stay and one of 1e-12 that follows
the gradients, at 2^-5 and the octaves beside it, widths 32 to 256, three seeds.

An entry's update is g / (|g| + epsilon) of what it would be: one half where its gradient is as
large as epsilon. Predicted is the width at which the root mean square of the hidden matrices'
first gradients, which falls as r^-g by the parameterization's exponent, is epsilon. Measured is the
first width whose loss at 2^-5 lies above that of the epsilon that follows by more than 0.02, the
whole interval over the seeds.
"""

import argparse
import dataclasses
import datetime
import io
import json
import os
from pathlib import Path
from typing import Any

import jax

if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", min(os.cpu_count() or 1, 8))

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from _models import problem
from _rows import BASE
from rich.console import Console

import scalex_eqx as sx
from scalex_eqx.diagnostics import record
from scalex_eqx.experiments import Run, parse_recipe, sweep
from scalex_eqx.experiments._drift import t_interval
from scalex_eqx.theory import Role, gradient_exponents

EPSILONS = ("1e-02", "3e-03", "1e-03")
LAWS = {"mean_field": sx.mean_field, "standard": sx.standard}
RATE, COSTS = 2.0**-5, 0.02


@dataclasses.dataclass(frozen=True)
class Sizes:
    widths: tuple[int, ...] = (32, 64, 128, 256)
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 100


def hidden_gradient(law: sx.Parameterization, seed: int = 0) -> float:
    """The RMS of the hidden matrices' first gradients at the base width, all entries alike."""
    task = problem(BASE)
    model = sx.parameterize(
        lambda width: task.build({"width": width}, jax.random.key(seed)),
        width=BASE,
        base_width=BASE,
        parameterization=law,
    )

    @eqx.filter_jit
    def gradient(model: Any) -> Any:
        batch = task.drawn(jax.tree.map(jnp.asarray, task.data), jax.random.key(seed))
        return eqx.filter_grad(lambda m: task.mean_loss(sx.resolve(m), batch))(model)

    found = sx.weights_with_paths(gradient(model)).values()
    squares = [np.asarray(w.value) ** 2 for w in found if w.spec.role == Role.hidden]
    return float(np.sqrt(np.mean(np.concatenate([x.ravel() for x in squares]))))


def predicted(law: sx.Parameterization, epsilon: float, gradient: float) -> float:
    """The width at which the hidden gradients are as large as epsilon."""
    return BASE * (gradient / epsilon) ** (1 / float(gradient_exponents(law)[Role.hidden]))


def recipe(law: str, epsilon: str | None) -> str:
    rule = "adam" if epsilon is None else f"adam(eps={epsilon},eps_scaling='constant')"
    return f"{law}:{rule}:full"


def measured(sizes: Sizes, folder: Path) -> list[dict[str, Any]]:
    recipes = {(law, eps): recipe(law, eps) for law in LAWS for eps in (None, *EPSILONS)}
    sweep(
        problem(BASE),
        [*recipes.values()],
        widths=sizes.widths,
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
    rows = []
    for name, law in LAWS.items():
        gradient = hidden_gradient(law)
        names = {eps: str(parse_recipe(recipes[name, eps])) for eps in (None, *EPSILONS)}
        for eps in EPSILONS:
            costs: dict[str, Any] = {}
            begins = None
            for width in sizes.widths:
                above = [
                    losses[names[eps], width, seed] - losses[names[None], width, seed]
                    for seed in sizes.seeds
                ]
                interval = t_interval(above)
                costs[str(width)] = [float(np.mean(above)), *(interval or (None, None))]
                if begins is None and interval is not None and interval[0] > COSTS:
                    begins = width
            rows.append(
                {
                    "parameterization": name,
                    "epsilon": eps,
                    "gradient at the base width": gradient,
                    "predicted width": predicted(law, float(eps), gradient),
                    "costs from": begins,
                    "cost": costs,
                }
            )
    return rows


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
    facts = json.loads(record([], "python tests/evidence/underflow.py").to_json())
    content = {
        **{name: facts[name] for name in ("device", "versions", "command")},
        "date": datetime.date.today().isoformat(),
        "cores": os.cpu_count(),
        "sizes": dataclasses.asdict(sizes),
        "rows": rows,
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    for row in rows:
        print(row, flush=True)


if __name__ == "__main__":
    main()
