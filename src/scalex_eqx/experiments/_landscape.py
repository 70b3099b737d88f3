"""The picture of a tuning: the loss over the learning rate and over the constants."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ._tune import Tuned
from ._write import write_figure

_COLUMNS = 3
_WIDTH, _ROW = 8.4, 2.6  # inches; shown 800 pixels wide
_BEFORE, _AFTER = "#8a8f94", "#00695c"


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
    counts = [1 + bool(tuned.gains), len(roles), len(pairs)]
    rows = [math.ceil(count / _COLUMNS) for count in counts]
    figure = Figure(figsize=(_WIDTH, _ROW * sum(rows) + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(tuned.tuned.recipe, x=0.01, ha="left", fontsize=11, fontweight="bold")
    shown = [row for row in rows if row]
    parts = list(figure.subfigures(len(shown), 1, squeeze=False, height_ratios=shown).flat)
    limits = _limits(tuned)
    first = _panels(parts[0], counts[0], counts[0], loss)
    _draw_rates(first[0], tuned, limits)
    if tuned.gains:
        _draw_gains(first[1], tuned)
    slices = _panels(parts[1], counts[1], min(counts[1], _COLUMNS), loss)
    for place, axes in enumerate(slices):
        _draw_slice(axes, tuned, place, limits)
    if pairs:
        _draw_pairs(parts[2], tuned, pairs, limits, loss)
    write_figure(figure, Path(path))


def _panels(part: SubFigure, count: int, columns: int, label: str = "") -> list[Axes]:
    """Panels in rows; those at the left say what the vertical axis is."""
    panels = part.subplots(math.ceil(count / columns), columns, squeeze=False)
    for axes in panels[:, 0]:
        axes.set_ylabel(label)
    for spare in list(panels.flat)[count:]:
        spare.set_visible(False)
    return list(panels.flat)[:count]


def _limits(tuned: Tuned) -> tuple[float, float]:
    """From below the best to the median of what was tried: bad constants would flatten the rest."""
    best = tuned.tuned.loss
    finite = [x for x in tuned.trials.values() if math.isfinite(x)]
    high = max(float(np.median(finite)), best + 2 * (tuned.untuned.loss - best))
    room = max(high - best, 1e-6)
    return best - 0.08 * room, best + 1.08 * room


def _dressed(axes: Axes, limits: tuple[float, float], label: str) -> None:
    axes.set_ylim(*limits)
    axes.set_xlabel(label)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _in_powers(axes.xaxis)


def _in_powers(axis: Axis) -> None:
    axis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"$2^{{{x:.0f}}}$"))


def _draw_rates(axes: Axes, tuned: Tuned, limits: tuple[float, float]) -> None:
    named = zip(tuned.rates, ("as given", "tuned"), (_BEFORE, _AFTER), strict=True)
    for curve, label, colour in named:
        finite = {x: y for x, y in curve.items() if math.isfinite(y)}
        axes.plot(list(finite), list(finite.values()), color=colour, marker=".", label=label)
        _mark_diverged(axes, [x for x in curve if x not in finite], colour)
    axes.legend(frameon=False)
    _dressed(axes, limits, "learning rate")
    # Where nothing is seen of the curves there is nothing to be shown.
    seen = [x for curve in tuned.rates for x, y in curve.items() if y <= limits[1]]
    axes.set_xlim(min(seen) - 1.2, max(seen) + 1.2)


def _draw_slice(axes: Axes, tuned: Tuned, place: int, limits: tuple[float, float]) -> None:
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
    _dressed(axes, limits, f"constant of {list(tuned.octaves)[place]}")


def _without(octaves: tuple[int, ...], place: int) -> tuple[int, ...]:
    return octaves[:place] + octaves[place + 1 :]


def _mark_diverged(axes: Axes, places: list, colour: str) -> None:
    at_the_top = axes.get_xaxis_transform()
    axes.plot(places, [0.97] * len(places), "x", color=colour, markersize=5, transform=at_the_top)


def _draw_pairs(
    part: SubFigure,
    tuned: Tuned,
    pairs: Sequence[tuple[int, int]],
    limits: tuple[float, float],
    loss: str,
) -> None:
    panels = _panels(part, len(pairs), min(len(pairs), _COLUMNS))
    images = [_draw_pair(*one, tuned, limits) for one in zip(panels, pairs, strict=True)]
    part.colorbar(images[0], ax=panels, extend="max", pad=0.01, label=loss)


def _draw_pair(
    axes: Axes, pair: tuple[int, int], tuned: Tuned, limits: tuple[float, float]
) -> AxesImage:
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
    best = list(tuned.octaves.values())
    axes.plot(best[pair[0]], best[pair[1]], "o", mfc="none", mec="#b3400f", ms=9, mew=1.8)
    names = list(tuned.octaves)
    axes.set_xlabel(f"constant of {names[pair[0]]}")
    axes.set_ylabel(f"constant of {names[pair[1]]}")
    _in_powers(axes.xaxis)
    _in_powers(axes.yaxis)
    return image


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
    axes.set_xlabel("width (seeds that no trial has seen)")
    axes.set_ylabel("gain (nats)")
    axes.set_title(f"{tuned.verdict}", fontsize=10, loc="left")
    axes.grid(color="0.92", linewidth=0.8, axis="y")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
