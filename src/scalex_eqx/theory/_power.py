import dataclasses
from fractions import Fraction
from typing import Literal, get_args

from ._rational import Exponent, exact
from ._role import Role

Size = Literal["fan_in", "fan_out", "readout", "depth", "density"]

SIZES: tuple[Size, ...] = get_args(Size)
"""The sizes of a weight that may grow, each with a ratio of its own to the base model's."""

GROWING: dict[Role, tuple[Size, ...]] = {
    Role.embedding: ("fan_out", "readout"),
    Role.hidden: ("fan_in", "fan_out", "readout"),
    Role.readout: ("fan_in",),
    Role.vector: ("fan_out", "readout"),
    Role.constant: (),
    Role.buffer: (),
}
"""The sizes of a weight that grow with the width, by its role."""


def growing_fans(role: Role) -> set[Size]:
    """Those of its own fans that do."""
    return set(GROWING[role]) - {"readout"}


@dataclasses.dataclass(frozen=True, init=False)
class Power:
    r"""How a quantity follows the sizes of a weight, exactly.

    $$\prod_s \text{ratio}_s^{-\text{exponent}_s}$$

    | size | its ratio is that of |
    |---|---|
    | `fan_in`, `fan_out` | the weight's own fan-in and fan-out |
    | `readout` | the fan-in of the readout through which the weight's gradient comes |
    | `depth` | the number of layers of the stack that the weight stands in; 1 outside of one |
    | `density` | the share of the weight's entries that are kept; 1 unless it is masked |

    `Power(fan_in="1/2", readout=1)`; what is left out is 0. Powers of products are sums:
    `+`, `-`, and `*` with a number.

    **Arguments:** each an int, a `Fraction`, or a string such as `"1/2"`.
    """

    fan_in: Fraction
    fan_out: Fraction
    readout: Fraction
    depth: Fraction
    density: Fraction

    def __init__(
        self,
        fan_in: Exponent = 0,
        fan_out: Exponent = 0,
        readout: Exponent = 0,
        depth: Exponent = 0,
        density: Exponent = 0,
    ):
        values = (fan_in, fan_out, readout, depth, density)
        for name, value in zip(SIZES, values, strict=True):
            object.__setattr__(self, name, exact(value, name))

    @property
    def total(self) -> Fraction:
        """The exponent of the width, where all sizes that follow it grow by one ratio."""
        return self.fan_in + self.fan_out + self.readout

    def of_width(self, role: Role) -> Fraction:
        """The same for a weight of that role, of whose sizes some don't follow the width."""
        return sum((self[size] for size in GROWING[role]), Fraction(0))

    def __getitem__(self, size: Size) -> Fraction:
        return getattr(self, size)

    def __add__(self, other: "Power") -> "Power":
        return Power(*(self[size] + other[size] for size in SIZES))

    def __sub__(self, other: "Power") -> "Power":
        return self + other * -1

    def __mul__(self, factor: int | Fraction) -> "Power":
        return Power(*(factor * self[size] for size in SIZES))

    __rmul__ = __mul__


def total(exponent: Fraction | Power) -> Fraction:
    """The exponent of the width, where all sizes that follow it grow by one ratio."""
    return exponent.total if isinstance(exponent, Power) else exponent


def own_power(role: Role, exponent: Fraction) -> Power:
    """A power of a weight's own width: its fan-in, or its fan-out if only that grows."""
    if role.sums_over_width:
        return Power(fan_in=exponent)
    return Power(fan_out=exponent)
