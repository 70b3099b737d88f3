"""How far real Transformers of growing width are from where rules lose their updates."""

from pathlib import Path

from numerics.width import epsilon, exponents, headroom, picture as pictures
from numerics.width.gradients import MORE_WIDTHS, STEPS, WIDTHS
from numerics.width.survey import Survey, survey
from scalex_eqx.diagnostics import Table


def surveys(thorough: bool) -> list[Survey]:
    """Before and after training."""
    return [survey(MORE_WIDTHS if thorough else WIDTHS, steps) for steps in STEPS]


def tables(thorough: bool) -> list[Table]:
    """**Arguments:**

    - `thorough`: whether there is a larger width.
    """
    found = surveys(thorough)
    return [
        exponents.table(found),
        headroom.table(found),
        epsilon.parts(found),
        epsilon.crossings(found),
        epsilon.beyond(found),
        headroom.rounded(found[0]),
        headroom.rounded_beyond(found[0]),
    ]


def picture(tables: list[Table], folder: Path) -> None:
    """Gradients, what a raised epsilon leaves, and where the usual ones bite."""
    pictures.draw(tables, folder / "width.png")
