from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ._alignment import MeasuredAlignments

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FIELDS = ("alpha", "omega", "u", "total")


def alignment_figure(measured: Mapping[int, MeasuredAlignments]) -> Figure:
    r"""Draws the alignment of every weight over training time.

    ```python
    history = {}
    for step in range(steps):
        model, state = train(model, state)
        if step % 20 == 0:
            history[step] = measure(initial_model, model, tokens)
    sx.diagnostics.alignment_figure(history).savefig("alignment.png")
    ```

    A panel for each of $\alpha$, $\omega$, $u$ and the total log-alignment ratio, a line for each
    weight; 1/2 is what independent entries have, and 1 the most there can be. At one width these
    are monitors: a constant factor of 2 is worth 0.17 at a fan-in of 64.

    **Arguments:**

    - `measured`: by step, what [`scalex_eqx.diagnostics.alignment`][] returned.

    **Returns:** a Matplotlib figure.

    **Raises:** `ValueError` if there is nothing to draw.
    """
    # Only who draws needs Matplotlib.
    from matplotlib.figure import Figure

    steps = sorted(measured)
    if not steps:
        raise ValueError("measured is empty; give at least one step's alignments")
    layers = [measured[step].by_layer() for step in steps]
    names = [name for name, use in layers[0].items() if use.fan_in > 1]
    figure = Figure(figsize=(13, 3.2 + 0.09 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(_FIELDS), sharey=True)
    for axes, field in zip(panels, _FIELDS, strict=True):
        for number, name in enumerate(names):
            values = [_value(getattr(of_step[name], field)) for of_step in layers]
            style = "-" if number < 10 else "--" if number < 20 else ":"
            axes.plot(steps, values, style, color=f"C{number % 10}", label=name, linewidth=1.2)
        for level in (0.5, 1.0):
            axes.axhline(level, color="gray", linewidth=0.8, zorder=0)
        axes.set(title=field, xlabel="step")
    panels[0].set_ylabel("log ratio to the base of the fan-in")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="x-small")
    return figure


def _value(logarithm: object) -> float:
    """NaN, which leaves a gap, where it isn't defined."""
    return np.nan if logarithm is None else float(np.asarray(logarithm))
