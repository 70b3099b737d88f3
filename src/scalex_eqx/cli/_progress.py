import math

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
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("loss {task.fields[loss]}"),
            TimeElapsedColumn(table_column=Column(min_width=7)),
            TextColumn("left at most" if at_most else "left"),
            TimeRemainingColumn(table_column=Column(min_width=7)),
            console=console,
            # The first report of a width comes after its compilation.
            speed_estimate_period=300,
        )
        self._task = self._progress.add_task("", total=None, loss="-")

    def __enter__(self) -> "ProgressBar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, runs: int, stored: int, work: float, done: float) -> None:
        """Sets the bar's length; at first, says how much of it was in the store already."""
        self._progress.update(self._task, total=work, completed=done)
        first, self._begun = not self._begun, True
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
            self._console.print(f"training {name}, {runs} runs")

    def advance(self, work: float, loss: float) -> None:
        """Moves the bar; a loss of NaN means that every run has diverged."""
        shown = "diverged" if math.isnan(loss) else f"{loss:.3f}"
        self._progress.update(self._task, advance=work, loss=shown)
