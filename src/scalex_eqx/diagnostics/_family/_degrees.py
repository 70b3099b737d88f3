"""The degrees of an update in the gradient and in the weight, and what is taken together."""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from ._moved import Moved, degree, root_mean_square
from ._settings import PARTS

SNAP = 0.01
"""How far a degree may be from the fraction that is told for it."""
_DENOMINATORS = (1, 2, 3, 4, 5, 6, 8)
# Of what is independent, nothing changes but by rounding; of what shares a mean over a row of 128,
# a little does.
UNMOVED = 1e-3

Number = Fraction | float


@dataclasses.dataclass(frozen=True)
class Degrees:
    """How an update follows a gradient, or a weight.

    **Arguments:**

    - `together`: the degree where that of all layers is made larger.
    - `between`: where that of one layer is, relative to the updates of the others.
    - `first`: as `together`, of the first update alone.
    - `scope`: what the rule looks at together: `entry`, `row`, `column`, `rows and columns`,
        `tensor` or `tree`.
    - `parts`: the degrees where one entry, row, column or tensor is made larger, relative to the
        rest.
    - `touched`: by how much the direction or size of the rest changes with it.
    """

    together: Number
    between: Number
    first: Number
    scope: str
    parts: Mapping[str, float]
    touched: Mapping[str, float]


def snapped(value: float, tolerance: float = SNAP) -> Number:
    """The simplest fraction within the tolerance, or the number itself."""
    if not math.isfinite(value):
        return value
    for denominator in _DENOMINATORS:
        near = Fraction(round(value * denominator), denominator)
        # Finer fractions lie so near each other that half the numbers would be one of them.
        if abs(value - near) <= tolerance / denominator:
            return near
    return round(value, 3)


def degrees(moved: Moved, leaf: str, other: str, kind: str) -> Degrees:
    """Those of the matrix `leaf`; `kind` is `part` for the gradient, `weight part` for the weight.

    **Arguments:**

    - `other`: another matrix, which what is done to `leaf` should leave alone.
    """
    usual, up = ("all", 0.0), (("all", "up") if kind == "part" else ("weights", "up"))
    found = {name: _part(moved, leaf, other, kind, name) for name in PARTS}
    parts = {name: x[0] for name, x in found.items()}
    touched = {name: x[1] for name, x in found.items()}
    together = degree(moved.path(up, leaf), moved.path(usual, leaf))
    first = degree(moved.first(up, leaf), moved.first(usual, leaf))
    return Degrees(
        snapped(together),
        snapped(parts["tensor"]),
        snapped(first),
        scope(together, parts, touched),
        parts,
        touched,
    )


def vector_degrees(moved: Moved, other: str) -> tuple[Number, Number, Number]:
    """Those of the vector: in the gradient, in one layer's gradient, and in the weight."""
    usual = ("all", 0.0)
    alone = ("part", "vector", "tensor")
    rest = degree(moved.path(alone, other), moved.path(usual, other))
    between = degree(moved.path(alone, "vector"), moved.path(usual, "vector")) - rest
    of_gradient, of_weight = (
        degree(moved.path(key, "vector"), moved.path(usual, "vector"))
        for key in (("all", "up"), ("weights", "up"))
    )
    return snapped(of_gradient), snapped(between), snapped(of_weight)


def _part(moved: Moved, leaf: str, other: str, kind: str, name: str) -> tuple[float, float]:
    """The degree of a part relative to the rest, and how much the rest changes."""
    usual, key = ("all", 0.0), (kind, leaf, name)
    before, after = moved.path(usual, leaf), moved.path(key, leaf)
    inside = np.zeros(before.shape, bool)
    inside[PARTS[name]] = True
    if name == "tensor":
        rest = moved.path(usual, other), moved.path(key, other)
    else:
        rest = before[~inside], after[~inside]
    own = degree(after[inside], before[inside]) - degree(rest[1], rest[0])
    if not isinstance(snapped(own), Fraction):
        # One number for the whole tree, which is another one in each step, is none of the part's.
        own = _in_steps(moved, leaf, other, kind, name, own)
    return own, change(*rest)


def _in_steps(moved: Moved, leaf: str, other: str, kind: str, name: str, otherwise: float) -> float:
    """The same, as the median over single steps, if that is a fraction."""
    usual, key = ("all", 0.0), (kind, leaf, name)
    found = []
    own = zip(moved.steps(usual, leaf), moved.steps(key, leaf), strict=True)
    rest = zip(moved.steps(usual, other), moved.steps(key, other), strict=True)
    for (before, after), (rest_before, rest_after) in zip(own, rest, strict=True):
        part = PARTS[name] if before.ndim == len(PARTS[name]) else ...
        if name != "tensor":
            rest_before, rest_after = (np.delete(x.ravel(), 0) for x in (before, after))
            inside = np.zeros(before.shape, bool)
            inside[part] = True
            rest_before, rest_after = before[~inside], after[~inside]
        found.append(degree(after[part], before[part]) - degree(rest_after, rest_before))
    good = [x for x in found[moved.skip :] if math.isfinite(x)]
    median = float(np.median(good)) if good else otherwise
    return median if isinstance(snapped(median), Fraction) else otherwise


def change(before: np.ndarray, after: np.ndarray) -> float:
    """How large the difference is, relative to the size before."""
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.linalg.norm(before)
        return float(np.linalg.norm(after - before) / size) if size > 0 else math.nan


def scope(
    together: float,
    parts: Mapping[str, float],
    touched: Mapping[str, float],
    most: float = UNMOVED,
    near: float = 0.02,
) -> str:
    """The smallest part that has the degree of the whole, and leaves the rest as it is."""

    def by_itself(name: str) -> bool:
        return abs(parts[name] - together) <= near and touched[name] <= most

    if by_itself("entry"):
        return "entry"
    row, column = by_itself("row"), by_itself("column")
    if row and column:
        return "rows and columns"
    if row or column:
        return "row" if row else "column"
    return "tensor" if by_itself("tensor") else "tree"


def local(moved: Moved, leaf: str, scales: Any, kind: str) -> dict[float, float]:
    """The degree between each scale and the next, by the middle of the two, as powers of ten."""
    found = {}
    for low, high in itertools.pairwise(scales):
        sizes = [root_mean_square(moved.path((kind, x), leaf)) for x in (low, high)]
        good = all(np.isfinite(x) and x > 0 for x in sizes)
        slope = math.log10(sizes[1] / sizes[0]) / (high - low) if good else math.nan
        found[(low + high) / 2] = slope
    return found
