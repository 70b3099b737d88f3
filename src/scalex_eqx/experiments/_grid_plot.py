"""The picture of a grid: drift exponents, and losses at the largest width, a line a recipe."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ._drift import LEVEL, MARGIN, t_interval
from ._grid_report import GridReport, GridRow
from ._grid_words import rates_of, rules_of
from ._published import EXPONENTS
from ._recipe import RATES, THE_FOUR
from ._write import write_figure

_COLOURS = {"global": "#b3400f", "full": "#00695c", "none": "#5a4fa3"}
_MARKERS = {"global": "s", "full": "o", "none": "D"}
_NAMES = {
    "global": "one learning rate",
    "full": "by layer, full alignment",
    "none": "by layer, no alignment",
}
_FAINT = "0.45"


def plot_grid(report: GridReport, path: Path) -> None:
    """Draws two panels for each update rule: exponents on the left, losses on the right.

    **Arguments:**

    - `path`: the PNG to write.
    """
    rules = rules_of(report)
    figure = Figure(figsize=(8.4, 3.55 * len(rules) + 0.95), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(rules), 2, sharey="row", squeeze=False, width_ratios=(1.15, 1))
    for (exponents, losses), (rule, rows) in zip(panels, rules.items(), strict=True):
        _draw_exponents(exponents, rule, rows)
        _draw_losses(losses, rows, report.largest)
    # One scale for all rules, so that they can be compared.
    _same_limits([pair[0] for pair in panels])
    figure.legend(
        handles=_handles(with_published="adam" in rules),
        loc="outside upper center",
        ncols=3,
        frameon=False,
        handlelength=1.4,
        columnspacing=1.6,
    )
    write_figure(figure, path)


def _places(rows: Sequence[GridRow]) -> Mapping[str, float]:
    """Where each recipe's line is: a parameterization is a block, with room between two."""
    laws, rates = list(THE_FOUR), list(RATES)
    return {
        str(row.recipe): 4.0 * laws.index(row.recipe.law.name) + rates.index(rates_of(row))
        for row in rows
    }


def _prepare(axes: Axes, rows: Sequence[GridRow]) -> None:
    laws = list(dict.fromkeys(row.recipe.law.name for row in rows))
    every = list(THE_FOUR)
    axes.set_yticks([4.0 * every.index(law) + 1 for law in laws], laws)
    axes.set_ylim(4.0 * len(every) - 1.2, -0.8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    for block in range(1, len(every)):
        axes.axhline(4.0 * block - 1, color="0.9", linewidth=0.8)


def _draw_exponents(axes: Axes, rule: str, rows: Sequence[GridRow]) -> None:
    _prepare(axes, rows)
    axes.axvspan(-MARGIN, MARGIN, color="#00695c", alpha=0.10, linewidth=0)
    axes.axvline(0, color="0.6", linewidth=0.8)
    axes.set_title(rule, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel("drift exponent of the best learning rate")
    for row in rows:
        place, rates = _places(rows)[str(row.recipe)], rates_of(row)
        drift = None if row.analysis is None else row.analysis.drift
        if drift is None or drift.exponent is None:
            _draw_nothing(axes, place, rates)
            continue
        low, high = drift.interval or (drift.exponent, drift.exponent)
        axes.plot([low, high], [place, place], color=_COLOURS[rates], linewidth=2.2)
        _dot(axes, drift.exponent, place, rates)
        if rule == "adam" and rates == "global":
            axes.plot(
                EXPONENTS[row.recipe.law.name],
                place - 0.5,
                marker="v",
                markersize=5.5,
                markerfacecolor="white",
                markeredgecolor="0.25",
                linestyle="none",
                zorder=4,
            )


def _draw_losses(axes: Axes, rows: Sequence[GridRow], width: int) -> None:
    """Losses without what a seed has in common for all recipes, which hides their differences."""
    _prepare(axes, rows)
    axes.tick_params(labelleft=False)
    axes.set_xlabel(f"loss at width {width} (nats)")
    found = [row.outcome.losses for row in rows if row.outcome.losses]
    seeds = sorted(set(found[0]).intersection(*found)) if found else []
    own = {seed: float(np.mean([losses[seed] for losses in found])) for seed in seeds}
    middle = float(np.mean(list(own.values()))) if own else 0.0
    for row in rows:
        place, rates, losses = _places(rows)[str(row.recipe)], rates_of(row), row.outcome.losses
        values = [losses[seed] - own[seed] + middle for seed in own] if losses else []
        if not values:
            _draw_nothing(axes, place, rates)
            continue
        interval = t_interval(values)
        if interval is not None:
            axes.plot(interval, [place, place], color=_COLOURS[rates], linewidth=2.2)
        _dot(axes, float(np.mean(values)), place, rates)


def _dot(axes: Axes, x: float, y: float, rates: str) -> None:
    axes.plot(
        x,
        y,
        marker=_MARKERS[rates],
        markersize=6,
        color=_COLOURS[rates],
        markeredgecolor="white",
        markeredgewidth=0.8,
        linestyle="none",
        zorder=5,
    )


def _draw_nothing(axes: Axes, place: float, rates: str) -> None:
    axes.text(
        0.02,
        place,
        "inconclusive",
        color=_COLOURS[rates],
        fontsize=8,
        va="center",
        transform=axes.get_yaxis_transform(),
    )


def _same_limits(panels: Sequence[Axes]) -> None:
    low = min(axes.get_xlim()[0] for axes in panels)
    high = max(axes.get_xlim()[1] for axes in panels)
    for axes in panels:
        axes.set_xlim(min(low, -0.5), max(high, 0.5))


def _handles(*, with_published: bool) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=_COLOURS[rates], marker=_MARKERS[rates], linewidth=2.2, label=name)
        for rates, name in _NAMES.items()
    ]
    percent = f"{LEVEL:.0%}".replace("%", " %")
    handles.append(Patch(color="#00695c", alpha=0.15, label=f"transfers; bars: {percent}, seeds"))
    if with_published:
        handles.append(
            Line2D(
                [],
                [],
                linestyle="none",
                marker="v",
                markerfacecolor="white",
                markeredgecolor="0.25",
                label="published, one rate",
            )
        )
    return handles
