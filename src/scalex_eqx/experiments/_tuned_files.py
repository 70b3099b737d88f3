"""A tuning's report: on the terminal, and as files beside the store."""

import functools
import os
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from .._usage import UsageError, shown
from ._landscape import plot_landscape
from ._lock import reporting
from ._members import losses_in
from ._rows import SweepRow
from ._store import Store
from ._tune import Tuned, conclusion, gone_through
from ._tuned_report import check_tuned_files, print_tuned, write_tuned
from ._tuning import Tuning


def report_tuned(store: Store, saved: SweepRow, console: Console) -> Tuned:
    """Prints what a store says of a tuning, and writes the files.

    Where the folder can't be written, it is printed alone.

    **Raises:** `UsageError` if runs are missing: each step of a tuning follows from the one before.
    """
    configuration = saved.configuration
    tuning = Tuning.from_json(configuration["tuning"])
    known = functools.partial(losses_in, tuning, configuration["problem"], store)
    course, missing = gone_through(tuning, known)
    if missing:
        raise UsageError(
            f"the tuning in {shown(store.path)} is not through: {len(course.losses)} runs have "
            f"ended, and {len(missing)} that it needs next are missing; the same `scalex tune` "
            "command goes on"
        )
    tuned = conclusion(course)
    facts = {**configuration["said"], "environment": saved.environment}
    write_tuned_files(tuned, facts, store.path.parent, console)
    print_tuned(tuned, console)
    return tuned


def write_tuned_files(
    tuned: Tuned, facts: Mapping[str, object], folder: Path, console: Console
) -> None:
    """Writes `tuned.json` and the picture into a folder, where that is possible."""
    if not os.access(folder, os.W_OK):
        console.print(f"{shown(folder)} can't be written: no files are", style="yellow")
        return
    with reporting(folder):
        check_tuned_files(folder)
        write_tuned(tuned, facts, folder / "tuned.json")
        plot_landscape(tuned, folder / "landscape.png")
