"""Trains what the evidence page says, row by row, and writes its numbers.

    python tests/evidence/run.py [ROW ...] [--group GROUP] [--folder runs/evidence]
        [--out docs/results/evidence.json] [--picture docs/images/evidence.png]

A small language model at widths 32, 64 and 128 (the base is 32) with three seeds, for seven
learning rates an octave apart; where a minimum lies at the edge, or next to a run that diverged,
two octaves are added on that side, three times at most. Every run is kept in the folder: the same
command goes on where it was, also for rows whose table has changed. `--list` prints the rows.
"""

import argparse
import collections
import dataclasses
import io
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    import jax

    jax.config.update("jax_num_cpu_devices", min(os.cpu_count() or 1, 8))

import matplotlib.pyplot as plt
from _claims import CLAIMS
from _models import problem
from _rows import BASE, GROUPS, ROWS, SEEDS, STUDIES, WIDTHS, Row, Study
from _written import write
from rich.console import Console

from scalex_eqx.experiments import Run, analyse, parse_recipe, sweep
from scalex_eqx.experiments._drift import MARGIN
from scalex_eqx.experiments._grid_report import outcome_of
from scalex_eqx.experiments._judged import Answer, Outcome, judge_claim
from scalex_eqx.experiments._optimum import ALL_DIVERGED, LOWER_EDGE, UPPER_EDGE

COLOURS = {"transfers": "#0f7b6c", "drifts": "#c0392b", "cannot tell": "#b8860b"}
COUNT, ADDED, ROUNDS = 7, 2, 3
# The paper's grid has a learning rate in every second octave.
COARSE = 2


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of a whole run of the evidence; smaller ones are for trying it."""

    widths: tuple[int, ...] = WIDTHS
    seeds: tuple[int, ...] = SEEDS
    steps: int | None = None
    count: int = COUNT


def trained(
    study: Study, recipes: dict[str, int], folder: Path, sizes: Sizes, say: Callable[[str], None]
) -> dict[str, list[Run]]:
    """The runs of each recipe, as many as it takes for a minimum inside the grid.

    **Arguments:**

    - `recipes`: log2 of the first learning rate by recipe.
    """
    task = problem(BASE, **study.options)
    found: dict[str, dict[tuple[int, float, int], Run]] = collections.defaultdict(dict)
    wanted = {recipe: set(range(first, first + sizes.count)) for recipe, first in recipes.items()}
    for _ in range(ROUNDS + 1):
        # Recipes of one rule and grid are one program.
        together: dict[tuple[str, frozenset[int]], list[str]] = collections.defaultdict(list)
        for recipe, logs in wanted.items():
            together[parse_recipe(recipe).entry.name, frozenset(logs)].append(recipe)
        for (_, logs), members in together.items():
            begun = time.monotonic()
            sweep(
                task,
                members,
                widths=sizes.widths,
                learning_rates=[2.0**k for k in sorted(logs)],
                seeds=sizes.seeds,
                steps=sizes.steps or study.steps,
                schedule=study.schedule,  # pyright: ignore[reportArgumentType]
                warmup=study.warmup,
                base_width=BASE,
                folder=folder,
                console=Console(file=io.StringIO()),
            )
            for fields in json.loads((folder / "results.json").read_text())["runs"]:
                run = Run.from_json(fields)
                found[run.recipe][run.size, run.learning_rate, run.seed] = run
            say(f"  {len(members)} recipes at {len(logs)} rates, {time.monotonic() - begun:.0f} s")
        wider = {}
        for recipe in wanted:
            text = str(parse_recipe(recipe))
            notes = {
                optimum.note
                for size in analyse([*found[text].values()])[0].sizes
                for _, optimum in size.by_seed
                if not optimum.inside
            }
            low, high = min(wanted[recipe]), max(wanted[recipe])
            added: set[int] = set()
            if notes & {LOWER_EDGE, ALL_DIVERGED}:
                added |= {low - k for k in range(1, ADDED + 1)}
            if UPPER_EDGE in notes:
                added |= {high + k for k in range(1, ADDED + 1)}
            if added:
                wider[recipe] = wanted[recipe] | added
        if not wider:
            break
        wanted = wider
    return {recipe: [*found[str(parse_recipe(recipe))].values()] for recipe in recipes}


def coarse(runs: Iterable[Run]) -> dict[int, float | None]:
    """log2 of the best learning rate of the paper's grid at each width, by the seeds' mean loss."""
    losses: dict[int, dict[float, list[float]]] = collections.defaultdict(dict)
    for run in runs:
        octave = round(np.log2(run.learning_rate))
        if octave % COARSE == 0:
            lost = float("inf") if run.held_out_loss is None else run.held_out_loss
            losses[run.size].setdefault(octave, []).append(lost)
    best = {}
    for width, by_rate in sorted(losses.items()):
        means = {octave: float(np.mean(values)) for octave, values in by_rate.items()}
        octave = min(means, key=lambda key: means[key])
        best[width] = octave if np.isfinite(means[octave]) else None
    return best


def judged(row: Row, runs: list[Run], seconds: float) -> dict[str, Any]:
    """All that the page says of a row."""
    (analysis,) = analyse(runs)
    best = coarse(runs)
    by_width = {size.size: size for size in analysis.sizes}
    losses: dict[str, dict[str, list[float | None]]] = {}
    for run in sorted(runs, key=lambda run: (run.size, run.learning_rate, run.seed)):
        loss = None if run.held_out_loss is None else round(run.held_out_loss, 5)
        octave = f"{np.log2(run.learning_rate):g}"
        losses.setdefault(str(run.size), {}).setdefault(octave, []).append(loss)
    return {
        **dataclasses.asdict(row),
        "verdict": analysis.verdict,
        "answer": _answer(row.says, analysis.verdict),
        "exponent": analysis.drift.exponent,
        "interval": analysis.drift.interval,
        "reason": analysis.drift.reason,
        "best rate": {str(n): size.log2_learning_rate for n, size in by_width.items()},
        "best loss": {str(n): size.loss for n, size in by_width.items()},
        "coarse": {str(n): octave for n, octave in best.items()},
        "useful": analysis.useful and dataclasses.asdict(analysis.useful),
        "seconds": round(seconds),
        "losses": losses,
    }


def _answer(says: str, verdict: str) -> str:
    """Whether what the paper says of a row's transfer holds here; "" where it says nothing."""
    if not says:
        return ""
    if verdict not in ("transfers", "drifts"):
        return str(Answer.CANNOT_TELL)
    return str(Answer.HOLDS if (says == "transfers") == (verdict == "transfers") else Answer.DENIED)


