import dataclasses
import json
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ...theory._family import Family, FamilyByRole
from ._degrees import Degrees, Number
from ._reach import Reach
from ._shape import Shape
from ._words import lines


@dataclasses.dataclass(frozen=True)
class MeasuredFamily:
    r"""What [`scalex_eqx.diagnostics.family`][] found of an update rule; printed, a table.

    **Arguments:**

    - `family`: what [`scalex_eqx.scale_by_width`][] takes, one or by role; `None` if none fits.
    - `reasons`: why none fits, a sentence each.
    - `notes`: what else a user of the rule should know, a sentence each.
    - `gradient`: the degrees in a matrix' gradient.
    - `weight`: those in the matrix.
    - `vector`: of a vector the degree in the gradient, that in its own layer's alone, and that in
        the weight.
    - `slopes`: the local degree in the gradient by its size.
    - `reach`: where the update is within a factor of two of its power.
    - `weight_reach`: the same for the size of the weights, of which 0.1 is usual.
    - `shape`: how the size follows the matrix' shape.
    - `first`: the size of the first update beside that of later ones, of a matrix and of a vector.
    - `period`: every how many steps the rule moves the weights.
    - `decay`: the share of a weight that decay takes off in the first step that has some.
    - `without_gradient`: what happens to weights that get no gradient.
    - `wander`: how far they come in 36 steps relative to their size, in float32 and in bfloat16;
        NaN for a dtype that the rule doesn't take.
    - `zero_first`: what a first gradient of zero does.
    - `zero_weight`: what happens to a weight that starts at zero.
    - `state_bytes`: the size of the state for each entry of a matrix of 1,024 x 1,024 in float32.
    - `held`: whether weights were held in place, since they ran away at this learning rate.
    """

    family: Family | None
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    gradient: Degrees
    weight: Degrees
    vector: tuple[Number, Number, Number]
    slopes: Mapping[float, float]
    reach: Reach
    weight_reach: Reach
    shape: Shape
    first: tuple[float, float]
    period: int
    decay: float
    without_gradient: str
    wander: tuple[float, float]
    zero_first: str
    zero_weight: str
    state_bytes: float
    held: bool

    def noted(self, notes: tuple[str, ...]) -> "MeasuredFamily":
        """The same with these notes."""
        return dataclasses.replace(self, notes=notes)

    @property
    def evidence(self) -> dict[str, Any]:
        """All that was measured, as plain data."""
        whole = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del whole["family"]
        return _plain(whole)

    def to_json(self) -> str:
        """JSON: the family's numbers, and the evidence. What is not finite is text."""
        family = None if self.family is None else _family(self.family)
        return json.dumps({"family": family, **self.evidence}, indent=2, allow_nan=False)

    def __str__(self) -> str:
        return lines(self)


def _family(family: Family) -> dict[str, Any]:
    if isinstance(family, FamilyByRole):
        return {str(role): _family(one) for role, one in family.families}
    offset = family.offset
    plain = offset if isinstance(offset, tuple) else ()
    return {
        "name": family.name,
        "gradient_degree": str(family.gradient_degree),
        "weight_degree": str(family.weight_degree),
        "offset": {
            str(role): {"fan_in": str(power.fan_in), "fan_out": str(power.fan_out)}
            for role, power in plain
        },
        "norm": family.norm,
    }


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(x) for key, x in value.items()}
    if isinstance(value, tuple):
        return [_plain(x) for x in value]
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
