"""The outcome of a transfer experiment: on the terminal, as a picture, a page and data."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .._usage import UsageError, shown
from ._axes import WIDTH, Axis
from ._fits import RecipeAnalysis, Run, to_json
from ._html import write_html as write_html
from ._plot import plot_transfer as plot_transfer
from ._wording import cells, columns, conclusions
from ._write import written_whole

REPORT_FILES = ("transfer.png", "results.json", "report.html")

_VERDICT_STYLES = {"transfers": "bold green", "drifts": "bold red", "cannot tell": "bold yellow"}


def print_table(analyses: Sequence[RecipeAnalysis], console: Console | None = None) -> None:
    """Prints a table a recipe, with its exponent, cost and verdict below.

    **Arguments:**

    - `analyses`: from `analyse`.
    - `console`: anything from 80 columns on; the terminal unless given.
    """
    console = console or Console()
    for analysis in analyses:
        console.print(_table(analysis))
        console.print(_conclusions(analysis))
        style = _VERDICT_STYLES[analysis.verdict]
        console.print(Text(analysis.sentence, style=style), end="\n\n")


def _table(analysis: RecipeAnalysis) -> Table:
    title = Text(analysis.recipe, style="bold")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    *numbers, note = columns(analysis.axis)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(note, style="yellow")
    for summary in analysis.sizes:
        # Text, not str: brackets in a note would be read as rich's markup.
        table.add_row(*(Text(cell) for cell in cells(summary)))
    return table


def _conclusions(analysis: RecipeAnalysis) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, value in conclusions(analysis):
        grid.add_row(Text(f" {name}", style="dim"), Text(value))
    return grid


def check_report_files(folder: Path) -> None:
    """Refuses, before hours of training, a folder where a report's file could not be written."""
    for name in REPORT_FILES:
        if (folder / name).is_dir():
            raise UsageError(
                f"{shown(folder / name)} is a folder, in place of the report's file; move it away, "
                "or name another folder with --out"
            )


def write_json(
    facts: Mapping[str, str], runs: Sequence[Run], analyses: Sequence[RecipeAnalysis], path: Path
) -> None:
    """Writes the facts, the analyses and every run as strict JSON, diverged losses as null.

    A run is one line.
    """
    content = {
        "facts": dict(facts),
        "analyses": [to_json(analysis) for analysis in analyses],
        "useful": {one.recipe: one.useful and asdict(one.useful) for one in analyses},
    }
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    axis = analyses[0].axis if analyses else WIDTH
    lines = (
        json.dumps(_run_to_json(run, axis), allow_nan=False, ensure_ascii=False) for run in runs
    )
    with written_whole(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        file.write(text.removesuffix("\n}") + ',\n  "runs": [\n    ')
        file.write(",\n    ".join(lines))
        file.write("\n  ]\n}\n")


def _run_to_json(run: Run, axis: Axis) -> dict[str, object]:
    plain = {axis.name if name == "size" else name: value for name, value in vars(run).items()}
    loss = run.held_out_loss
    plain["held_out_loss"] = loss if loss is not None and math.isfinite(loss) else None
    return plain
