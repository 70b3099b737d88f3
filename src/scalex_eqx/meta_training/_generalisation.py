"""What a learned rule does at sizes and horizons beyond those it was trained at."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..optim import LearnedRule
from ._task import Task, bounded, courses

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGER, DEEPER, LAST = 5, 4, 10


@dataclasses.dataclass(frozen=True)
class Course:
    """How the loss went in trainings of one size.

    **Arguments:**

    - `name`: of the size, for people to read.
    - `axis`: what is beyond the meta-training: `"width"`, `"steps"` or `"depth"`.
    - `losses`: before each step, the mean over the seeds.
    """

    name: str
    axis: str
    losses: np.ndarray

    @property
    def last(self) -> float:
        """The mean of the last ten."""
        return float(self.losses[-LAST:].mean())


def generalisation(
    task: Task,
    rule: LearnedRule,
    *,
    widths: Sequence[int],
    steps: int,
    seeds: int = 2,
    advance: Callable[[str], None] | None = None,
) -> list[Course]:
    """A rule's trainings at several widths, five times as long, and four times as deep.

    **Arguments:**

    - `task`: one that it was trained on; the longer and the deeper training have its width.
    - `widths`: those to be tried.
    - `steps`: of a training.
    - `seeds`: how many are averaged.
    - `advance`: called with each name before its training.
    """
    asked = [(f"width {n}", "width", {"width": n}, steps) for n in widths]
    own = f"width {task.sizes['width']}"
    asked.append((f"{own}, {LONGER * steps} steps", "steps", {}, LONGER * steps))
    if "depth" in task.sizes:
        depth = DEEPER * task.sizes["depth"]
        asked.append((f"{own}, depth {depth}", "depth", {"depth": depth}, steps))
    found = []
    for name, axis, sizes, count in asked:
        if advance is not None:
            advance(name)
        one = dataclasses.replace(task, sizes={**task.sizes, **sizes})
        losses = courses(one, one.learned, rule, steps=count, seeds=seeds)
        found.append(Course(name, axis, np.asarray(bounded(losses)).mean(axis=0)))
    return found


def generalisation_figure(found: Sequence[Course]) -> Figure:
    """Draws the losses over the steps: the widths beside one another, then what else was tried.

    **Arguments:**

    - `found`: what `generalisation` returned.
    """
    # Only who draws needs Matplotlib.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    widths = [one for one in found if one.axis == "width"]
    for i, one in enumerate(widths):
        colour = 0.85 - 0.85 * i / max(1, len(widths) - 1)
        _line(left, one, (0.1, 0.75 * colour, 0.35 + 0.5 * colour))
    for one, colour in zip([x for x in found if x.axis != "width"], ("C1", "C3"), strict=False):
        _line(right, one, colour)
    left.set_title("wider", fontsize=10)
    right.set_title("longer and deeper", fontsize=10)
    left.set_ylabel("training loss")
    for axes in (left, right):
        axes.set_xscale("symlog", linthresh=10)
        axes.set_xlim(0)
        axes.set_xlabel("step")
        axes.legend(fontsize=8)
    return figure


def _line(axes, one: Course, colour) -> None:
    axes.plot(one.losses, color=colour, lw=1.4, label=f"{one.name}: {one.last:.2f}")
