"""What training loses when the loss is multiplied by a power of two, by rule and format."""

from pathlib import Path

import numpy as np

from numerics.training import picture as pictures, runs
from scalex_eqx.diagnostics import Table

LOSSES, GRADIENTS = "training: held-out loss", "training: what is left of a gradient"
COLUMNS = {exponent: f"loss x 2^{exponent}" for exponent in runs.EXPONENTS}
# For this family the size of the gradient is part of the learning rate.
PROPORTIONAL = ("sgd, momentum 0.9",)
# Of the smallest normal number in each dtype; what is below has lost digits, or all of them.
_TINY = {"float32": 2.0**-126, "bfloat16": 2.0**-126, "float16": 2.0**-14}


def tables(thorough: bool) -> list[Table]:
    """**Arguments:**

    - `thorough`: whether the runs are long.
    """
    steps = runs.MANY_STEPS if thorough else runs.STEPS
    return [_losses(steps), _gradients(steps)]


def _losses(steps: int) -> Table:
    """A row a rule and format, a column a scale of the loss.

    `same to the bit` lists the scales whose weights at the end are those without a factor.
    """
    keys = ("rule", "format", "steps")
    rows = [
        {"rule": rule, "format": form, "steps": steps, **_row(rule, form, steps)}
        for rule, form in runs.cases()
    ]
    return Table(LOSSES, keys, (*keys, *COLUMNS.values(), "same to the bit", "note"), rows)


def _row(rule: str, form: str, steps: int) -> dict:
    found = {exponent: runs.trained(rule, form, exponent, steps) for exponent in runs.EXPONENTS}
    same = [f"2^{e}" for e, run in found.items() if e and _equal(run, found[0])]
    by_design = rule in PROPORTIONAL
    return {
        **{COLUMNS[exponent]: run.loss for exponent, run in found.items()},
        "same to the bit": ", ".join(same) or "none",
        "note": "another learning rate, by design" if by_design else "",
    }


def _equal(one: runs.Run, other: runs.Run) -> bool:
    return all(map(np.array_equal, one.weights, other.weights))


def _gradients(steps: int) -> Table:
    """What the backward pass leaves of a gradient, before any rule has seen it."""
    keys = ("dtype", "steps", "loss x 2^")
    # With the loss scale as well: 2^10 and what is 2^10 above the others.
    exponents = sorted({*runs.EXPONENTS, *(e + 10 for e in runs.EXPONENTS)}, reverse=True)
    rows = []
    for at in (0, steps):
        known = int(np.count_nonzero(runs.gradient("float32", 0, at)))
        for dtype in _TINY:
            for exponent in exponents:
                case = dict(zip(keys, (dtype, at, exponent), strict=True))
                rows.append({**case, **_left(runs.gradient(dtype, exponent, at), dtype, known)})
    return Table(GRADIENTS, keys, tuple(rows[0]), rows)


def _left(gradient: np.ndarray, dtype: str, known: int) -> dict[str, float]:
    sizes = np.abs(gradient)
    below = np.count_nonzero((sizes > 0) & (sizes < _TINY[dtype]))
    return {
        "root mean square": float(np.sqrt(np.mean(sizes**2))),
        "became zero": float(1 - np.count_nonzero(sizes) / known),
        "below the normal numbers": float(below / known),
    }


def picture(tables: list[Table], folder: Path) -> None:
    """The losses as a map, a row a rule and a group of columns a format."""
    pictures.draw(tables, folder / "training.png")
