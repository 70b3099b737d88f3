import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from .._results import Table
from ._gradients import GradientKind

Infinity = Literal["shown", "dropped", "hidden"]

# How far an update may be from its formula, and from the one at unit scale, to count as right.
FORMULA_TOLERANCE = 0.01
STRENGTH_TOLERANCE = 0.1

_ROUNDING = 1e-6

# What is reached within so many octaves is a cliff, and what stays for as many a plateau.
_FEW_OCTAVES = 8

# From so many times the update on, its growth is called an explosion.
_EXPLOSION = 10.0

_INFINITY = {
    "shown": "gives updates that are not finite",
    "dropped": "drops the step",
    "hidden": "is hidden: the updates stay finite",
}


class StressBand(NamedTuple):
    """Scales of the gradient from 2^low to 2^high, both included."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"2^{self.low} to 2^{self.high}"


class StressScale(NamedTuple):
    """What an update rule does with gradients 2^exponent times those of unit scale.

    - `deviation`: how far the update is from its formula, root mean squares compared, in the worse
        of two steps: the last one, and the last of the first half.
    - `strength`: its root mean square relative to that at unit scale, in the last step.
    - `largest`: its largest entry in any step, relative to the same; NaN if one was not finite.
    - `exact`: whether it is that at unit scale to the last bit.

    The last three are divided by 2^(p exponent), p the rule's degree.
    """

    exponent: int
    deviation: float
    strength: float
    largest: float
    exact: bool


@dataclasses.dataclass(frozen=True)
class Stress:
    """What [`scalex_eqx.diagnostics.stress`][] found; print it.

    **Arguments:**

    - `name`, `gradient`, `gradient_dtype`, `parameter_dtype`, `steps`: what was measured.
    - `degree`: p, the power of the gradient that the update goes as: 0 for Adam, 1 for sgd.
    - `scales`: a [`scalex_eqx.diagnostics.StressScale`][] for each k, in their order.
    - `infinity`: what one infinite entry of a gradient does. `"shown"`: the update is not finite;
        `"dropped"`: it is 0; `"hidden"`: it is any other number.
    """

    name: str
    gradient: GradientKind
    gradient_dtype: str
    parameter_dtype: str
    steps: int
    degree: int
    scales: tuple[StressScale, ...]
    infinity: Infinity

    @property
    def sweep(self) -> StressBand:
        """All scales that the dtype has."""
        return StressBand(self.scales[0].exponent, self.scales[-1].exponent)

    @property
    def formula(self) -> StressBand | None:
        """The scales around 1 where the update is within 1 % of its formula."""
        return self._band([s.deviation <= FORMULA_TOLERANCE for s in self.scales])

    @property
    def full(self) -> StressBand | None:
        """The scales around 1 where the update is within 10 % of that at unit scale."""
        return self._band([abs(s.strength - 1) <= STRENGTH_TOLERANCE for s in self.scales])

    @property
    def exact(self) -> StressBand | None:
        """The scales around 1 where the update is that at unit scale to the last bit."""
        return self._band([s.exact for s in self.scales])

    @property
    def safe(self) -> StressBand | None:
        """The scales around 1 where the update follows its formula at full strength."""
        if self.formula is None or self.full is None:
            return None
        return StressBand(
            max(self.formula.low, self.full.low), min(self.formula.high, self.full.high)
        )

    @property
    def deviation(self) -> float:
        """How far the update is from its formula at unit scale; 1e-6 stands for all that is less,
        the rounding errors of float32."""
        return max(self.scale(0).deviation, _ROUNDING)

    @property
    def largest(self) -> float:
        """The largest entry of any update, relative to the RMS at unit scale; NaN passed over."""
        return max((s.largest for s in self.scales if not math.isnan(s.largest)), default=math.nan)

    @property
    def excess(self) -> float:
        """The largest entry of any update, relative to the largest at unit scale."""
        return self.largest / self.scale(0).largest

    @property
    def below(self) -> str:
        """What happens below the safe scales, in words."""
        low = 0 if self.safe is None else self.safe.low
        return _outcome([s for s in reversed(self.scales) if s.exponent < low])

    @property
    def above(self) -> str:
        """What happens above the safe scales, in words."""
        high = 0 if self.safe is None else self.safe.high
        return _outcome([s for s in self.scales if s.exponent > high])

    def scale(self, exponent: int) -> StressScale:
        """What was found at 2^exponent."""
        return {s.exponent: s for s in self.scales}[exponent]

    def table(self) -> Table:
        """A row for each scale."""
        rows = [scale._asdict() for scale in self.scales]
        return Table(f"{self.name}, {self.setting}", ("exponent",), StressScale._fields, rows)

    @property
    def setting(self) -> str:
        """What it was measured on."""
        return (
            f"{self.gradient} gradients in {self.gradient_dtype}, weights in {self.parameter_dtype}"
        )

    def _band(self, good: Sequence[bool]) -> StressBand | None:
        start = -self.sweep.low
        if not good[start]:
            return None
        up = len(list(itertools.takewhile(bool, good[start:]))) - 1
        down = len(list(itertools.takewhile(bool, reversed(good[: start + 1])))) - 1
        return StressBand(-down, up)

    def __str__(self) -> str:
        safe = (
            f"safe from {self.safe}"
            if self.safe
            else (f"nowhere safe: {self.deviation:.2g} off its formula at unit scale")
        )
        lines = [
            f"{self.name}: {self.setting}, {self.steps} steps",
            f"{safe}, out of {self.sweep}",
            f"below: {self.below}",
            f"above: {self.above}",
            f"within 1 % of its formula: {self.formula or 'nowhere'}",
            f"within 10 % of the update at unit scale: {self.full or 'nowhere'}",
            f"the same to the last bit: {self.exact or 'nowhere'}",
            f"largest update: {self.largest:.3g} times the RMS at unit scale",
            f"an infinite entry of a gradient {_INFINITY[self.infinity]}",
        ]
        return "\n  ".join(lines)


def stress_table(results: Sequence[Stress], name: str = "stress") -> Table:
    """The verdicts on several rules, a row each.

    **Arguments:**

    - `results`: what [`scalex_eqx.diagnostics.stress`][] found. The name, the gradient and the
        dtypes identify a row.
    - `name`: the table's.
    """
    rows = [_row(result) for result in results]
    columns = tuple(rows[0]) if rows else ()
    return Table(name, columns[:4], columns, rows)


def _row(result: Stress) -> dict:
    keys = ("gradient", "gradient_dtype", "parameter_dtype")
    row: dict = {"rule": result.name} | {key: getattr(result, key) for key in keys}
    for name in ("safe", "formula", "full", "exact"):
        band = getattr(result, name)
        row |= {f"{name}_low": band and band.low, f"{name}_high": band and band.high}
    return row | {
        "below": result.below,
        "above": result.above,
        "deviation": result.deviation,
        "largest": result.largest,
        "infinity": result.infinity,
        "degree": result.degree,
    }


def _outcome(beyond: Sequence[StressScale]) -> str:
    """What happens at scales outside of the safe ones, the nearest first."""
    finite = list(itertools.takewhile(lambda s: not math.isnan(s.largest), beyond))
    words = [_finite_outcome(finite)] if finite else []
    if len(finite) < len(beyond):
        words.append(f"not finite from 2^{beyond[len(finite)].exponent}")
    return ", ".join(words) or "nothing, the dtype ends"


def _finite_outcome(beyond: Sequence[StressScale]) -> str:
    peak = max(beyond, key=lambda s: s.strength)
    if peak.strength > 1 + STRENGTH_TOLERANCE:
        return _excess(beyond, peak)
    weak = [s for s in beyond if s.strength < 1 - STRENGTH_TOLERANCE]
    if weak:
        return _loss(weak)
    worst = max(beyond, key=lambda s: s.deviation)
    return f"off its formula by {worst.deviation:.2g} at 2^{worst.exponent}"


def _excess(beyond: Sequence[StressScale], peak: StressScale) -> str:
    """Too large an update, as large as it comes or without a limit."""
    alike = [s for s in beyond if s.strength > (1 - STRENGTH_TOLERANCE) * peak.strength]
    if len(alike) > _FEW_OCTAVES:
        return f"saturates at {peak.strength:.2g} times the update"
    rises = "explodes" if peak.strength > _EXPLOSION else "rises"
    return f"{rises} to {peak.strength:.2g} times the update at 2^{peak.exponent}"


def _loss(weak: Sequence[StressScale]) -> str:
    """Too small an update, soon or slowly."""
    half = next((s for s in weak if s.strength < 0.5), None)
    if half is None:
        return f"fades: {1 - weak[-1].strength:.0%} lost at 2^{weak[-1].exponent}"
    if sum(s.strength > 0 for s in weak) > _FEW_OCTAVES:
        return f"fades: half lost at 2^{half.exponent}"
    return f"stalls: half lost at 2^{half.exponent}"
