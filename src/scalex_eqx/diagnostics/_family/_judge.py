"""Which family what was measured is, or why none."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ...theory import Power, Role, UpdateFamily
from ...theory._family import Family, as_family, families
from ._degrees import Degrees, Number
from ._shape import Shape
from ._words import number, same

# Where the degree is that of the family, at gradients from one to a hundred.
_STEADY = 0.05
# With which entries may follow the rank of the gradient before it is no accident.
_RANK = 0.1

MATRICES = (Role.embedding, Role.hidden, Role.readout)
Vector = tuple[Number, Number, Number]

VECTORS = (Role.vector, Role.constant)


def reasons(
    gradient: Degrees, weight: Degrees, vector: Vector, shape: Shape, slopes: Mapping[float, float]
) -> tuple[str, ...]:
    """Why no family fits, a sentence each."""
    found = [*_between("gradient", gradient), *_between("weight", weight)]
    p, q = gradient.together, weight.together
    if math.isnan(float(p)) or math.isnan(float(q)):
        return ("its updates are zero or not finite at gradients of one",)
    if not found and not 0 <= p <= 1:
        found.append(f"its degree in the gradient is {number(p)}; families have 0 to 1")
    if not found and q < 0:
        found.append(f"its degree in the weight is {number(q)}; families have at least 0")
    near = [x for scale, x in slopes.items() if 0 < scale < 2]
    if not all(abs(x - float(p)) <= _STEADY for x in near):
        low, high = min(near), max(near)
        found.append(
            "its degree in the gradient is no number: between gradients of one and a hundred it "
            f"runs from {low:.2f} to {high:.2f}"
        )
    if not found and not _is_family(vector):
        found.append(
            f"a vector's update is of degree {number(vector[0])} in the gradient of all layers, "
            f"{number(vector[1])} in that of its own, and {number(vector[2])} in the weight"
        )
    if shape.norm == "entries" and abs(shape.rank) > _RANK:
        found.append(
            f"its entries grow with the rank of the gradient, as rank^{shape.rank:.2f}, and its "
            "largest singular value doesn't stay"
        )
    return tuple(found)


def _is_family(vector: Vector) -> bool:
    together, between, weight = map(float, vector)
    if math.isnan(together):
        # A rule of matrices alone.
        return True
    return abs(together - between) <= 0.02 and 0 <= together <= 1 and weight >= 0


def _between(what: str, found: Degrees) -> list[str]:
    if same(found.together, found.between):
        return []
    return [
        f"it is of degree {number(found.together)} in the {what} of all layers together and of "
        f"degree {number(found.between)} between layers: there is one number for all of them in "
        "it, and no family has that"
    ]


def matched(p: Number, q: Number, shape: Shape, vector: Vector) -> Family:
    """The family with these numbers: a known one, or one of its own; by role if vectors differ."""
    matrices = _known(_matrices(p, q, shape))
    if math.isnan(float(vector[0])):
        return matrices
    of_vectors = _known(_named(_exact(vector[0]), _exact(vector[2]), vector=_exact(shape.vector)))
    if matrices == of_vectors or _vector_data(matrices) == _vector_data(of_vectors):
        return matrices
    by_role: dict[Role, str | UpdateFamily] = dict.fromkeys(MATRICES, matrices)
    by_role |= dict.fromkeys(VECTORS, of_vectors)
    return as_family(by_role)


def _vector_data(family: UpdateFamily) -> Any:
    return family.gradient_degree, family.weight_degree, family.offset_power(Role.vector)


def _exact(x: Number) -> Fraction:
    return x if isinstance(x, Fraction) else Fraction(0) if math.isnan(x) else Fraction(str(x))


def _matrices(p: Number, q: Number, shape: Shape) -> UpdateFamily:
    fan_in, fan_out, both = map(_exact, (shape.fan_in, shape.fan_out, shape.both))
    hidden = Power(fan_in=fan_in, fan_out=fan_out)
    if not shape.is_power:
        # Both grow together, and what of it is whose can't be told.
        hidden = Power(fan_in=both / 2, fan_out=both / 2)
    offset = {
        Role.embedding: Power(fan_out=fan_out),
        Role.hidden: hidden,
        Role.readout: Power(fan_in=fan_in),
    }
    return _named(_exact(p), _exact(q), offset, shape.norm, _exact(shape.vector))


def _named(
    p: Fraction,
    q: Fraction,
    offset: dict[Role, Power] | None = None,
    norm: Any = "entries",
    vector: Fraction = Fraction(0),
) -> UpdateFamily:
    powers = dict(offset or {})
    if vector and norm == "entries":
        powers[Role.vector] = Power(fan_out=vector)
    powers = {role: power for role, power in powers.items() if power != Power()}
    said = f"p {p}, q {q}" + (", with an offset" if powers else "")
    return UpdateFamily(said, p, q, powers, norm) if powers else UpdateFamily(said, p, q, norm=norm)


def _known(family: UpdateFamily) -> UpdateFamily:
    """The library's own family of these numbers, if there is one."""
    for known in families.values():
        same_offset = all(known.offset_power(r) == family.offset_power(r) for r in MATRICES)
        same_offset &= known.offset_power(Role.vector) == family.offset_power(Role.vector)
        numbers = (family.gradient_degree, family.weight_degree, family.norm)
        if same_offset and numbers == (known.gradient_degree, known.weight_degree, known.norm):
            return known
    return family
