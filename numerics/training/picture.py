"""The held-out losses as a map."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from numerics.training import measure, runs
from scalex_eqx.diagnostics import Table

# What is lost, in nats: from where a cell is as dark as it gets.
_MOST = 3.0


def draw(tables: Sequence[Table], path: Path) -> None:
    """A panel a format: rows are rules, columns the factor of the loss."""
    by_name = {table.name: table for table in tables}
    table = by_name[measure.LOSSES]
    steps = int(table.rows[0]["steps"])  # pyright: ignore
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(runs.FORMATS), sharey=True)
    for axes, form in zip(panels, runs.FORMATS, strict=True):
        _panel(axes, form, [row for row in table.rows if row["format"] == form])
        _name_columns(axes, form, by_name[measure.GRADIENTS], steps)
    panels[0].set_yticks(range(len(runs.RULES)), list(runs.RULES))
    figure.suptitle(
        f"Held-out loss after {steps} steps (nats); bold: the same weights, to the bit, as "
        "without a factor"
    )
    figure.supxlabel(
        "factor of the loss (for SGD: of the learning rate, by design); below: entries of the "
        "gradient, at the end, that became zero",
        fontsize=10,
    )
    figure.savefig(path, dpi=130, metadata={"Software": None})


def _panel(axes: Axes, form: str, rows: Sequence) -> None:
    losses = np.full((len(runs.RULES), len(runs.EXPONENTS)), np.nan)
    places = {rule: number for number, rule in enumerate(runs.RULES)}
    for row in rows:
        losses[places[row["rule"]]] = [row[name] for name in measure.COLUMNS.values()]
    lost = np.clip(np.nan_to_num(losses - losses[:, :1], nan=_MOST), 0, _MOST)
    axes.imshow(
        np.ma.masked_array(lost, np.isnan(losses[:, :1]) & np.ones_like(lost, bool)),
        cmap="Oranges",
        vmin=0,
        vmax=1.4 * _MOST,
        aspect="auto",
    )
    for row in rows:
        _numbers(axes, places[row["rule"]], row)
    for rule in set(runs.RULES) - {row["rule"] for row in rows}:
        middle = (len(runs.EXPONENTS) - 1) / 2
        axes.text(middle, places[rule], "kept in float32", ha="center", va="center", fontsize=8)
    axes.set_title(form, fontsize=10)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _name_columns(axes: Axes, form: str, gradients: Table, steps: int) -> None:
    dtype, _, loss_scale = runs.FORMATS[form]
    rows = gradients.by_key()
    labels = []
    for exponent in runs.EXPONENTS:
        zero = rows[dtype, steps, exponent + int(math.log2(loss_scale))]["became zero"]
        labels.append(f"$2^{{{exponent}}}$\n{zero:.0%}")
    axes.set_xticks(range(len(labels)), labels)


def _numbers(axes: Axes, place: int, row) -> None:
    for column, (exponent, name) in enumerate(measure.COLUMNS.items()):
        loss = row[name]
        same = f"2^{exponent}" in row["same to the bit"].split(", ")
        text = f"{loss:.2f}" if math.isfinite(loss) else "NaN"
        weight = "bold" if same else "normal"
        axes.text(column, place, text, ha="center", va="center", fontsize=8, fontweight=weight)
