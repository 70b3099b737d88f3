"""How a grid's numbers are put into words, the same on the terminal and on the page."""

from collections.abc import Sequence

from ._drift import LEVEL
from ._grid_report import GridReport, GridRow
from ._judged import Judged
from ._published import PUBLISHED_WIDTH, SOURCE

ANSWER_STYLES = {
    "holds here": "bold green",
    "doesn't hold here": "bold red",
    "can't be told": "bold yellow",
}


def columns(report: GridReport) -> tuple[str, ...]:
    """The heads of a rule's table."""
    return (
        "recipe",
        "drift exponent p",
        f"loss at {report.largest}",
        "less one rate's",
        "published",
        "less one rate's",
    )


def cells(row: GridRow) -> tuple[str, ...]:
    """A recipe's line, in the order of `columns`."""
    return (
        f"{row.recipe.law.name}:{rates_of(row)}",
        _exponent(row),
        "–" if row.loss is None else f"{row.loss:.4f}",
        _gain(row),
        _pair(row.published, "{:.3f}"),
        _pair(row.published_gain, "{:+.3f}"),
    )


def rates_of(row: GridRow) -> str:
    """`global`, `full` or `none`."""
    return str(row.recipe).rsplit(":", 1)[1]


def rules_of(report: GridReport) -> dict[str, list[GridRow]]:
    """The lines by update rule."""
    found: dict[str, list[GridRow]] = {}
    for row in report.rows:
        found.setdefault(row.recipe.optimizer, []).append(row)
    return found


def notes(rows: Sequence[GridRow]) -> list[str]:
    """Why recipes have no exponent, or no loss."""
    return [
        f"{row.recipe}: {row.outcome.no_exponents or row.outcome.no_losses}"
        for row in rows
        if row.outcome.no_exponents or row.outcome.no_losses
    ]


def means(judged: Judged) -> list[str]:
    """What was found for each statement of a claim."""
    words = []
    for statement, found in zip(judged.claim.statements, judged.means, strict=True):
        what = "p" if statement.of == "exponent" else "loss"
        name = f"{what} of {statement.first}"
        if statement.second is not None:
            name += f" less {statement.second}"
        if found is not None:
            mean, (low, high) = found
            digits = ".2f" if statement.of == "exponent" else ".4f"
            words.append(f"{name}: {mean:+{digits}} [{low:+{digits}}, {high:+{digits}}]")
    return words


def how(report: GridReport) -> tuple[str, ...]:
    """How it was judged, a paragraph each."""
    percent = f"{LEVEL:.0%}".replace("%", " %")
    return (
        "Each recipe and width begins with learning rates an octave apart, which go on by "
        "themselves where a seed's minimum lies at the edge, and lie half an octave apart around "
        "each minimum. A minimum that stays at the edge, or next to a diverged run, is "
        "inconclusive: its recipe has neither exponent nor loss.",
        "The drift exponent p, in best learning rate ~ width^p, is the mean over seeds, with "
        f"Student's t interval at {percent}. The loss is the mean over seeds of the lowest that "
        "was seen at the largest width. Less one rate's: less that of the same parameterization "
        "and rule with one learning rate for all layers, seed by seed, with the same interval.",
        "A claim holds here if the intervals of all its statements lie inside their bounds, and "
        "doesn't if one lies outside, at a level that allows for their number: either is wrong one "
        "time in twenty at most, for normal scatter between seeds. Otherwise it can't be told at "
        "this size. The intervals say nothing about other sizes, texts or lengths of training.",
        f"Published: {SOURCE}, table E1 at width {PUBLISHED_WIDTH}, with default constants and "
        "with tuned ones, and with a constant epsilon. Here constants are 1, and the models are "
        "smaller by orders of magnitude: signs may be compared, sizes not. All recipes are the "
        "same model at the smallest width here, and at width 1024 there.",
    )


def _exponent(row: GridRow) -> str:
    drift = None if row.analysis is None else row.analysis.drift
    if drift is None or drift.exponent is None:
        return "–"
    interval = "" if drift.interval is None else " [{:+.2f}, {:+.2f}]".format(*drift.interval)
    return f"{drift.exponent:+.2f}{interval}"


def _gain(row: GridRow) -> str:
    if row.gain is None:
        return "" if rates_of(row) == "global" else "–"
    mean, (low, high) = row.gain
    return f"{mean:+.4f} ± {(high - low) / 2:.4f}"


def _pair(numbers: tuple[float | None, float | None], form: str) -> str:
    if numbers == (None, None):
        return ""
    return ", ".join("–" if x is None else form.format(x) for x in numbers)
