import dataclasses
from fractions import Fraction
from typing import Literal, get_args

from ._rational import Exponent, exact

Size = Literal["fan_in", "fan_out", "readout"]

SIZES: tuple[Size, ...] = get_args(Size)
"""The sizes of a weight that may grow, each with a ratio of its own to the base model's."""


@dataclasses.dataclass(frozen=True, init=False)
class Power:
    r"""How a quantity follows the sizes of a weight, exactly.

    $$\prod_s \text{ratio}_s^{-\text{exponent}_s}$$

    | size | its ratio is that of |
    |---|---|
    | `fan_in`, `fan_out` | the weight's own fan-in and fan-out |
    | `readout` | the fan-in of the readout through which the weight's gradient comes |

    `Power(fan_in="1/2", readout=1)`; what is left out is 0. Powers of products are sums:
    `+`, `-`, and `*` with a number.

    **Arguments:** each an int, a `Fraction`, or a string such as `"1/2"`.
    """

    fan_in: Fraction
    fan_out: Fraction
    readout: Fraction

    def __init__(self, fan_in: Exponent = 0, fan_out: Exponent = 0, readout: Exponent = 0):
        for name, value in zip(SIZES, (fan_in, fan_out, readout), strict=True):
            object.__setattr__(self, name, exact(value, name))

    @property
    def total(self) -> Fraction:
        """The exponent where all sizes grow by one ratio."""
        return self.fan_in + self.fan_out + self.readout

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
    """The exponent where all sizes grow by one ratio."""
    return exponent.total if isinstance(exponent, Power) else exponent
