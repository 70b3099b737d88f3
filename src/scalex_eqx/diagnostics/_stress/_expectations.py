"""What the named rules are expected to do, and whether they did."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ._gradients import GradientKind, unit_gradient
from ._limits import Limit
from ._result import FORMULA_TOLERANCE, Stress
from ._rules import StressRule


class StressExpectation(NamedTuple):
    """A value that has to lie within bounds, and why.

    - `quantity`: `"full_low"` and `"full_high"`, the ends of the band at full strength; `"excess"`,
        the largest update of all relative to the largest at unit scale; `"deviation"`, from the
        formula at unit scale; `"infinity"`, 1 if an infinite gradient does what it should.
    - `found`: NaN if there is no such value.
    - `low`, `high`: the bounds, both included.
    - `why`: where they come from.
    """

    quantity: str
    found: float
    low: float
    high: float
    why: str

    @property
    def holds(self) -> bool:
        """Whether what was found is within the bounds."""
        return self.low <= self.found <= self.high


class _Kind(NamedTuple):
    """How gradients of a kind differ from constant ones, for which the limits are derived.

    - `typical`: the root of the mean square that an entry's moments see at unit scale.
    - `firm`: by how many octaves an epsilon's edge may be elsewhere: one for the grid of scales,
        another where the entries' sizes differ.
    - `loose`: by how many a flushed edge may: the smaller entries are flushed first.
    """

    typical: float
    firm: int
    loose: int


_KINDS: dict[GradientKind, _Kind] = {
    "constant": _Kind(1.0, 1, 1),
    "noisy": _Kind(1.0, 1, 4),
    # Seen in a sixteenth of the steps, and by chance only once.
    "sparse": _Kind(0.25, 1, 10),
    "heavy_tailed": _Kind(1.0, 2, 4),
    # Eight octaves below, while the second moment still remembers what was.
    "dropping": _Kind(1.0, 2, 12),
}

# How far beyond those at unit scale updates may go by rounding and by subnormal gradients.
_EXCESS = 1.5
# What no update of a rule that explodes stays below, even where subnormal squares are kept: the
# smallest is 2^-149, its root 2^-74.5, and epsilon 1e-30 is 2^25 times less.
_EXPLOSION = 2.0**20


def stress_expectations(rule: StressRule, result: Stress) -> list[StressExpectation]:
    """What is expected of a named rule beside what was found.

    **Arguments:**

    - `rule`: one of [`scalex_eqx.diagnostics.stress_rules`][].
    - `result`: what [`scalex_eqx.diagnostics.stress`][] found for it.
    """
    return [
        _lower(rule, result),
        _upper(rule, result),
        *_sizes(rule, result),
        *_unit(rule, result),
        StressExpectation(
            "infinity",
            float(result.infinity == rule.infinity),
            1.0,
            1.0,
            f"an infinite gradient has to be {rule.infinity}, it is {result.infinity}",
        ),
    ]


def _lower(rule: StressRule, result: Stress) -> StressExpectation:
    kind = _KINDS[result.gradient]
    formats = rule.formats(result.gradient_dtype, result.parameter_dtype)
    limit = max(rule.lower_limits(formats), key=lambda limit: limit.size)
    edge = math.ceil(math.log2(limit.size / kind.typical))
    start = result.sweep.low
    firm = limit.firm and edge > start
    high = min(max(edge, start) + (kind.firm if firm else kind.loose), 0)
    low = edge - kind.firm if firm else start
    found = math.nan if result.full is None else result.full.low
    return StressExpectation("full_low", found, low, high, limit.why)


def _upper(rule: StressRule, result: Stress) -> StressExpectation:
    formats = rule.formats(result.gradient_dtype, result.parameter_dtype)
    limit: Limit = min(rule.upper_limits(formats), key=lambda limit: limit.size)
    largest = float(np.abs(unit_gradient(result.gradient, rule.shape)).max())
    edge = math.floor(math.log2(limit.size / largest))
    end = result.sweep.high
    found = math.nan if result.full is None else result.full.high
    return StressExpectation("full_high", found, max(min(edge, end) - 1, 0), end, limit.why)


def _sizes(rule: StressRule, result: Stress) -> Iterator[StressExpectation]:
    formats = rule.formats(result.gradient_dtype, result.parameter_dtype)
    if jnp.finfo(formats.moments).nexp < jnp.finfo("float32").nexp:
        # Whether a moment of a narrow range is 0 or just not depends on the draw.
        return
    if rule.explodes and result.sweep.low < math.log2(formats.smallest) / 2:
        why = "the second moment underflows before epsilon takes over"
        yield StressExpectation("excess", result.excess, _EXPLOSION, math.inf, why)
    else:
        why = "no scale of the gradient makes the update larger than unit scale does"
        yield StressExpectation("excess", result.excess, 0.0, _EXCESS, why)


def _unit(rule: StressRule, result: Stress) -> Iterator[StressExpectation]:
    formats = rule.formats(result.gradient_dtype, result.parameter_dtype)
    if formats.moments == "float32":
        why = "float32 moments leave rounding errors of the gradient's dtype, at most 2^-8"
        yield StressExpectation("deviation", result.deviation, 0.0, FORMULA_TOLERANCE, why)
