from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._formats import FORMATS
from ._measure import KINDS
from ._scales import Scales

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = ("float16", "e5m2", "e4m3", "e2m1")
_TITLES = {"output": "output, before a factor behind"}


def scales_figure(scales: Scales) -> Figure:
    """Draws the sizes of all arrays over training.

    A panel for each kind; a line for each weight's root mean square, and a dot for its largest
    entry at the last step. The horizontal lines are where formats end: what lies below a lower one
    becomes zero, what lies above an upper one overflows.

    **Arguments:**

    - `scales`: what [`scalex_eqx.diagnostics.scales`][] returned.

    **Returns:** a Matplotlib figure.
    """
    # Only who draws needs Matplotlib.
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row.weight for row in scales.rows))
    figure = Figure(figsize=(15, 3.6 + 0.1 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(KINDS), sharey=True)
    colors = {name: f"C{i % 10}" for i, name in enumerate(names)}
    styles = {name: ("-", "--", ":", "-.")[i // 10 % 4] for i, name in enumerate(names)}
    for axes, kind in zip(panels, KINDS, strict=True):
        for name in names:
            rows = [row for row in scales.rows if (row.weight, row.kind) == (name, kind)]
            if rows:
                _line(axes, rows, name, colors[name], styles[name])
        _limits(axes, last=kind == KINDS[-1])
        _steps(axes, scales.steps)
        axes.set_title(_TITLES.get(kind, kind), fontsize=10)
        axes.set_xlabel("step")
    panels[0].set_ylabel("log2 of the root mean square; dots: largest entry")
    lines = {line.get_label(): line for axes in panels for line in axes.get_lines()}
    handles = [lines[name] for name in names if name in lines]
    figure.legend(handles=handles, loc="outside right upper", fontsize=7)
    return figure


def _line(axes: Any, rows: list[Any], name: str, color: str, style: str) -> None:
    steps = [row.step for row in rows]
    axes.plot(steps, _log2([row.size for row in rows]), style, color=color, lw=1, label=name)
    axes.plot(steps[-1:], _log2([rows[-1].largest]), ".", color=color, ms=5)


def _steps(axes: Any, steps: Sequence[int]) -> None:
    """As logarithms, with a place for 0; labelled where there is room."""
    axes.set_xscale("symlog", base=2, linthresh=1)
    axes.set_xlim(-0.3, max(steps[-1], 1) * 1.2)
    every = max(1, -(-len(steps) // 6))
    # The last is always named, and none next to it.
    named = [*steps[:-1:every], steps[-1]]
    if len(named) > 2 and named[-2] > 0 and named[-1] < 2 * named[-2]:
        del named[-2]
    axes.set_xticks(named, [str(step) for step in named], fontsize=8)
    axes.minorticks_off()


def _limits(axes: Any, *, last: bool) -> None:
    places: dict[float, list[str]] = {}
    for i, name in enumerate(_SHOWN):
        low, high = FORMATS[name].zero_below, FORMATS[name].overflow_from
        for bound in (np.log2(low), np.log2(high)):
            axes.axhline(bound, color="0.6", lw=0.7, ls=(0, (2 + i, 2)))
            # Formats that end together, as float16 and e5m2, are named together.
            near = next((known for known in places if abs(known - bound) < 0.5), bound)
            places.setdefault(near, []).append(name)
    if not last:
        return
    for bound, names in places.items():
        axes.annotate(
            ", ".join(names),
            (1.02, bound),
            xycoords=("axes fraction", "data"),
            fontsize=7,
            color="0.4",
            va="center",
        )


def _log2(sizes: list[float]) -> Any:
    known = np.asarray(sizes, float)
    return np.log2(np.where((known > 0) & np.isfinite(known), known, np.nan))
