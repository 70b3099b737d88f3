"""The picture of a transfer experiment: loss against learning rate, a line a size."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import blended_transform_factory

from ._axes import WIDTH, Axis
from ._drift import describe_exponent
from ._fits import RecipeAnalysis, Run, SizeSummary
from ._write import write_figure

VERDICT_COLOURS = {"transfers": "#00695c", "drifts": "#b3400f", "cannot tell": "#55595f"}

# Wide enough for two panels; shown 800 pixels wide, 9 points come out as 12 pixels.
_WIDTH_INCHES = 8.4
_PANEL_HEIGHT_INCHES = 3.4
Colour = tuple[float, float, float, float]
Curve = dict[float, list[float | None]]  # log2 learning rate -> a loss a seed
Curves = dict[tuple[str, int], Curve]  # by recipe and size


def plot_transfer(
    runs: Sequence[Run],
    analyses: Sequence[RecipeAnalysis],
    path: Path | str,
    loss: str = "held-out loss",
) -> None:
    """Draws a panel a recipe, with the optima, their spread over seeds and the diverged runs.

    **Arguments:**

    - `runs`: every run, diverged ones included.
    - `analyses`: what `analyse` made of them.
    - `path`: the PNG to write.
    - `loss`: what the vertical axis says, in nats.
    """
    sizes = sorted({run.size for run in runs})
    colours = _colours(sizes)
    curves = _curves(runs)
    seeds = {run.seed for run in runs} if any(one.searched for one in analyses) else ()
    by_seed = {seed: _curves([run for run in runs if run.seed == seed]) for seed in seeds}
    figure, panels = _figure(len(analyses), loss)
    for axes, analysis in zip(panels, analyses, strict=True):
        _draw_panel(axes, curves, by_seed, analysis, colours)
    _set_limits(panels[0], curves, analyses)
    _draw_legend(figure, colours, analyses[0].axis if analyses else WIDTH)
    write_figure(figure, Path(path))


def _colours(sizes: Sequence[int]) -> dict[int, Colour]:
    # Viridis ends in a yellow that can't be seen on white.
    places = np.linspace(0.0, 0.84, len(sizes)) if len(sizes) > 1 else [0.4]
    viridis = matplotlib.colormaps["viridis"]
    return {size: viridis(float(place)) for size, place in zip(sizes, places, strict=True)}


def _figure(count: int, loss: str) -> tuple[Figure, list[Axes]]:
    columns = 1 if count == 1 else 2
    rows = math.ceil(count / columns)
    height = _PANEL_HEIGHT_INCHES * rows + 0.9
    size = (6.4, 4.6) if count == 1 else (_WIDTH_INCHES, height)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    panels = list(grid.flat)
    for spare in panels[count:]:
        spare.set_visible(False)
    for axes in panels:
        # The panel above an empty place has nothing below it to read its ticks from.
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("learning rate")
    for axes in grid[:, 0]:
        axes.set_ylabel(f"{loss} (nats)")
    return figure, panels[:count]


def _draw_panel(
    axes: Axes,
    curves: Curves,
    by_seed: Mapping[int, Curves],
    analysis: RecipeAnalysis,
    colours: dict[int, Colour],
) -> None:
    for rank, (size, colour) in enumerate(colours.items()):
        curve = curves.get((analysis.recipe, size), {})
        if analysis.searched is None:
            _draw_curve(axes, curve, colour)
        else:
            # Each seed has learning rates of its own: there is no mean to be drawn.
            for seed in analysis.seeds:
                own = by_seed[seed].get((analysis.recipe, size), {})
                _draw_curve(axes, own, colour, thin=True)
        _draw_diverged(axes, curve, colour, rank)
    _draw_optima(axes, analysis.sizes, colours)
    if all(summary.loss is None for summary in analysis.sizes):
        axes.text(0.5, 0.5, "every run diverged", ha="center", transform=axes.transAxes)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    exponent = describe_exponent(analysis.drift).partition(" over ")[0]
    axes.set_title(_shortened(analysis.recipe), loc="left", fontsize=11, fontweight="bold", pad=19)
    axes.text(
        0.0,
        1.025,
        f"{analysis.verdict}: {exponent}" if exponent else analysis.verdict,
        color=VERDICT_COLOURS[analysis.verdict],
        transform=axes.transAxes,
    )


def _shortened(recipe: str) -> str:
    """A recipe with exponents of its own may be longer than the panel is wide."""
    return recipe if len(recipe) <= 42 else f"{recipe[:41]}…"


def _curves(runs: Sequence[Run]) -> Curves:
    curves: Curves = {}
    for run in runs:
        loss = run.held_out_loss
        finite = None if loss is None or not math.isfinite(loss) else loss
        curve = curves.setdefault((run.recipe, run.size), {})
        curve.setdefault(round(math.log2(run.learning_rate), 6), []).append(finite)
    return {key: dict(sorted(curve.items())) for key, curve in curves.items()}


def _draw_curve(axes: Axes, curve: Curve, colour: Colour, *, thin: bool = False) -> None:
    # A mean over the seeds that survived would dip at the cliff, so the line ends there.
    kept = {x: [y for y in ys if y is not None] for x, ys in curve.items() if None not in ys}
    places = list(kept)
    means = [np.mean(ys) for ys in kept.values()]
    line = 0.8 if thin else 1.6
    axes.plot(places, means, color=colour, linewidth=line, marker=".", markersize=5)
    lows, highs = [min(ys) for ys in kept.values()], [max(ys) for ys in kept.values()]
    axes.fill_between(places, lows, highs, color=colour, alpha=0.18, linewidth=0)


def _draw_diverged(axes: Axes, curve: Curve, colour: Colour, rank: int) -> None:
    places = [x for x, ys in curve.items() if None in ys]
    # A row a size, or the largest would hide the others.
    height = 0.975 - 0.035 * rank
    at_the_top = blended_transform_factory(axes.transData, axes.transAxes)
    axes.plot(
        places,
        [height] * len(places),
        linestyle="none",
        marker="x",
        markersize=5,
        markeredgewidth=1.4,
        color=colour,
        transform=at_the_top,
    )


def _draw_optima(
    axes: Axes,
    summaries: Sequence[SizeSummary],
    colours: dict[int, Colour],
) -> None:
    found = [
        (summary, summary.log2_learning_rate, summary.loss)
        for summary in summaries
        if summary.log2_learning_rate is not None and summary.loss is not None
    ]
    places, losses = [x for _, x, _ in found], [y for _, _, y in found]
    axes.plot(places, losses, color="0.25", linewidth=1.0, linestyle=":", zorder=4)
    for summary, place, loss in found:
        inside = all(optimum.inside for _, optimum in summary.by_seed)
        axes.errorbar(
            place,
            loss,
            xerr=summary.log2_spread or 0.0,
            fmt="o",
            markersize=6.5,
            markerfacecolor=colours[summary.size] if inside else "white",
            markeredgecolor="black" if inside else colours[summary.size],
            ecolor="black",
            elinewidth=1.3,
            capsize=3,
            zorder=5,
        )


def _set_limits(axes: Axes, curves: Curves, analyses: Sequence[RecipeAnalysis]) -> None:
    """The same for all panels: they share their axes."""
    rates = [rate for curve in curves.values() for rate in curve]
    axes.set_xlim(min(rates) - 0.4, max(rates) + 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"$2^{{{x:.0f}}}$"))
    axes.set_ylim(*_loss_limits(curves, analyses))


def _loss_limits(curves: Curves, analyses: Sequence[RecipeAnalysis]) -> tuple[float, float]:
    """From below the best loss to where the bowls are well open.

    Losses near divergence would otherwise flatten all the bowls into one line.
    """
    best = [s.loss for a in analyses for s in a.sizes if s.loss is not None]
    if not best:
        return 0.0, 1.0
    low, high = min(best), max(best)
    rises = [_rise_below(curves.get((a.recipe, s.size), {}), s) for a in analyses for s in a.sizes]
    known = [rise for rise in rises if rise is not None]
    # The bowls take up at least about as much room as the distance between the optima.
    room = max(float(np.median(known)) if known else 0.0, 0.8 * (high - low), 1e-3)
    margin = 0.08 * (high - low + room)
    # Above, the rows of crosses of diverged runs need their own strip.
    return low - margin, high + room + 2 * margin


def _rise_below(curve: Curve, summary: SizeSummary) -> float | None:
    """By how much the loss rises on the side of the optimum where nothing diverges."""
    place, loss = summary.log2_learning_rate, summary.loss
    if place is None or loss is None:
        return None
    rises = [
        value - loss
        for rate, values in curve.items()
        for value in values
        if value is not None and -3 <= rate - place < 0
    ]
    return max(rises, default=None)


def _draw_legend(figure: Figure, colours: dict[int, Colour], axis: Axis) -> None:
    handles = [
        Line2D([], [], color=colour, linewidth=2.5, label=f"{axis.noun} {size}")
        for size, colour in colours.items()
    ]
    for marker, label in (("o", "best, ± seeds"), ("x", "diverged")):
        handles.append(Line2D([], [], linestyle="none", color="0.3", marker=marker, label=label))
    figure.legend(
        handles=handles,
        loc="outside upper center",
        # A legend wider than the figure is cut off without a word.
        ncols=min(len(handles), int(figure.get_figwidth() / 1.35)),
        handlelength=1.3,
        columnspacing=1.4,
        frameon=False,
    )
