"""What was found of a rule, in words."""

import math
from fractions import Fraction
from typing import Any

from .._columns import columns
from ._degrees import Degrees, Number
from ._reach import Reach

_SCOPES = {
    "entry": "entry by entry",
    "row": "row by row",
    "column": "column by column",
    "rows and columns": "rows and columns",
    "tensor": "each weight as a whole",
    "tree": "all weights together",
}


def number(x: Number) -> str:
    """A fraction as it is, a measured number with two digits."""
    if isinstance(x, Fraction):
        return str(x)
    return "?" if math.isnan(x) else f"{x:.2f}"


def size(x: float) -> str:
    """Of a gradient or weight, as 5.8e-05."""
    return f"{x:.2g}"


def span(reach: Reach) -> str:
    """Where a power holds, and what comes beyond."""
    said = f"from {size(reach.low)} to {size(reach.high)}"
    said += f"; below: {reach.below}" if reach.low > 0 else ""
    return said + (f"; above: {reach.above}" if math.isfinite(reach.high) else "")


def lines(found: Any) -> str:
    """The table, a line for each thing that was measured."""
    shape = found.shape
    rows = [
        ["family", _family(found)],
        ["in the gradient", degrees(found.gradient)],
        ["in the weight", degrees(found.weight)],
        ["of a vector", _vector(found.vector)],
        ["by size of gradient", _slopes(found.slopes)],
        ["gradients", span(found.reach)],
        ["weights", span(found.weight_reach)],
        ["by shape", _shape(shape)],
        ["first update", _first(found)],
        ["without gradient", f"{found.without_gradient}{_wander(found.wander)}"],
        ["first gradient zero", found.zero_first],
        ["weight zero", found.zero_weight],
        ["state", f"{found.state_bytes:.3g} bytes a weight"],
    ]
    rows += [["none fits", reason] for reason in found.reasons]
    rows += [["note", note] for note in found.notes]
    return columns(rows, text=2)


def _family(found: Any) -> str:
    if found.family is None:
        return "none"
    return name(found.family)


def name(family: Any) -> str:
    """Of a family, with its numbers if it has one set of them."""
    if hasattr(family, "families"):
        return family.name
    return f"{family.name}, p = {family.gradient_degree}, q = {family.weight_degree}"


def degrees(found: Degrees) -> str:
    """Those of a matrix."""
    said = f"degree {number(found.together)}"
    if not same(found.together, found.between):
        said += f" of all layers together, {number(found.between)} between layers"
    if not same(found.together, found.first):
        said += f", {number(found.first)} in the first update"
    # Where nothing is divided, nothing is looked at together.
    return said + f"; {_SCOPES[found.scope]}"


def same(a: Number, b: Number, within: float = 0.02) -> bool:
    """Whether two degrees are, as far as it can be told."""
    return abs(float(a) - float(b)) <= within


def _vector(found: tuple[Number, Number, Number]) -> str:
    together, between, weight = found
    if math.isnan(float(together)):
        return "not moved"
    said = f"degree {number(together)}"
    if not same(together, between):
        said += f", {number(between)} between layers"
    return f"{said}; {number(weight)} in the weight"


def _slopes(slopes: Any) -> str:
    return ", ".join(f"{size(scale)}: {number(x)}" for scale, x in slopes.items())


def _shape(shape: Any) -> str:
    what = "entries" if shape.norm == "entries" else "largest singular value"
    said = f"{what} fall as fan-in^{number(shape.fan_in)} fan-out^{number(shape.fan_out)}"
    said = said.replace("value fall", "value falls")
    if not shape.is_power:
        said += f", as both^{number(shape.both)}"
    return f"{said}; rank^{shape.rank:.2f}; {_SCOPES[shape.scope]} at 128 x 128"


def _first(found: Any) -> str:
    matrix, vector = found.first
    every = "" if found.period == 1 else f"; moves every {found.period} steps"
    of_vector = "" if math.isnan(vector) else f", {vector:.2g} of a vector"
    return f"{matrix:.2g} times a later one{of_vector}{every}"


def _wander(wander: tuple[float, float]) -> str:
    wide, narrow = wander
    if not narrow > 0 and not wide > 0:
        return ""
    shown = "is refused" if math.isnan(narrow) else f"by {narrow:.2g}"
    return f"; in 36 steps by {wide:.2g}, in bfloat16 {shown}"
