"""How aligned updates are with what reaches them, over a training, and what that would prescribe.

    python tests/evidence/alignment.py [--out docs/results/evidence_alignment.json]

The transfer run's Transformer of two blocks in the standard parameterization under Adam with full
alignment at 2^-8, a constant learning rate, widths 32, 64, 128 and 256, three seeds: alpha, omega
and u of every matrix after 1, 4, 16 and 64 steps, and the exponents of learning rates that each
moment alone would prescribe. What is written is kept: the same command measures what is missing.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from _written import write

from scalex_eqx.cli._align import Align
from scalex_eqx.diagnostics import prescribe

WIDTHS, SEEDS, STEPS = (32, 64, 128, 256), (0, 1, 2), (1, 4, 16, 64)
RECIPE, RATE = "standard:adam:full", "2^-8"


def measured(steps: int, widths: tuple[int, ...], seeds: tuple[int, ...]) -> list[dict[str, Any]]:
    """A row of every matrix whose inputs grow, after so many steps."""
    asked = Align(recipe=RECIPE, widths=widths, seeds=seeds, steps=steps, learning_rate=RATE)
    found = prescribe(asked.measured())
    return [
        {
            "steps": steps,
            "weight": weight.name,
            "role": str(weight.role),
            **dict(zip(("alpha", "omega", "u"), map(_shown, weight.measured), strict=True)),
            "full": float(weight.full),
            "none": float(weight.none),
            "prescribed": float(weight.assumed_omega),
            "prescribed, omega as measured": float(weight.measured_omega),
        }
        for weight in found.weights
        if weight.role in ("hidden", "readout") and any(weight.measured)
    ]


def _shown(exponent: Any) -> dict[str, Any] | None:
    """The exponent and its 90 % interval over the seeds."""
    if exponent is None:
        return None
    interval = exponent.interval and [round(float(x), 3) for x in exponent.interval]
    return {"value": round(float(exponent.value), 3), "interval": interval}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/evidence_alignment.json"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/evidence_alignment.png"))
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    chosen = parser.parse_args(arguments)
    asked = {"widths": list(chosen.widths), "seeds": list(chosen.seeds)}
    rows: list[dict[str, Any]] = []
    if chosen.out.exists():
        before = json.loads(chosen.out.read_text(encoding="utf-8"))
        rows = before["rows"] if all(before[name] == asked[name] for name in asked) else []
    for steps in chosen.steps:
        if any(row["steps"] == steps for row in rows):
            continue
        rows += measured(steps, tuple(chosen.widths), tuple(chosen.seeds))
        rows.sort(key=lambda row: row["steps"])
        content = {"recipe": RECIPE, "learning rate": RATE, **asked, "rows": rows}
        write(chosen.out, "python tests/evidence/alignment.py", content)
        for row in rows:
            if row["steps"] == steps:
                print(_line(row), flush=True)
    draw(rows, chosen.picture)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Each matrix's exponents over the steps, and their means."""
    figure, every = plt.subplots(1, 3, figsize=(9, 3), sharey=True, layout="constrained")
    for axes, name in zip(every, ("alpha", "omega", "u"), strict=True):
        for weight in dict.fromkeys(row["weight"] for row in rows):
            own = [row for row in rows if row["weight"] == weight and row[name]]
            values = [row[name]["value"] for row in own]
            axes.plot([row["steps"] for row in own], values, color="#0f7b6c", alpha=0.35, lw=1)
        steps = sorted({row["steps"] for row in rows})
        means = [
            np.mean([row[name]["value"] for row in rows if row["steps"] == step and row[name]])
            for step in steps
        ]
        axes.plot(steps, means, "o-", color="#0b4f46", lw=2, ms=4)
        for level in (0.5, 1):
            axes.axhline(level, color="#888888", lw=0.8, ls=":")
        axes.set_xscale("log", base=2)
        axes.set_xticks(steps, [str(step) for step in steps])
        axes.set_title(name)
        axes.set_xlabel("steps")
        axes.spines[["top", "right"]].set_visible(False)
    every[0].set_ylabel("1: full, 1/2: none")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _line(row: dict[str, Any]) -> str:
    numbers = " ".join(
        f"{name} {row[name]['value']:+.2f}" for name in ("alpha", "omega", "u") if row[name]
    )
    return f"{row['steps']:4} steps {row['weight']:40} {numbers} prescribes {row['prescribed']:.2f}"


if __name__ == "__main__":
    main()
