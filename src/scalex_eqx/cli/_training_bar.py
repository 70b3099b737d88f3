import contextlib
import math
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from .. import _process
from ..problems._problem import JUDGED

# Steps of which the speed is the mean.
_RECENT = 20


class TrainingBar:
    """One bar for a training, with loss, held-out loss and speed; without a terminal, lines.

    **Arguments:**

    - `console`: where it is drawn.
    - `examples`: in a batch; without a number, the speed is one of steps.
    - `kept`: what is said if training is stopped once it has begun.
    """

    def __init__(self, console: Console, examples: int | None, kept: str):
        self._console, self._examples, self._kept = console, examples, kept
        self._begun = contextlib.ExitStack()
        self._recent: list[float] = []
        self._progress = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=None),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("held out {task.fields[held_out]}"),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(table_column=Column(min_width=7)),
            TextColumn("left"),
            TimeRemainingColumn(table_column=Column(min_width=7)),
            console=console,
            speed_estimate_period=300,
            # In a file or a pipe a bar would be one line at the end, cut to a terminal's width.
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=1, loss="-", held_out="-", speed="")

    def __enter__(self) -> "TrainingBar":
        self._progress.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.stop()
        self._begun.__exit__(*error)

    def begin(self, step: int, steps: int) -> None:
        """Sets the bar's length, and says where training goes on."""
        self._begun.enter_context(_process.keeping(self._kept))
        self._progress.update(self._task, total=steps, completed=step)
        if step == steps:
            self._console.print(f"all {steps} steps are done")
        elif step:
            self._console.print(f"goes on behind step {step} of {steps}")

    def stepped(self, step: int, loss: float) -> None:
        """Moves the bar."""
        self._recent = [*self._recent[-_RECENT:], time.monotonic()]
        self._progress.update(self._task, completed=step, loss=f"{loss:.4f}", speed=self._speed())

    def evaluated(self, step: int, metrics: dict[str, float]) -> None:
        """Shows the held-out loss; without a terminal, prints a line."""
        value = metrics.get(JUDGED, math.nan)
        self._progress.update(self._task, held_out=f"{value:.4f}")
        # Evaluating is no part of the steps' time.
        speed, self._recent = self._speed(), []
        if not self._console.is_terminal:
            said = ", ".join(f"{name} {number:.4f}" for name, number in metrics.items())
            self._console.print(f"step {step}: {said}; {speed}", soft_wrap=True)

    def saved(self, step: int) -> None:
        """Nothing is said of a checkpoint."""

    def _speed(self) -> str:
        if len(self._recent) < 2:
            return ""
        each = (self._recent[-1] - self._recent[0]) / (len(self._recent) - 1)
        number, unit = (self._examples, "examples") if self._examples else (1, "steps")
        return f"{number / max(each, 1e-9):.4g} {unit}/s"
