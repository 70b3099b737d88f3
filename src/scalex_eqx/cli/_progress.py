import datetime
import math
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column


class ProgressBar:
    """One bar for a whole sweep, in units of its work, with loss and time left.

    **Arguments:**

    - `console`: where it is drawn.
    - `at_most`: whether the work that is announced is the most that may come.
    """

    def __init__(self, console: Console, *, at_most: bool = False):
        self._console = console
        self._at_most = at_most
        self._begun = False
        self._runs = self._ended = self._stored = 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[runs]}"),
            TextColumn("loss {task.fields[loss]}"),
            TimeElapsedColumn(table_column=Column(min_width=7)),
            TextColumn("left at most" if at_most else "left"),
            TimeRemainingColumn(table_column=Column(min_width=7)),
            console=console,
            # The first report of a width comes after its compilation.
            speed_estimate_period=300,
            # In a file or a pipe a bar would be one line at the end, cut to a terminal's width.
            disable=not console.is_terminal,
        )
        self._start = time.monotonic()
        self._task = self._progress.add_task("", total=None, loss="-", runs="")

    def __enter__(self) -> "ProgressBar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        if not self._console.is_terminal and self._ended > self._stored:
            took = datetime.timedelta(seconds=round(time.monotonic() - self._start))
            self._console.print(
                f"{self._ended} of {self._runs} runs are in the store, after {took}", soft_wrap=True
            )

    def begin(self, runs: int, stored: int, work: float, done: float) -> None:
        """Sets the bar's length; at first, says how much of it was in the store already."""
        self._progress.update(self._task, total=work, completed=done)
        self._runs, self._ended = runs, stored
        self._count(0)
        first, self._begun = not self._begun, True
        if first:
            self._stored = stored
        if first and stored == runs:
            self._console.print("all runs are in the store")
        elif first and stored and self._at_most:
            share = f"{100 * done / work:.0f} % of the most work that may come"
            self._console.print(f"{stored} runs are in the store, {share}")
        elif first and stored:
            self._console.print(
                f"{stored} of {runs} runs are in the store, {100 * done / work:.0f} % of the work"
            )

    def group(self, name: str, runs: int) -> None:
        """Names the runs that train now."""
        self._progress.update(self._task, description=name)
        if not self._console.is_terminal:
            self._console.print(f"training {name}, {runs} runs", soft_wrap=True)

    def advance(self, work: float, loss: float) -> None:
        """Moves the bar; a loss of NaN means that every run has diverged."""
        shown = "diverged" if math.isnan(loss) else f"{loss:.3f}"
        self._progress.update(self._task, advance=work, loss=shown)

    def ended(self, runs: int, work: float) -> None:
        """Counts runs that are stored, and moves the bar by what others have done of them."""
        self._progress.update(self._task, advance=work)
        self._count(runs)

    def say(self, line: str) -> None:
        """Says a line above the bar."""
        self._console.print(line, style="yellow", soft_wrap=True)

    def _count(self, runs: int) -> None:
        self._ended += runs
        self._progress.update(self._task, runs=f"{self._ended}/{self._runs} runs")
