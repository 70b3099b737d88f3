from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._result import Stress, StressScale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What is smaller or larger is drawn at the picture's edge.
_LIMITS = (2.0**-8, 2.0**12)


def stress_figure(results: Sequence[Stress]) -> "Figure":
    """Draws several rules' updates against the gradient's scale; needs matplotlib.

    Above, the size of the update; a cross where it is no longer finite. Below, a bar for each
    rule over the scales where it is safe, and a thin line where it follows its formula, which
    may ask for a smaller update.

    **Arguments:**

    - `results`: what [`scalex_eqx.diagnostics.stress`][] found, for gradients of one kind.

    **Returns:** a `matplotlib.figure.Figure`.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MultipleLocator

    rows = len(results)
    figure = Figure(figsize=(9, 4 + 0.28 * rows), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 0.28 * rows))
    colours = [f"C{number % 10}" for number in range(rows)]
    for result, colour in zip(results, colours, strict=True):
        _draw_size(upper, result, colour)
    for row, (result, colour) in enumerate(zip(results, colours, strict=True)):
        _draw_bands(lower, result, colour, row)
    _arrange(upper, lower, results)
    lower.xaxis.set_major_locator(MultipleLocator(20))
    return figure


def _draw_size(axes: Any, result: Stress, colour: str) -> None:
    drawn: list[StressScale] = [s for s in result.scales if np.isfinite(s.largest)]
    sizes = np.clip([s.strength for s in drawn], *_LIMITS)
    axes.plot([s.exponent for s in drawn], sizes, color=colour, linewidth=1.5, alpha=0.85)
    lost = [s.exponent for s in result.scales if not np.isfinite(s.largest)]
    for edge in {min(lost, key=abs)} if lost else ():
        axes.plot([edge], [1.0], marker="x", markersize=7, markeredgewidth=2, color=colour)


def _draw_bands(axes: Any, result: Stress, colour: str, row: int) -> None:
    for band, height in ((result.formula, 0.12), (result.safe, 0.6)):
        if band is not None:
            width = band.high - band.low + 1
            axes.barh(row, width, height, left=band.low - 0.5, color=colour)
    if result.safe is None:
        axes.text(0, row, "nowhere safe", va="center", ha="center", fontsize=8)


def _arrange(upper: Any, lower: Any, results: Sequence[Stress]) -> None:
    upper.set_title(results[0].setting, loc="left", fontsize=11)
    upper.set_yscale("log", base=2)
    upper.set_ylim(_LIMITS[0], max(4.0, *(_highest(result) for result in results)))
    upper.set_ylabel("RMS of the update\n(1 at unit scale)")
    lower.set_yticks(range(len(results)), [result.name for result in results])
    lower.invert_yaxis()
    lower.set_xlim(min(r.sweep.low for r in results) - 2, max(r.sweep.high for r in results) + 2)
    lower.xaxis.set_major_formatter(lambda x, _: f"$2^{{{x:.0f}}}$")
    lower.set_xlabel("scale of the gradient (bars: safe; lines: within 1 % of its formula)")
    for axes in (upper, lower):
        axes.grid(color="0.92", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)


def _highest(result: Stress) -> float:
    """How far up the curve goes, with room above."""
    return min(_LIMITS[1], 2 * max(s.strength for s in result.scales if np.isfinite(s.strength)))
