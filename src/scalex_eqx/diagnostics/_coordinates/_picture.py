from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...theory import Role
from ._report import CoordinateCheck
from ._rows import CoordinateRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {
    Role.embedding: "tab:blue",
    Role.hidden: "tab:orange",
    Role.readout: "tab:red",
    Role.vector: "tab:green",
    Role.constant: "tab:gray",
}


def coordinate_figure(check: CoordinateCheck) -> Figure:
    """Draws a coordinate check: how much of what each weight puts out has changed.

    On the left its size against the width or depth, flat if the model scales as it should; on the
    right the exponents with their intervals, beside those that theory gives with the assumed
    alignment and with the measured one.

    **Arguments:**

    - `check`: from [`scalex_eqx.diagnostics.coordinate_check`][].

    **Returns:** a Matplotlib figure; `figure.savefig("check.png")` writes it.
    """
    # Only who draws needs Matplotlib.
    from matplotlib.figure import Figure

    rows = [row for row in check.rows if row.change is not None]
    height = max(4.0, 1.6 + 0.24 * len(rows))
    figure = Figure(figsize=(11, height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    _sizes(left, check, rows)
    _exponents(right, rows, check.over)
    figure.suptitle(f"{check.verdict}: after {check.steps} steps, {len(check.seeds)} seeds")
    return figure


def _sizes(axes: Axes, check: CoordinateCheck, rows: list[CoordinateRow]) -> None:
    from matplotlib.ticker import NullLocator

    numbers = [float(width) for width in check.widths]
    for role, colour in _COLOURS.items():
        of_role = [row for row in rows if row.law.role is role]
        if of_role:
            axes.plot([], [], color=colour, label=str(role))
        for row in of_role:
            axes.plot(numbers, row.sizes, ".-", color=colour, alpha=0.7, linewidth=1)
    axes.set(
        xlabel=check.over,
        ylabel="change of what the weight puts out (RMS)",
        xscale="log",
        yscale="log",
    )
    axes.set_xticks(numbers, labels=[str(width) for width in check.widths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)


def _exponents(axes: Axes, rows: list[CoordinateRow], over: str) -> None:
    places = np.arange(len(rows))[::-1]
    for place, row in zip(places, rows, strict=True):
        assert row.change is not None
        low, high = row.change.interval or (row.change.value, row.change.value)
        colour = _COLOURS[row.law.role]
        axes.plot([low, high], [place, place], color=colour, linewidth=2)
        axes.plot(row.change.value, place, "o", color=colour)
        axes.plot(row.change_assumed, place, "|", color="black", markersize=11)
        if row.change_explained is not None:
            axes.plot(row.change_explained, place, "x", color="black", markersize=6)
    axes.plot([], [], "o", color="gray", label="measured, with interval")
    axes.plot([], [], "|", color="black", label="theory, assumed alignment")
    axes.plot([], [], "x", color="black", label="theory, measured alignment")
    axes.axvline(0, color="gray", linewidth=0.8, zorder=0)
    axes.set_yticks(places, labels=[row.name for row in rows], fontsize="x-small")
    axes.set(xlabel=f"exponent p of the change, which grows as {over}^p")
    axes.set_xlim(min(-0.6, axes.get_xlim()[0]), max(0.6, axes.get_xlim()[1]))
    axes.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
