"""How numbers are put into words, the same on the terminal and on the page."""

from ._axes import WIDTH, Axis
from ._drift import LEVEL, MARGIN, SEEDS_FOR_A_VERDICT
from ._fits import RecipeAnalysis, Searched, SizeSummary
from ._useful import Fall, Mean, Useful


def _rules_of_search(axis: Axis) -> tuple[str, ...]:
    return (
        "The verdicts were searched for: runs were added until each was clear, or its budget was "
        f"spent. The exponent is that between the smallest and the largest {axis.noun}, and its "
        "interval allows for all the looks that the search may take: it is wider than that of a "
        f"grid, whose level is given above. At a drift of {MARGIN} each of the verdicts transfers "
        "and drifts has a chance of at most 5 %, for normal scatter. "
        f"{axis.plural.capitalize()} between the two were trained with one seed, to say where to "
        "look.",
    )


def columns(axis: Axis) -> tuple[str, str, str, str]:
    """The headings of a recipe's table."""
    return axis.noun, "best learning rate", "best loss (nats)", "note"


def cells(summary: SizeSummary) -> tuple[str, str, str, str]:
    """A size's row, in the order of `columns`."""
    return (
        str(summary.size),
        _with_spread("2^{:.2f}", " ± {:.2f}", summary.log2_learning_rate, summary.log2_spread),
        _with_spread("{:.4f}", " ± {:.4f}", summary.loss, summary.loss_spread),
        "; ".join(summary.flags),
    )


def conclusions(analysis: RecipeAnalysis) -> tuple[tuple[str, str], ...]:
    """What stands below a recipe's table, as pairs of a name and its value."""
    reuse, largest = analysis.reuse, analysis.sizes[-1]
    cost = f"{reuse.reason}" if reuse.cost is None else _reuse_value(analysis)
    best = _with_spread("{:.4f}", " ± {:.4f} nats", largest.loss, largest.loss_spread)
    return (
        ("drift exponent p", _exponent_value(analysis)),
        ("cost of reuse", cost),
        (f"best loss at {largest.size}", best),
        *([] if analysis.useful is None else _useful_values(analysis.useful, largest.size)),
        *([] if analysis.searched is None else [("search", _search_value(analysis))]),
    )


def _useful_values(found: Useful, largest: int) -> list[tuple[str, str]]:
    """Each smaller size's loss and gain, as pairs of a name and its value."""
    if found.lost and found.lost[-1].value is None:
        return [("useful", f"{found.verdict}: {found.reason.split('; ')[0]}")]
    pairs = []
    for size, lost, gained in zip(found.sizes, found.lost, found.gained, strict=True):
        pairs.append(
            (f"{size} tuned for {largest}", f"loses {_mean(lost)}, {largest} gains {_mean(gained)}")
        )
    pairs.append(("from one to the next", _fall(found.fall)))
    line = f"a line through the smaller sizes' best loses {_mean(found.extrapolated)} at {largest}"
    why = f": {found.reason}" if found.reason else ""
    return [*pairs, ("extrapolated", line), ("useful", f"{found.verdict}{why}")]


def _fall(fall: Fall) -> str:
    why = f": {fall.reason}" if fall.reason else ""
    if fall.lost.value is None or fall.gained.value is None:
        return f"{fall.speed}{why}"
    powers = f"lost: {_power(fall.lost)}, gained: {_power(fall.gained)}"
    return f"{powers}; {fall.speed}{why}"


def _power(mean: Mean) -> str:
    interval = "" if mean.interval is None else " [{:+.1f}, {:+.1f}]".format(*mean.interval)
    return f"n^-k, k = {mean.value:+.1f}{interval}"


def _mean(mean: Mean) -> str:
    if mean.value is None:
        return "what was not tried"
    interval = "" if mean.interval is None else " [{:+.4f}, {:+.4f}]".format(*mean.interval)
    return f"{mean.value:.4f}{interval}"


