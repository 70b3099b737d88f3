"""Exponents, what a raised epsilon and bfloat16 leave of updates, and where the usual ones bite."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from numerics.width import epsilon, exponents, headroom
from numerics.width.gradients import PARAMETERIZATIONS, ROLES, STEPS
from numerics.width.rounding import LEARNING_RATES
from numerics.width.strength import ATAN2, CONSTANT, FOLLOWING, LOST
from numerics.width.survey import ALL
from scalex_eqx.diagnostics import Table

COLOURS = dict(zip(PARAMETERIZATIONS, ("#30678d", "#35b778", "#b5651d", "#8a3a8f"), strict=True))
MARKS: dict[int, str] = dict(zip(STEPS, ("o", "s"), strict=True))
_WHEN: dict[int, str] = {
    steps: f"after {steps} steps" if steps else "at initialisation" for steps in STEPS
}

# Some lie on others: those are drawn thicker, and first.
_WIDTHS = dict(zip(PARAMETERIZATIONS, (4.5, 4.5, 1.6, 1.6), strict=True))
_FARTHEST = 1e20

Rows = Sequence[Any]


def draw(tables: Sequence[Table], path: Path) -> None:
    """Five panels."""
    rows = {table.name: table.rows for table in tables}
    figure = Figure(figsize=(13, 8.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 3)
    _exponents(figure.add_subplot(grid[0, 0]), rows[exponents.NAME])
    for column, steps in enumerate(STEPS, start=1):
        _parts(figure.add_subplot(grid[0, column]), rows[epsilon.PARTS], steps)
    _beyond(figure.add_subplot(grid[1, :2]), rows[epsilon.BEYOND])
    _rounded(figure.add_subplot(grid[1, 2]), rows[headroom.ROUNDED])
    figure.suptitle("Dots and squares: measured; lines across widths: predicted", fontsize=10)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _exponents(axes: Axes, rows: Rows) -> None:
    shown = [row for row in rows if row["weight"] == ALL]
    names = list(PARAMETERIZATIONS)
    for row in shown:
        place = ROLES.index(row["role"]) * 5 + names.index(row["parameterization"])
        y = place + (0.2 if row["steps"] else -0.2)
        colour = COLOURS[row["parameterization"]]
        axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=1.5)
        axes.plot(row["exponent"], y, MARKS[row["steps"]], color=colour, markersize=4.5)
        axes.plot([row["theory"]] * 2, [place - 0.5, place + 0.5], color="0.25", linewidth=1)
    axes.set_yticks([5 * i + 1.5 for i in range(len(ROLES))], ROLES)
    axes.invert_yaxis()
    axes.set_xlabel("exponent; squares: trained; lines: theory")
    _finish(axes, "How gradients fall with the width")


def _parts(axes: Axes, rows: Rows, steps: int) -> None:
    own = [row for row in rows if row["steps"] == steps]
    for name in COLOURS:
        line = [row for row in own if row["parameterization"] == name]
        widths = [row["width"] for row in line]
        for column, style in ((FOLLOWING, ":"), (ATAN2, "-")):
            axes.plot(widths, [row[column] for row in line], style, color="0.55", linewidth=1.2)
        _line(axes, widths, line, name, ("predicted", CONSTANT), label=name)
    axes.axhline(LOST, color="0.25", linewidth=0.8, linestyle="--")
    _width_axis(axes, [row["width"] for row in own])
    eps = own[0]["epsilon"]
    axes.set_ylim(0.6, 1.02)
    axes.set_ylabel("part of hidden weights' updates")
    axes.set_xlabel("width (solid grey: atan2; dotted: epsilon with the width)")
    axes.legend(frameon=False, fontsize=9, loc="lower left")
    _finish(axes, f"Epsilon raised to {eps:.1e}, {_WHEN[steps]}")


def _line(
    axes: Axes,
    widths: Sequence[int],
    rows: Rows,
    name: str,
    columns: tuple[str, str],
    *,
    style: str = "-",
    label: str | None = None,
) -> None:
    """What is predicted as a line, and what was measured as dots on it."""
    predicted, measured = ([row[column] for row in rows] for column in columns)
    thick, colour = _WIDTHS[name], COLOURS[name]
    axes.plot(widths, predicted, style, color=colour, linewidth=thick, alpha=0.7, label=label)
    axes.plot(widths, measured, "o", color=colour, markersize=4 + thick, markeredgecolor="white")


def _beyond(axes: Axes, rows: Rows) -> None:
    place, ticks = 0.0, {}
    for eps in epsilon.EPSILONS[:3]:
        for name, colour in COLOURS.items():
            for steps in STEPS:
                row = next(
                    row
                    for row in rows
                    if (row["steps"], row["parameterization"], row["role"])
                    == (steps, name, epsilon.ROLE)
                )
                value, low, high = (row[f"{eps:.0e}{end}"] for end in ("", " low", " high"))
                axes.plot([low, min(high, _FARTHEST)], [place, place], color=colour, linewidth=1.8)
                axes.plot(value, place, MARKS[steps], color=colour, markersize=5)
                place += 1
            ticks[place - 1.5] = f"{name}, {eps:.0e}"
        place += 1
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(1e4, _FARTHEST)
    axes.set_xlabel("width; squares: from gradients after training; bars: the exponent's interval")
    _finish(axes, "Where a constant epsilon will have taken 10 % of hidden weights' updates")


def _rounded(axes: Axes, rows: Rows) -> None:
    styles = dict(zip(LEARNING_RATES, ("-", "--"), strict=True))
    for name in COLOURS:
        for rate, style in styles.items():
            own = [
                row
                for row in rows
                if (row["parameterization"], row["role"], row["learning rate"])
                == (name, epsilon.ROLE, rate)
            ]
            widths = [row["width"] for row in own]
            _line(axes, widths, own, name, ("predicted", "measured"), style=style)
    axes.axhline(LOST, color="0.25", linewidth=0.8, linestyle="--")
    _width_axis(axes, [row["width"] for row in rows])
    axes.set_ylabel("part that arrives")
    rates = ", ".join(
        f"{kind} $2^{{{math.log2(rate):.0f}}}$"
        for kind, rate in zip(("solid", "dashed"), styles, strict=True)
    )
    axes.set_xlabel(f"width (learning rate: {rates})")
    _finish(axes, "A first step of hidden weights in bfloat16")


def _width_axis(axes: Axes, widths: Sequence[int]) -> None:
    ticks = sorted(set(widths))
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(width) for width in ticks])
    axes.minorticks_off()


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=9.5, fontweight="bold")
    axes.set_xlabel(axes.get_xlabel(), fontsize=8)
    axes.grid(color="0.93", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
