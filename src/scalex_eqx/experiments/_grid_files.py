"""A grid's report: on the terminal, and as files beside the store."""

import dataclasses
import json
import os
from pathlib import Path

from rich.console import Console

from .._usage import UsageError, in_shell, shown
from ._grid_page import write_grid_page
from ._grid_plot import plot_grid
from ._grid_print import print_grid
from ._grid_report import GridReport, read_grid, to_json
from ._lock import reporting
from ._rows import SweepRow
from ._store import Store
from ._write import written_whole

GRID_FILES = ("grid.html", "grid.png", "grid.json")


def report_grid(store: Store, saved: SweepRow, console: Console) -> GridReport:
    """Prints what a store says of a grid, and writes the files.

    Where the folder can't be written, it is printed alone.

    **Raises:** `UsageError` if there is not one finished run.
    """
    report, folder = read_grid(store, saved), store.path.parent
    if os.access(folder, os.W_OK):
        _write(report, store.path)
    else:
        console.print(f"{shown(folder)} can't be written: no files are", style="yellow")
    print_grid(report, console)
    return report


def check_grid_files(folder: Path) -> None:
    """Refuses, before hours of training, a folder where a report's file could not be written."""
    for name in GRID_FILES:
        if (folder / name).is_dir():
            raise UsageError(
                f"{shown(folder / name)} is a folder, in place of the report's file; move it away, "
                "or name another folder with --out"
            )


def _write(report: GridReport, path: Path) -> None:
    folder = path.parent
    with reporting(folder):
        check_grid_files(folder)
        plot_grid(report, folder / "grid.png")
        _write_json(report, folder / "grid.json")
        command = f"scalex report {in_shell(path)}"
        write_grid_page(report, folder / "grid.png", folder / "grid.html", command=command)


def _write_json(report: GridReport, path: Path) -> None:
    text = json.dumps(to_json(report), indent=2, allow_nan=False, ensure_ascii=False)
    lines = (json.dumps(dataclasses.asdict(run), allow_nan=False) for run in report.runs)
    with written_whole(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        # A run is one line.
        file.write(text.removesuffix("\n}") + ',\n  "runs": [\n    ')
        file.write(",\n    ".join(lines))
        file.write("\n  ]\n}\n")
