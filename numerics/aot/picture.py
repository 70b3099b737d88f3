"""What each update rule reads and writes on each target, drawn."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from scalex_eqx.diagnostics import Table


def draw(rules: Table, path: Path) -> None:
    """A field a rule and target: the traffic in units of the least, and the number of loops."""
    targets, names = (_distinct(rules, key) for key in ("target", "rule"))
    rows = rules.by_key()
    traffic = np.asarray([[rows[t, name]["traffic"] for t in targets] for name in names]).astype(
        float
    )
    figure = Figure(figsize=(8.4, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(traffic, cmap="YlOrBr", vmin=0.8, vmax=4.0, aspect="auto")
    for (y, x), value in np.ndenumerate(traffic):
        loops = rows[targets[x], names[y]]["fusions"]
        axes.text(x, y - 0.12, f"{value:.2f}", ha="center", va="center", fontsize=9)
        axes.text(x, y + 0.26, f"loops: {loops}", ha="center", va="center", fontsize=6.5)
    axes.set_xticks(range(len(targets)), targets)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(
        "Bytes read and written, in units of the least there can be",
        loc="left",
        fontsize=11,
        fontweight="bold",
    )
    figure.savefig(path, dpi=150, facecolor="white")


def _distinct(table: Table, key: str) -> list[str]:
    return list(dict.fromkeys(str(row[key]) for row in table.rows))
