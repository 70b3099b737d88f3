from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ._noise import ALL, Noise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = {
    "signal_to_noise": "signal to noise of an example",
    "critical_batch": "critical batch, examples",
    "kurtosis": "kurtosis of an example's gradient",
    "sign_ratio": "signs against gradients",
}


def noise_figure(noise: Noise) -> Figure:
    """Draws signal, noise and tails over training.

    A panel for each number; a line for each weight, thick for all together. Dotted lines are the
    batch size of the training, and what Gaussian noise has.

    **Arguments:**

    - `noise`: what [`scalex_eqx.diagnostics.noise`][] returned.

    **Returns:** a Matplotlib figure.
    """
    # Only who draws needs Matplotlib.
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row.weight for row in noise.rows))
    figure = Figure(figsize=(13, 3.4 + 0.12 * len(names)), layout="constrained")
    gaussian = {"kurtosis": 3.0, "sign_ratio": math.sqrt(2 / math.pi)}
    known = {"critical_batch": noise.batch_size, **gaussian}
    for axes, (field, title) in zip(figure.subplots(1, len(_PANELS)), _PANELS.items(), strict=True):
        for i, name in enumerate(names):
            _line(axes, noise, field, name, i)
        if field in known:
            axes.axhline(known[field], color="0.4", lw=0.8, ls=":")
        axes.set_title(title, fontsize=10)
        axes.set_xscale("symlog", base=2, linthresh=1)
        axes.set_xlim(-0.3, 1.4 * max(1, *(row.step for row in noise.rows)))
        # A ratio may be negative.
        if field != "sign_ratio":
            axes.set_yscale("log", base=2)
        axes.set_xlabel("step")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=7)
    return figure


def _line(axes: Any, noise: Noise, field: str, name: str, i: int) -> None:
    rows = [row for row in noise.rows if row.weight == name]
    values = [getattr(row, field) or math.nan for row in rows]
    thick = {"color": "black", "lw": 2.2} if name == ALL else {"color": f"C{(i - 1) % 10}", "lw": 1}
    style = "-" if name == ALL else ("-", "--", ":", "-.")[(i - 1) // 10 % 4]
    axes.plot([row.step for row in rows], values, style, marker=".", ms=4, label=name, **thick)
