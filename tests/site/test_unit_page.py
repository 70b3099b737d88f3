"""The tables of the page on unit scaling are those of the committed runs."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from scalex_eqx.diagnostics import Results

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "unit.md").read_text(encoding="utf-8")


def rows() -> list[str]:
    text = (DOCS / "results/unit_formats.json").read_text(encoding="utf-8")
    cells = defaultdict(list)
    for row in Results.from_json(text).table("narrow products").rows:
        cells[row["law"], row["products"]].append(row)
    found = []
    for (law, products), runs in cells.items():
        losses = ", ".join(f"{run['held-out loss']:.3f}" for run in runs)
        beyond = ", ".join(f"{run['beyond float32 in %']:+.1f}" for run in runs)
        shown = "" if products == "float32" else beyond
        found.append(f"| {law} | {products} | {losses} | {shown} |".replace("|  |", "| |"))
    return found


def test_what_narrow_products_cost():
    assert len(rows()) == 17
    assert "\n".join(rows()) in PAGE


def test_sizes_behind_attention():
    text = (DOCS / "results/unit_sizes.json").read_text(encoding="utf-8")
    found = Results.from_json(text).table("sizes behind attention").rows
    assert len(found) == 8
    for row in found:
        cells = []
        for kind in ("limit", "measured"):
            sizes = [row[f"{kind}, layer {i}"] for i in (1, 2, 3)]
            cells.append("" if None in sizes else ", ".join(f"{size:.2f}" for size in sizes))
        line = f"| {row['tokens']} | {row['length']} | {cells[0]} | {cells[1]} |"
        assert line.replace("|  |", "| |") in PAGE


def test_search_by_number_of_runs():
    text = (DOCS / "results/unit_search.json").read_text(encoding="utf-8")
    results = Results.from_json(text)
    best = {
        (row["search"], row["runs"]): row["best loss"]
        for row in results.table("best loss by runs").rows
    }
    counts = dict.fromkeys(runs for _, runs in best)
    lines = []
    for runs in counts:
        cells = (best.get((kind, runs)) for kind in ("one at a time", "random"))
        lines.append(
            f"| {runs} | " + " | ".join("" if x is None else f"{x:.3f}" for x in cells) + " |"
        )
    assert "\n".join(lines).replace("|  |", "| |") in PAGE
    random = [row["loss"] for row in results.table("runs").rows if row["part"] == "random"]
    losses = np.array(random, float)
    assert len(losses) >= 100 and np.min(losses) == best["random", len(losses)]
