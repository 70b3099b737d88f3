"""Errors of operations and matrix products, drawn."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from numerics.formats import accuracy, matmul
from numerics.formats.values import WIDE
from scalex_eqx.diagnostics import Table

COLOURS = ("#30678d", "#35b778", "#b5651d")


def draw(tables: Sequence[Table], path: Path) -> None:
    """Two panels: the largest errors of operations, and the bits that matrix products keep."""
    by_name = {table.name: table for table in tables}
    figure = Figure(figsize=(8.4, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _draw_accuracy(left, by_name[accuracy.NAME])
    _draw_products(right, by_name[matmul.PRODUCTS])
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=3, frameon=False)
    figure.savefig(path, dpi=150, facecolor="white")


def _draw_accuracy(axes: Axes, table: Table) -> None:
    names = list(dict.fromkeys(str(row["operation"]) for row in table.rows))
    places = np.arange(len(names))
    for offset, dtype, colour in zip((-0.26, 0.0, 0.26), WIDE, COLOURS, strict=True):
        errors = [_number(table.by_key()[name, dtype]["largest error, ulp"]) for name in names]
        axes.barh(places + offset, errors, height=0.24, color=colour, label=dtype)
    axes.axvline(0.5, color="0.4", linewidth=0.8, linestyle=":")
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xscale("log", base=2)
    axes.set_xlim(left=0.125)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.set_xlabel("units in the last place; dotted: correctly rounded")
    axes.set_title("Largest error", loc="left", fontweight="bold", fontsize=11)
    _bare(axes)


def _draw_products(axes: Axes, table: Table) -> None:
    known = [row for row in table.rows if row["bits"] is not None]
    labels = [f"{row['dtype']}, {row['precision']}" for row in known]
    places = np.arange(len(known))
    axes.barh(places, [_number(row["bits"]) for row in known], height=0.6, color=COLOURS[0])
    axes.set_yticks(places, labels)
    axes.invert_yaxis()
    axes.set_xlabel("bits")
    axes.set_title("What matrix products keep", loc="left", fontweight="bold", fontsize=11)
    _bare(axes)


def _number(value) -> float:
    return float(value)


def _bare(axes: Axes) -> None:
    axes.grid(axis="x", color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
