"""Where an update rule's strength has to end, each limit with its derivation."""

import dataclasses
import math
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

B1, B2 = 0.9, 0.999


@dataclasses.dataclass(frozen=True)
class Limit:
    """The size of a gradient at which an update has lost 10 % of its strength.

    **Arguments:**

    - `size`: that of a gradient which is the same in every entry and step.
    - `why`: how it follows from the formula or from the number format.
    - `firm`: whether it is part of the formula, and so the same on every device. Other limits
        come from number formats: a device that keeps subnormal numbers goes beyond them.
    - `follows_width`: whether it falls with the width as the gradient does.
    """

    size: float
    why: str
    firm: bool = False
    follows_width: bool = False


@dataclasses.dataclass(frozen=True)
class Formats:
    """The number formats that a rule works in."""

    gradient: Any
    moments: Any

    @property
    def tiny(self) -> float:
        return _tiny(self.moments)

    @property
    def smallest(self) -> float:
        return float(jnp.finfo(self.moments).smallest_subnormal)

    @property
    def most(self) -> float:
        return float(jnp.finfo(self.moments).max)


LimitName = Literal[
    "gradient", "first moment", "slow moment", "second moment", "mean square", "sum"
]


def added_epsilon(eps: float, *, follows_width: bool = False) -> Limit:
    return Limit(
        9 * eps,
        "epsilon takes 10 % of the update where the gradient is 9 epsilon: 9 / (9 + 1) = 0.9",
        firm=True,
        follows_width=follows_width,
    )


def clamped_epsilon() -> Limit:
    return dataclasses.replace(
        added_epsilon(math.sqrt(_tiny("float32") / (1 - B2))),
        why="epsilon is never below sqrt(tiny / (1 - b2)), where the second moment underflows, "
        "and takes 10 % of the update at 9 times that",
    )


def squared_epsilon(eps: float, *, follows_width: bool = False) -> Limit:
    return Limit(
        math.sqrt(eps / (1 / 0.9**2 - 1)),
        "epsilon is added to the square: 1 / sqrt(1 + eps / g^2) = 0.9 at g = 2.06 sqrt(eps)",
        firm=True,
        follows_width=follows_width,
    )


def lower_limit(name: LimitName, formats: Formats) -> Limit:
    """The smallest gradient that a quantity of a rule can follow."""
    if name == "gradient":
        return Limit(_tiny(formats.gradient), "the gradient's smallest normal number")
    if name == "first moment":
        return Limit(formats.tiny / (1 - B1), "(1 - b1) g reaches the smallest normal number")
    if name == "slow moment":
        return Limit(
            formats.tiny / (1 - B2),
            "(1 - b) g of the slowest mean of gradients, b = 0.999 before its training, reaches "
            "the smallest normal number",
        )
    return Limit(
        math.sqrt(formats.tiny / (1 - B2)), "(1 - b2) g^2 reaches the smallest normal number"
    )


def upper_limit(name: LimitName, formats: Formats, rows: int) -> Limit:
    """The largest entry of a gradient that a quantity of a rule can follow."""
    most = formats.most
    if name == "second moment":
        return Limit(math.sqrt(most), "g^2 overflows")
    if name == "mean square":
        return Limit(math.sqrt(most / rows), f"the sum of {rows} squares overflows")
    if name == "sum":
        return Limit(
            min(most, float(jnp.finfo(formats.gradient).max)) * (1 - B1),
            "the sum of all gradients, 1 / (1 - b1) of one, overflows",
        )
    return Limit(float(jnp.finfo(formats.gradient).max), "the gradient overflows")


def _tiny(dtype: Any) -> float:
    return float(np.float64(jnp.finfo(dtype).tiny))
