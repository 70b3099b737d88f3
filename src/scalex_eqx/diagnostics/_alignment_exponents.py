from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ._alignment import MeasuredAlignment, MeasuredAlignments
from ._exponent import LEVEL, Exponent, fit_exponent


class AlignmentExponents(NamedTuple):
    r"""The exponents of one use of a weight: $\|\Delta W\, x_0\| / (\|\Delta W\| \|x_0\|) \sim
    n^\alpha$ and so on.

    Each is an `Exponent`, or `None` where it isn't defined or something has not changed.
    """

    alpha: Exponent | None
    omega: Exponent | None
    u: Exponent | None
    total: Exponent | None


def alignment_exponents(
    measured: Mapping[int, Sequence[MeasuredAlignments]], level: float = LEVEL
) -> dict[str, AlignmentExponents]:
    r"""Fits the exponents with which alignment grows, over widths.

    Each is the slope of $\log_2$ of a ratio against $\log_2$ of the width, in which constant
    factors cancel; `MeasuredAlignment` has the ratios. There is one fit a seed, and Student's t
    interval over seeds. Where the fan-in does not grow, as in an embedding, the slope is that of
    the same ratio, and near 0.

    **Arguments:**

    - `measured`: by width, what [`scalex_eqx.diagnostics.alignment`][] returned for each seed.
    - `level`: the intervals'.

    **Returns:** by the weight's path, with the number of the layer behind it in a stack. All are
    `None` for a weight of which no use was followed.

    **Raises:** `ValueError` for fewer than two widths, and if widths or seeds differ in what was
    measured.
    """
    widths = sorted(measured)
    rows = [[found.by_layer() for found in measured[width]] for width in widths]
    _check(widths, rows)
    every = [one for found in measured.values() for one in found]
    lost = {
        entry.path: AlignmentExponents(None, None, None, None)
        for one in every
        for entry in one.not_followed
        if entry.path not in one.uses
    }
    return lost | {
        name: AlignmentExponents(
            *(_fit(widths, rows, name, field, level) for field in AlignmentExponents._fields)
        )
        for name, use in rows[0][0].items()
        if use.fan_in > 1
    }


_Rows = Sequence[Sequence[Mapping[str, MeasuredAlignment]]]


def _fit(
    widths: Sequence[int], rows: _Rows, name: str, field: str, level: float
) -> Exponent | None:
    ratios = [[_ratio(seed[name], field) for seed in row] for row in rows]
    return fit_exponent(widths, ratios, level)


def _ratio(use: MeasuredAlignment, field: str) -> float:
    logarithm = getattr(use, field)
    return np.nan if logarithm is None else float(use.fan_in) ** float(logarithm)


def _check(widths: Sequence[int], rows: _Rows) -> None:
    if len(widths) < 2:
        raise ValueError(
            f"measured has {len(widths)} widths; an exponent needs at least two different ones"
        )
    counts = {width: len(row) for width, row in zip(widths, rows, strict=True)}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        raise ValueError(
            f"the widths have {counts} seeds; measure the same seeds at every width, at least one"
        )
    names = [set(seed) for row in rows for seed in row]
    odd = sorted(frozenset().union(*names) - frozenset(names[0]).intersection(*names))
    if odd:
        raise ValueError(
            f"not measured at every width and seed: {', '.join(odd)}; the models must differ in "
            "their widths only"
        )
