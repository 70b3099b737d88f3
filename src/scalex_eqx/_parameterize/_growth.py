"""How a weight's axes grow with the width, hence its role."""

from fractions import Fraction

from .._pages import Section, see
from .._spec import WeightSpec
from ..theory import Role

Shape = tuple[int, ...]

_ROLES = {
    (False, True): Role.embedding,
    (True, True): Role.hidden,
    (True, False): Role.readout,
    (False, False): Role.constant,
}


def role_from_shapes(
    spec: WeightSpec,
    shapes: tuple[Shape, Shape, Shape],
    probe_ratio: Fraction,
    ratio: Fraction,
) -> Role:
    """The role that a weight's shapes at the base, the probe and the wanted width show.

    **Raises:** `ValueError` if an axis grows at another rate than the width, a stack axis grows,
    or the shape at the wanted width doesn't continue what base and probe show.
    """
    _check_stack(spec, *shapes)
    base, probe, wanted = shapes
    grows_in = _grows(base, probe, spec.fan_in, probe_ratio)
    grows_out = _grows(base, probe, spec.fan_out, probe_ratio)
    role = role_from_growth(spec, grows_in, grows_out)
    for axes, grows in ((spec.fan_in, grows_in), (spec.fan_out, grows_out)):
        growth = ratio if grows else Fraction(1)
        if _grows(base, wanted, axes, ratio) != (growth != 1):
            raise ValueError(
                f"axes {axes} have grown from shape {base} to {wanted}, but as {role} they should "
                f"have grown by {growth}{see(Section.growth)}"
            )
    return role


def role_from_growth(spec: WeightSpec, grows_in: bool, grows_out: bool) -> Role:
    """The role of a weight whose fan-in and fan-out grow with the width or don't."""
    role = _ROLES[grows_in, grows_out]
    return Role.vector if role is Role.embedding and not spec.fan_in else role


def _check_stack(spec: WeightSpec, *shapes: Shape) -> None:
    """Holds the axes in front of the spec's own to be the same at every width."""
    axes = len(spec.fan_in) + len(spec.fan_out)
    listed = ", ".join(map(str, shapes))
    if min(map(len, shapes)) < axes:
        raise ValueError(f"the spec is for {axes} axes, but the shapes are {listed}")
    if len({tuple(shape[a] for a in spec.stack_axes(len(shape))) for shape in shapes}) > 1:
        raise ValueError(
            f"stack axes change with the width: shapes {listed}; only the last {axes} axes, which "
            "the spec names, may grow"
        )


def _grows(base: Shape, other: Shape, axes: tuple[int, ...], ratio: Fraction) -> bool:
    """Whether the product of `axes` grows; by `ratio` if it does, as the width itself."""
    growth = Fraction(1)
    for axis in axes:
        if not (base[axis] and other[axis]):
            raise ValueError(f"shapes {base} and {other}: an axis of size 0 has no rate of growth")
        if other[axis] != base[axis]:
            growth *= Fraction(other[axis], base[axis])
    if growth not in (1, ratio):
        raise ValueError(
            f"axes {axes} grow by {growth} from shape {base} to {other} where the width grows by "
            f"{ratio}; every axis must grow as the width does or stay as it is{see(Section.growth)}"
        )
    return growth != 1