def describe_search(searched: Searched) -> str:
    """What a search cost, as a clause."""
    looks = f"{searched.looks} look{'' if searched.looks == 1 else 's'}"
    return f"{searched.runs} runs, {searched.share:.2f} of the grid's work, {looks}"


def rules(*, searched: bool = False, axis: Axis = WIDTH) -> tuple[str, ...]:
    """How it was judged, a paragraph each.

    **Arguments:**

    - `searched`: whether the verdicts were searched for, and not read off a grid.
    - `axis`: the size that was swept over.
    """
    percent = f"{LEVEL:.0%}".replace("%", " %")
    return (
        "Every run is judged by its held-out loss in nats, on windows that are the same for "
        "all runs. A run whose loss is not finite counts as diverged.",
        f"For each recipe, {axis.noun} and seed, the best learning rate is the vertex of a "
        "least-squares parabola in log2 of the learning rate, through the points within an "
        "octave of the lowest loss and at least its two neighbours; the best loss is the vertex "
        "of the parabola through the lowest point and its neighbours. Both neighbours must "
        "exist and be finite. A best learning rate noted as steep above lies next to a much "
        "steeper side or near divergence, which pulls the vertex downwards.",
        f"The drift exponent p, in best learning rate ~ {axis.symbol}^p, is fitted for each seed "
        f"by least squares. Its value is the mean over seeds and its interval is Student's t at "
        f"{percent} over seeds. It covers the scatter between seeds, not the parabola's own "
        "bias, which grows with the spacing of the grid.",
        f"A recipe transfers if the interval lies inside [-{MARGIN}, {MARGIN}] and drifts if "
        f"it lies wholly outside. Otherwise, and with fewer than {SEEDS_FOR_A_VERDICT} seeds, "
        f"fewer than two {axis.plural}, or a minimum at the grid's edge or next to a diverged run, "
        "the report cannot tell.",
        f"The cost of reuse is the loss at the largest {axis.noun} with the smallest {axis.noun}'s "
        "best learning rate, less the best loss there, seed by seed. Between grid points the loss "
        "is interpolated by a monotone cubic (PCHIP) through the finite losses and the optimum, so "
        "it is never negative.",
        f"What the best learning rate of a smaller {axis.noun} loses at the largest is its loss "
        f"there less the best one; what the largest gains is the smaller {axis.noun}'s best loss "
        f"less its own. Tuning at a smaller {axis.noun} is useful if the second largest loses less "
        "than is gained, interval against interval (Ghosh et al., arXiv:2512.22768, who ask which "
        f"of the two falls faster in the {axis.noun}).",
        "± is the standard deviation over seeds.",
        *(_rules_of_search(axis) if searched else ()),
    )


def _with_spread(value: str, spread: str, number: float | None, scatter: float | None) -> str:
    if number is None:
        return "–"
    return value.format(number) + ("" if scatter is None else spread.format(scatter))


def _exponent_value(analysis: RecipeAnalysis) -> str:
    drift = analysis.drift
    if drift.exponent is None:
        return "–"
    interval = "" if drift.interval is None else " [{:+.3f}, {:+.3f}]".format(*drift.interval)
    return f"{drift.exponent:+.3f}{interval}"


def _search_value(analysis: RecipeAnalysis) -> str:
    assert analysis.searched is not None
    level = f"{analysis.drift.level:.1%}".replace("%", " %")
    allowed = f"interval at {level} for {analysis.searched.most_looks} looks at most"
    return f"{describe_search(analysis.searched)}; {allowed}"


def _reuse_value(analysis: RecipeAnalysis) -> str:
    reuse = analysis.reuse
    interval = "" if reuse.interval is None else " [{:+.4f}, {:+.4f}]".format(*reuse.interval)
    where = f"{analysis.axis.noun} {reuse.small}'s best at {reuse.large}"
    return f"{reuse.cost:.4f}{interval} nats ({where})"
