"""All that the room `formats` measures."""

from pathlib import Path

from numerics.formats import (
    accuracy,
    casts,
    corners,
    matmul,
    picture as pictures,
    roundings,
    scaled,
    subnormals,
)
from scalex_eqx.diagnostics import Table


def tables(thorough: bool) -> list[Table]:
    """**Arguments:**

    - `thorough`: whether accuracy over every quotient of the 16-bit formats is measured as well.
    """
    quick = [
        subnormals.table(),
        casts.table(),
        corners.table(),
        accuracy.table(),
        roundings.table(),
        matmul.table(),
        matmul.accumulation(),
        scaled.table(),
    ]
    return [*quick, accuracy.exhaustive()] if thorough else quick


def picture(tables: list[Table], folder: Path) -> None:
    """Draws errors by operation, format and precision."""
    pictures.draw(tables, folder / "formats.png")
