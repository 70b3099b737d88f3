"""The picture of a tuning: the loss over the learning rate and over the constants."""

import itertools
import math
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ._tune import Tuned
from ._write import written_whole

_COLUMNS = 3
_PANEL = (3.1, 2.7)
_DOTS_PER_INCH = 150
_BEFORE, _AFTER = "#8a8f94", "#00695c"
_POWER = FuncFormatter(lambda x, _: f"$2^{{{x:.0f}}}$")


def plot_landscape(tuned: Tuned, path: Path | str, loss: str = "held-out loss (nats)") -> None:
    """Draws the loss over the learning rate, over each constant, over each pair of them, and what
    the constants gain at each width.

    **Arguments:**

    - `tuned`: what was found.
    - `path`: the PNG to write.
    - `loss`: what the vertical axes say.
    """
    roles = list(tuned.octaves)
    pairs = list(itertools.combinations(range(len(roles)), 2))
    count = 1 + len(roles) + len(pairs) + bool(tuned.gains)
    columns = min(_COLUMNS, count)
    rows = math.ceil(count / columns)
    size = _PANEL[0] * columns, _PANEL[1] * rows + 0.3
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in panels[count:]:
        spare.set_visible(False)
    limits = _limits(tuned)
    _draw_rates(panels[0], tuned, limits, loss)
    for place, axes in enumerate(panels[1 : 1 + len(roles)]):
        _draw_slice(axes, tuned, place, limits, loss)
    for pair, axes in zip(pairs, panels[1 + len(roles) :], strict=False):
        _draw_pair(figure, axes, tuned, pair, limits)
    if tuned.gains:
        _draw_gains(panels[count - 1], tuned)
    figure.suptitle(tuned.tuned.recipe, x=0.01, ha="left", fontsize=10, fontweight="bold")
    with written_whole(Path(path)) as unfinished:
        figure.savefig(unfinished, dpi=_DOTS_PER_INCH, format="png", facecolor="white")


def _limits(tuned: Tuned) -> tuple[float, float]:
    """From below the best to the median of what was tried: bad constants would flatten the rest."""
    best = tuned.tuned.loss
    finite = [x for x in tuned.trials.values() if math.isfinite(x)]
    high = max(float(np.median(finite)), best + 2 * (tuned.untuned.loss - best))
    room = max(high - best, 1e-6)
    return best - 0.08 * room, best + 1.08 * room


def _dressed(axes: Axes, limits: tuple[float, float], label: str, loss: str) -> None:
    axes.set_ylim(*limits)
    axes.set_xlabel(label)
    axes.set_ylabel(loss)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.xaxis.set_major_formatter(_POWER)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_rates(axes: Axes, tuned: Tuned, limits: tuple[float, float], loss: str) -> None:
    named = zip(tuned.rates, ("as given", "tuned"), (_BEFORE, _AFTER), strict=True)
    for curve, label, colour in named:
        finite = {x: y for x, y in curve.items() if math.isfinite(y)}
        xs, ys = list(finite), list(finite.values())
        axes.plot(xs, ys, color=colour, marker=".", linewidth=1.6, label=label)
        _mark_diverged(axes, [x for x in curve if x not in finite], colour)
    axes.legend(frameon=False, fontsize=8, loc="upper center")
    _dressed(axes, limits, "learning rate", loss)


def _draw_slice(
    axes: Axes, tuned: Tuned, place: int, limits: tuple[float, float], loss: str
) -> None:
    """All trials, and the line through the best along one constant."""
    best = tuple(tuned.octaves.values())
    xs = [octaves[place] for octaves in tuned.trials]
    axes.plot(xs, list(tuned.trials.values()), ".", color=_BEFORE, markersize=4, alpha=0.7)
    on_line = {
        octaves[place]: value
        for octaves, value in sorted(tuned.trials.items())
        if _without(octaves, place) == _without(best, place) and math.isfinite(value)
    }
    axes.plot(list(on_line), list(on_line.values()), color=_AFTER, marker="o", markersize=4)
    _mark_diverged(axes, [o[place] for o, x in tuned.trials.items() if math.isinf(x)], _BEFORE)
    _dressed(axes, limits, f"constant of {list(tuned.octaves)[place]}", loss)


def _without(octaves: tuple[int, ...], place: int) -> tuple[int, ...]:
    return octaves[:place] + octaves[place + 1 :]


def _mark_diverged(axes: Axes, places: list, colour: str) -> None:
    at_the_top = axes.get_xaxis_transform()
    axes.plot(places, [0.97] * len(places), "x", color=colour, markersize=5, transform=at_the_top)


def _draw_pair(
    figure: Figure,
    axes: Axes,
    tuned: Tuned,
    pair: tuple[int, int],
    limits: tuple[float, float],
) -> None:
    """The lowest loss that any trial with these two constants has."""
    lowest: dict[tuple[int, int], float] = {}
    for octaves, value in tuned.trials.items():
        key = octaves[pair[0]], octaves[pair[1]]
        lowest[key] = min(value, lowest.get(key, math.inf))
    xs, ys = ({key[i] for key in lowest} for i in (0, 1))
    grid = np.full((max(ys) - min(ys) + 1, max(xs) - min(xs) + 1), np.nan)
    for (x, y), value in lowest.items():
        grid[y - min(ys), x - min(xs)] = value
    extent = (min(xs) - 0.5, max(xs) + 0.5, min(ys) - 0.5, max(ys) + 0.5)
    colours = matplotlib.colormaps["viridis_r"].with_extremes(bad="0.94", over="#20063b")
    image = axes.imshow(
        np.ma.masked_invalid(np.where(np.isinf(grid), 1e30, grid)),
        origin="lower",
        extent=extent,
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        aspect="auto",
        interpolation="nearest",
    )
    figure.colorbar(image, ax=axes, extend="max", pad=0.02)
    best = list(tuned.octaves.values())
    axes.plot(best[pair[0]], best[pair[1]], "o", mfc="none", mec="#b3400f", ms=9, mew=1.8)
    names = list(tuned.octaves)
    axes.set_xlabel(f"constant of {names[pair[0]]}")
    axes.set_ylabel(f"constant of {names[pair[1]]}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axis.set_major_formatter(_POWER)


def _draw_gains(axes: Axes, tuned: Tuned) -> None:
    axes.axhline(0.0, color="0.4", linewidth=0.8)
    places = range(len(tuned.gains))
    for place, one in zip(places, tuned.gains, strict=True):
        axes.plot([place] * len(one.values), one.values, ".", color=_BEFORE, markersize=5)
        if one.mean is not None:
            low, high = one.interval or (one.mean, one.mean)
            error = [[one.mean - low], [high - one.mean]]
            axes.errorbar(place, one.mean, yerr=error, fmt="o", color=_AFTER, capsize=4)
    axes.set_xticks(list(places), [str(one.width) for one in tuned.gains])
    axes.set_xlim(-0.5, len(tuned.gains) - 0.5)
    axes.set_xlabel("width (other seeds)")
    axes.set_ylabel("gain (nats)")
    axes.set_title(f"{tuned.verdict}", fontsize=9, loc="left")
    axes.grid(color="0.92", linewidth=0.8, axis="y")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