def runs_of(name: str, losses: dict[str, dict[str, list[float | None]]], seeds: Any) -> list[Run]:
    """The runs that a row's losses are of."""
    return [
        Run(name, int(width), 2.0 ** float(octave), seed, loss)
        for width, by_rate in losses.items()
        for octave, values in by_rate.items()
        for seed, loss in zip(seeds, values, strict=True)
    ]


def answers(rows: Iterable[dict[str, Any]], seeds: Any) -> list[dict[str, Any]]:
    """What becomes of the claims whose rows are all there."""
    outcomes: dict[str, Outcome] = {}
    for row in rows:
        runs = runs_of(row["name"], row["losses"], seeds)
        (analysis,) = analyse(runs)
        largest = max(run.size for run in runs)
        outcomes[row["name"]] = outcome_of(row["name"], analysis, runs, largest)
    found = []
    for asked in CLAIMS:
        named = [n for one in asked.claim.statements for n in (one.first, one.second) if n]
        if not all(name in outcomes for name in named):
            continue
        judged = judge_claim(asked.claim, outcomes)
        found.append(
            {
                "group": asked.group,
                "claim": asked.claim.text,
                "source": asked.claim.published,
                "of": asked.claim.statements[0].of,
                "rows": named,
                "answer": str(judged.answer),
                "means": [mean and [mean[0], *mean[1]] for mean in judged.means],
                "reason": judged.reason,
            }
        )
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help="names of rows; all if none")
    parser.add_argument("--group", choices=GROUPS, action="append", help="only these tables")
    parser.add_argument("--folder", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/evidence.json"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/evidence.png"))
    parser.add_argument(
        "--judge", action="store_true", help="judge the losses in --out again, without training"
    )
    parser.add_argument("--list", action="store_true", help="print the rows and train nothing")
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--steps", type=int, help="instead of each study's")
    parser.add_argument("--count", type=int, default=COUNT, help="of first learning rates")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.rows if name not in ROWS]
    if unknown:
        parser.error(f"no such row: {unknown[0]!r}; --list prints the {len(ROWS)} there are")
    rows = [
        row
        for row in ROWS.values()
        if (not chosen.rows or row.name in chosen.rows)
        and (not chosen.group or row.group in chosen.group)
    ]
    if chosen.list:
        for row in rows:
            print(f"{row.group:10} {row.name:55} {row.recipe}")
        return
    sizes = Sizes(tuple(chosen.widths), tuple(chosen.seeds), chosen.steps, chosen.count)
    kept = json.loads(chosen.out.read_text())["rows"] if chosen.out.exists() else []
    done = {row["name"]: row for row in kept if row["name"] in ROWS}
    if chosen.judge:
        for name, row in done.items():
            runs = runs_of(name, row["losses"], sizes.seeds)
            done[name] = judged(ROWS[name], runs, row["seconds"])
        keep(chosen.out, [done[name] for name in ROWS if name in done], sizes, chosen.picture)
        return
    studies: dict[str, list[Row]] = collections.defaultdict(list)
    for row in rows:
        studies[row.study].append(row)
    for number, (name, members) in enumerate(studies.items(), 1):
        print(f"{number}/{len(studies)} {name}: {len(members)} rows", flush=True)
        begun = time.monotonic()
        recipes = {row.recipe: row.first for row in members}
        folder = chosen.folder / name.replace("/", " over ")
        found = trained(STUDIES[name], recipes, folder, sizes, lambda line: print(line, flush=True))
        seconds = (time.monotonic() - begun) / len(members)
        for row in members:
            before = done.get(row.name, {}).get("seconds", 0)
            # What was in the store took its time before.
            one = judged(row, found[row.recipe], max(seconds, before))
            done[row.name] = one
            print(f"    {row.name}: {one['verdict']}, {shown(one)}", flush=True)
        keep(chosen.out, [done[name] for name in ROWS if name in done], sizes, chosen.picture)


