"""The picture of a training: the loss, and how long its steps took."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..experiments._write import write_figure
from ..problems._problem import JUDGED

PICTURE = "train.png"
_TRAINED, _SMOOTH, _HELD_OUT = "#9fc5c0", "#00695c", "#b3400f"


def draw(lines: Sequence[Mapping[str, Any]], path: Path, *, examples: int | None) -> None:
    """Draws the loss before each step and after it on held-out examples, and the speed.

    **Arguments:**

    - `lines`: of the log.
    - `path`: the PNG to write.
    - `examples`: in a batch; without a number, steps are counted.
    """
    figure = Figure(figsize=(8.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    losses, speed = figure.subplots(1, 2, width_ratios=(3, 2))
    steps, values = _curve(lines, "loss")
    losses.plot(steps, values, color=_TRAINED, linewidth=0.8, label="training, each step")
    losses.plot(steps, smooth(values), color=_SMOOTH, label="its running mean")
    at, held_out = _curve(lines, JUDGED)
    losses.plot(at, held_out, "o-", color=_HELD_OUT, markersize=4, label="held out")
    losses.set(xlabel="step", ylabel="loss (nats)")
    losses.legend(frameon=False, fontsize=9)
    steps, seconds = _curve(lines, "seconds")
    # One step is told late now and then, and the next one early.
    mean = np.maximum(smooth(seconds), 1e-9)
    speed.plot(steps, (examples or 1) / mean, color=_SMOOTH, linewidth=1.2)
    speed.set(xlabel="step", ylabel=f"{'examples' if examples else 'steps'} per second")
    speed.set_ylim(bottom=0)
    write_figure(figure, path)


def smooth(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The mean of each value and those before it, over a twentieth of all."""
    window = max(1, len(values) // 20)
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _curve(lines: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    found = [(line["step"], float(line[name])) for line in lines if name in line]
    steps, values = zip(*found, strict=True) if found else ((), ())
    return np.array(steps), np.array(values)
