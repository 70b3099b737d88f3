"""How a weight's axes grow with the width, hence its role."""

import math
from fractions import Fraction
from typing import NamedTuple

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


class Growth(NamedTuple):
    """The exact rates at which a weight's fan-in and fan-out grow from the base width."""

    fan_in: Fraction
    fan_out: Fraction


def growth(
    spec: WeightSpec,
    shapes: tuple[Shape, Shape, Shape],
    probe_ratio: Fraction,
    ratio: Fraction,
) -> tuple[Role, Growth]:
    """The role that a weight's shapes show, and its rates of growth to the wanted width.

    **Arguments:**

    - `spec`: its axes.
    - `shapes`: at the base, the probe and the wanted width.
    - `probe_ratio`, `ratio`: of the probe and the wanted width to the base width.

    **Raises:** `ValueError` if an axis grows at a rate that nothing explains, or a stack axis
    grows.
    """
    _check_stack(spec, *shapes)
    fans = (spec.fan_in, _own_fan_out(spec, shapes, probe_ratio))
    probe, wanted = (
        Growth(*(_rate(shapes[0], other, axes) for axes in fans)) for other in shapes[1:]
    )
    for axes, first, last in zip(fans, probe, wanted, strict=True):
        wrong = _unexplained(shapes, (first, last), (probe_ratio, ratio))
        if wrong is not None:
            raise ValueError(f"axes {axes} {wrong}")
    return role_from_growth(spec, probe.fan_in != 1, probe.fan_out != 1), wanted


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


def _own_fan_out(
    spec: WeightSpec, shapes: tuple[Shape, Shape, Shape], probe_ratio: Fraction
) -> tuple[int, ...]:
    """The axes of the fan-out, of a vector with several that grow as the width does one of them.

    Nothing is summed over entries of a gain or a bias: how many there are doesn't matter.
    """
    base, probe, _ = shapes
    if spec.fan_in:
        return spec.fan_out
    growing = [axis for axis in spec.fan_out if base[axis] != probe[axis]]
    each = [_rate(base, probe, (axis,)) for axis in growing]
    if len(growing) > 1 and all(_follows(rate, probe_ratio) for rate in each):
        return tuple(growing[-1:])
    return spec.fan_out


def _rate(base: Shape, other: Shape, axes: tuple[int, ...]) -> Fraction:
    """The rate at which the product of `axes` grows."""
    if not all(base[axis] and other[axis] for axis in axes):
        raise ValueError(f"shapes {base} and {other}: an axis of size 0 has no rate of growth")
    return math.prod((Fraction(other[axis], base[axis]) for axis in axes), start=Fraction(1))


# A fan of n that is rounded up to a multiple of m grows, relative to the width's ratio r, by more
# than n / (n + m) and by less than 1 + m / (n r); n is at least m, and r at least 2 in practice.
_LEAST, _MOST = Fraction(1, 2), Fraction(3, 2)


def _follows(rate: Fraction, ratio: Fraction) -> bool:
    """Whether a fan grows with the width, up to rounding."""
    if ratio == 1:
        return False
    if ratio < 1:
        rate, ratio = 1 / rate, 1 / ratio
    return rate > 1 and _LEAST < rate / ratio <= _MOST


def _is_joined(rates: tuple[Fraction, Fraction], widths: tuple[Fraction, Fraction]) -> bool:
    """Whether a fan is a n + b at three widths n: features that grow, joined with some that stay.

    Its rate is then 1 + s (r - 1), with the share s of those that grow at the base width.
    """
    if 1 in widths or widths[0] == widths[1]:
        return False
    shares = {(rate - 1) / (width - 1) for rate, width in zip(rates, widths, strict=True)}
    return len(shares) == 1 and 0 < min(shares) <= 1


def _unexplained(
    shapes: tuple[Shape, Shape, Shape],
    rates: tuple[Fraction, Fraction],
    widths: tuple[Fraction, Fraction],
) -> str | None:
    """What is wrong with the rates of a fan that stays or follows at one of two widths only."""
    if _is_joined(rates, widths):
        return None
    base, *others = shapes
    for shape, rate, width in zip(others, rates, widths, strict=True):
        stays = rate == 1 and (width == 1 or rates[0] == 1)
        if stays or (rates[0] != 1 and _follows(rate, width)):
            continue
        grown = f"grow by {rate} from shape {base} to {shape}, where the width grows by {width}"
        at_probe = "" if rates[0] != 1 else f", but stay as they are in {others[0]}"
        return (
            f"{grown}{at_probe}; they must grow as the width does, up to rounding, be a n + b at "
            f"three widths n, or stay at every width{see(Section.growth)}"
        )
    return None