def shown(row: dict[str, Any]) -> str:
    if row["exponent"] is None:
        return row["reason"]
    low, high = row["interval"] or (float("nan"), float("nan"))
    return f"p = {row['exponent']:+.2f} [{low:+.2f}, {high:+.2f}]"


def keep(path: Path, rows: list[dict[str, Any]], sizes: Sizes, picture: Path) -> None:
    """Writes the numbers of all rows, and draws their picture."""
    content = {
        "sizes": dataclasses.asdict(sizes),
        "rows": rows,
        "claims": answers(rows, sizes.seeds),
    }
    write(path, "python tests/evidence/run.py", content)
    draw(rows, sizes, picture)


def draw(rows: list[dict[str, Any]], sizes: Sizes, path: Path) -> None:
    """Every row's drift exponent with its interval, and the margin of a transfer."""
    told = [row for row in reversed(rows) if row["interval"] is not None]
    if not told:
        return
    with plt.rc_context({"font.size": 8}):
        figure, axes = plt.subplots(figsize=(9, 1 + 0.19 * len(told)), layout="constrained")
        axes.axvspan(-MARGIN, MARGIN, color="#e8e8e8", zorder=0)
        axes.axvline(0, color="#888888", lw=0.8, zorder=1)
        for place, row in enumerate(told):
            low, high = row["interval"]
            colour = COLOURS[row["verdict"]]
            axes.plot([low, high], [place, place], color=colour, lw=2)
            axes.plot(row["exponent"], place, "o", color=colour, ms=4)
        axes.set_yticks(range(len(told)), [row["name"] for row in told])
        axes.set_ylim(-0.7, len(told) - 0.3)
        axes.set_xlabel("drift exponent p of the best learning rate, 90 % interval over seeds")
        widths = f"{sizes.widths[0]} to {sizes.widths[-1]}"
        axes.set_title(f"Grey: transfers (within {MARGIN} of 0). Widths {widths}.", loc="left")
        for name, colour in COLOURS.items():
            axes.plot([], [], "o", color=colour, label=name)
        axes.legend(loc="upper left", frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
        plt.close(figure)


if __name__ == "__main__":
    main()
