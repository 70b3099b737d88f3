"""How the size of an update follows the shape of a matrix, and the rank of its gradient."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from ...theory._family import Norm
from ._degrees import Number, scope, snapped
from ._moved import Moved, degree, root_mean_square
from ._probe import LARGE, SIDES

Layout = Literal["out, in", "in, out"]

# An orthogonal update by Newton and Schulz has singular values from 0.7 to 1.2. That of entries of
# one size is 5.7 times as large at rank one as at rank 128.
_SAME_SINGULAR = 2.0
# Entries of rank 128 are 11 times as large as those of rank 1 with the same singular values.
_OTHER_ENTRIES = 3.0
# Sizes are means over 16,384 entries and more, of which each is off by 1 / sqrt(2 n) at most; what
# a law says of two shapes is off by less than a twentieth of an octave.
_SNAP = 0.05
_NEAR = 0.05


@dataclasses.dataclass(frozen=True)
class Shape:
    r"""How the size of an update follows a matrix' shape, at entries of one size.

    **Arguments:**

    - `norm`: `entries`, or `spectral` if the largest singular value stays as it is at gradients of
        any rank.
    - `fan_in`, `fan_out`: the exponents $o$ with which the size in that norm falls, where
        that fan alone grows from a square matrix.
    - `both`: that of both together.
    - `vector`: that of a vector's entries with its length.
    - `rank`: the exponent with which entries grow with the gradient's rank.
    - `scope`: what is looked at together in a matrix of 128 x 128.
    """

    norm: Norm
    fan_in: Number
    fan_out: Number
    both: Number
    vector: Number
    rank: float
    scope: str

    @property
    def is_power(self) -> bool:
        """Whether both fans together do what each does by itself."""
        sum_of = float(self.fan_in) + float(self.fan_out)
        return not abs(sum_of - float(self.both)) > 2 * _SNAP


def shape(moved: Moved, of_rank_one: Callable[[], Moved], layout: Layout, together: float) -> Shape:
    """That of a rule on the large probe.

    **Arguments:**

    - `moved`: there.
    - `of_rank_one`: makes what it does to gradients of rank one, for rules of matrices.
    - `together`: its degree in the gradient.
    """
    names = moved.found.updates
    entries = {name: root_mean_square(moved.path(("all", 0.0), name)) for name in names}
    norm, found = _norm(moved, entries), entries
    if norm == "spectral":
        # Of rank one an orthogonal update is the same number at all shapes.
        one = of_rank_one()
        found = {side: _spectral(one, side) for side in SIDES}
    first, second, both = (
        _exponent(found["square"], found[side]) for side in ("high", "broad", "both")
    )
    fan_out, fan_in = (first, second) if layout == "out, in" else (second, first)
    return Shape(
        norm,
        fan_in,
        fan_out,
        both,
        _exponent(entries["short"], entries["long"]),
        _log(entries["square"] / entries["of rank one"]) / _log(LARGE),
        "tensor" if norm == "spectral" else _scope(moved, together),
    )


def _norm(moved: Moved, entries: Mapping[str, float]) -> Norm:
    singular = [_spectral(moved, name) for name in ("square", "of rank one")]
    if not all(
        math.isfinite(x) and x > 0 for x in (*singular, entries["square"], entries["of rank one"])
    ):
        return "entries"
    same = max(singular) / min(singular) < _SAME_SINGULAR
    other = entries["square"] / entries["of rank one"] > _OTHER_ENTRIES
    return "spectral" if same and other else "entries"


def _spectral(moved: Moved, name: str) -> float:
    r"""The largest singular value over $\sqrt{\text{fan-in} \times \text{fan-out}}$."""
    path = moved.path(("all", 0.0), name)
    if not np.isfinite(path).all():
        return math.nan
    return float(np.linalg.norm(path, 2) / math.sqrt(path.size))


def _exponent(before: float, after: float) -> Number:
    """With which a size falls that was `before` and is `after` where the fan is twice as large."""
    if not (before > 0 and after > 0 and math.isfinite(before) and math.isfinite(after)):
        return math.nan
    return snapped(math.log2(before / after), _SNAP)


def _log(x: float) -> float:
    return math.log(x) if x > 0 else math.nan


def _scope(moved: Moved, together: float) -> str:
    """What is looked at together in a large matrix."""
    leaf, parts, touched = "square", {}, {}
    for name in ("entry", "row", "column"):
        key = ("part", leaf, name)
        before, after = moved.path(("all", 0.0), leaf), moved.path(key, leaf)
        inside = np.zeros(before.shape, bool)
        inside[_first(name)] = True
        rest = degree(after[~inside], before[~inside])
        parts[name] = degree(after[inside], before[inside]) - rest
        # What a mean over 128 rows does to the rest is little.
        touched[name] = abs(rest)
    whole = {"tensor": together}
    return scope(together, parts | whole, touched | dict.fromkeys(whole, 0.0), _NEAR, _NEAR)


def _first(part: str) -> tuple[slice, slice]:
    one, every = slice(0, 1), slice(None)
    return (one if part != "column" else every, one if part != "row" else every)
