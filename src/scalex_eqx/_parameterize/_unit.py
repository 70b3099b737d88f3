"""Sizes that are counted from one, for parameterizations without a base model."""

import dataclasses
import math
from collections.abc import Mapping
from fractions import Fraction

from .._pages import Section, see
from .._spec import WeightSpec
from .._weight import is_weight, path_string
from ..theory import Parameterization, Role
from ..theory._power import GROWING, Size
from ._assign import Triple
from ._nodes import Path


def counted_from_one(spec: WeightSpec, triple: Triple, law: Parameterization) -> WeightSpec:
    """The spec with its fans and its depth themselves in place of their ratios to a base model's.

    **Arguments:**

    - `spec`: with role and ratios.
    - `triple`: the nodes, of which the wanted one's shape and declared sizes count.
    - `law`: one with `unit`.
    """
    assert law.unit is not None
    if spec.role is None or spec.role is Role.buffer:
        return spec
    shape = triple.wanted.array.shape
    fans = {
        name: Fraction(math.prod(shape[axis] for axis in axes))
        for name, axes in (("fan_in", spec.fan_in), ("fan_out", spec.fan_out))
    }
    own = fans["fan_in" if "fan_in" in GROWING[spec.role] else "fan_out"]
    own = own if GROWING[spec.role] else Fraction(1)
    sizes: dict[Size, Fraction] = dict(_declared(triple))
    if spec.role is Role.hidden and fans["fan_out"] != own:
        sizes["fan_out"] = fans["fan_out"]
    depth = sizes.pop("depth", triple.depth)
    if depth != 1:
        sizes["depth"] = depth * (2 if law.unit.depth == "branches" else 1)
    return dataclasses.replace(spec, width_ratio=own, sizes=tuple(sizes.items()))


def _declared(triple: Triple) -> tuple[tuple[Size, Fraction], ...]:
    leaf = triple.wanted.leaf
    return leaf.spec.sizes if is_weight(leaf) and leaf.spec.scaled else ()


def unit_errors(
    triples: Mapping[Path, Triple], law: Parameterization, *, is_tied: bool
) -> list[str]:
    """What is wrong with a model under a law, as far as unit scaling goes."""
    if law.unit is not None:
        return [_TIED] if is_tied else []
    scaled = [
        path_string(path)
        for path, triple in triples.items()
        if is_weight(triple.wanted.leaf) and triple.wanted.leaf.spec.scaled
    ]
    if not scaled:
        return []
    shown = ", ".join(scaled[:3]) + (", ..." if len(scaled) > 3 else "")
    return [
        f"{shown}: weights of scalex_eqx.nn.unit, whose layers scale by their own sizes, under "
        f"{law.name}, which counts from a base model's; use scalex_eqx.u_mup, or the layers of "
        f"scalex_eqx.nn{see(Section.unit)}"
    ]


_TIED = (
    "the model has a tied readout, for which unit-scaled muP has no law; give it a readout of its "
    "own, or take another parameterization"
)
