"""The table of the page on unit scaling is that of the committed run."""

from collections import defaultdict
from pathlib import Path

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
