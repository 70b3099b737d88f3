"""What a learned rule looks at, entry by entry, of one weight."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...ops import power_of_two

FLOOR = 2.0**-8
"""Below this share of a tensor's root mean square a size is taken to be that share: what is divided
by it then grows with no single entry's gradient without a bound, whatever the scale of all."""


@dataclasses.dataclass(frozen=True)
class FeatureSet:
    r"""Which features a learned rule has, as data.

    With $\theta$ the weight, $g$ its gradient, $m_i$ moving means of $g$, $v$ one of $g^2$, and
    $R_i$, $C_i$ those of the means of $g^2$ along rows and columns:

    | features | count |
    |---|---|
    | $\theta$ | 1 if `parameter` |
    | $g$ | 1 |
    | $m_i$, $m_i / \sqrt v$ | 2 for each of `momentum` |
    | $v$, $1 / \sqrt v$ | 2 |
    | $g / \sqrt{R_i C_i / \bar R_i}$, the same of $m_i$ | 2 for each of `factored` |
    | $R_i$, $C_i$, $1 / \sqrt{R_i}$, $1 / \sqrt{C_i}$ | 4 for each of `factored` |
    | $\tanh(t / x - 1)$ | 1 for each of `times` |

    **Arguments:**

    - `momentum`, `second`, `factored`: the decay rates that the moments have before meta-training.
        `factored` has as many as `momentum`, or none.
    - `times`: $x$, in steps.
    - `parameter`: whether the rule sees the weight.
    """

    momentum: tuple[float, ...] = (0.9, 0.99, 0.999)
    second: float = 0.999
    factored: tuple[float, ...] = (0.9, 0.99, 0.999)
    times: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5)
    parameter: bool = True

    def __post_init__(self) -> None:
        if len(self.factored) not in (0, len(self.momentum)) or not 1 <= len(self.momentum) <= 3:
            raise ValueError(
                f"momentum is {self.momentum} and factored {self.factored}; expected one to three "
                "decay rates, and as many factored ones or none"
            )
        for decay in self.decays:
            if not 0 <= decay < 1:
                raise ValueError(f"a decay rate is {decay}; expected at least 0 and less than 1")

    @property
    def decays(self) -> tuple[float, ...]:
        """All decay rates before meta-training, in the order in which a rule holds them."""
        return (*self.momentum, self.second, *self.factored)

    @property
    def normalised(self) -> int:
        """How many features are divided by their root mean square over the tensor."""
        return int(self.parameter) + 3 + 2 * len(self.momentum) + 6 * len(self.factored)

    @property
    def count(self) -> int:
        """How many features there are in all."""
        return self.normalised + len(self.times)


class Moments(NamedTuple):
    """What is remembered of one weight's gradients; roots of means of squares, never squares.

    Those of several decay rates stand along a first axis. `row` and `column` have length 1 along
    the axis that was averaged over, and are `None` where a weight is no matrix: it then has `full`.
    """

    means: Float[Array, "means ..."]
    root: Float[Array, "..."]
    row: Float[Array, "factored ..."] | None
    column: Float[Array, "factored ..."] | None
    full: Float[Array, "factored ..."] | None


class Features(NamedTuple):
    """Normalised features of one shape: their places in the published list, and the values."""

    places: tuple[int, ...]
    values: Float[Array, "features ..."]


def time_features(features: FeatureSet, count: Float[Array, ""]) -> Float[Array, " times"]:
    r"""$\tanh(t / x - 1)$, the same for every entry of every tensor."""
    return jnp.tanh(count / jnp.asarray(features.times, count.dtype) - 1)


def tensor_features(
    features: FeatureSet,
    w: Float[Array, "*shape"],
    g: Float[Array, "*shape"],
    moments: Moments,
    density: float = 1.0,
) -> list[Features]:
    """The normalised features of one tensor, those of one shape together.

    Those of rows and columns keep length 1 along the other axis. Each has a root mean square of one
    over the entries, at any scale of gradients and weights, or is zero.

    **Arguments:**

    - `density`: the share of the entries that a mask keeps; the others don't count.
    """
    gradient, means = in_unit(g[None]), in_unit(moments.means)
    root = in_unit(moments.root[None])
    inverse = floored_inverse(root)
    found = [in_unit(w[None])] if features.parameter else []
    found += [gradient, means, jnp.square(root), means * inverse, inverse]
    if not features.factored:
        return _grouped([(found, 0)], density)
    if moments.full is not None:
        full = in_unit(moments.full)
        size, square = floored_inverse(full), jnp.square(full)
        return _grouped(
            [([*found, gradient * size, means * size, square, square, size, size], 0)], density
        )
    assert moments.row is not None and moments.column is not None
    row, column = in_unit(moments.row), in_unit(moments.column)
    rows, columns = floored_inverse(row), floored_inverse(column)
    # Rows before columns: the powers of two that they are in units of are gone once normalised.
    found += [gradient * rows * columns, means * rows * columns]
    k = len(features.factored)
    first = features.normalised - 4 * k
    of_rows = ([jnp.square(row), rows], first)
    of_columns = ([jnp.square(column), columns], first + k)
    return [
        *_grouped([(found, 0)], density),
        *_grouped([of_rows, of_columns], density, apart=2 * k),
    ]


def _grouped(
    groups: list[tuple[list[Float[Array, "..."]], int]], density: float, *, apart: int = 0
) -> list[Features]:
    """Each group's features as one array.

    **Arguments:**

    - `groups`: arrays of one shape each but for the first axis, and the place of the first.
    - `apart`: how far the second array's first place is from that of the first; next to it if 0.
    """
    done = []
    for arrays, first in groups:
        starts = [first]
        for x in arrays[:-1]:
            starts.append(starts[-1] + (apart or x.shape[0]))
        places = tuple(
            start + i for start, x in zip(starts, arrays, strict=True) for i in range(x.shape[0])
        )
        done.append(Features(places, unit_rms(jnp.concatenate(arrays), density)))
    return done


def in_unit(x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
    """Each of some tensors divided by the power of two near its largest entry.

    That is exact, and squares are in range. One of zeros is divided by one: by the smallest number
    its derivative would overflow.
    """
    largest = jnp.max(jnp.abs(x), axis=_own(x), keepdims=True)
    return x / jnp.where(largest == 0, 1, power_of_two(largest))


def unit_rms(x: Float[Array, "n ..."], density: float = 1.0) -> Float[Array, "n ..."]:
    """Each of some tensors divided by its root mean square; their largest entries are near one."""
    square = jnp.mean(jnp.square(x), axis=_own(x), keepdims=True) / density
    # With a derivative where everything is zero.
    return x * jax.lax.rsqrt(jnp.where(square == 0, 1, square))


def floored_inverse(x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
    r"""$1 / \max(x, 2^{-8} \operatorname{RMS}(x))$ of each of some tensors in their units.

    It is 0 where $x$ is 0: where no gradient has ever been there is nothing to divide by. The floor
    is the tensor's own size: an absolute one makes a rule another one where gradients are small.
    """
    least = FLOOR * safe_sqrt(jnp.mean(jnp.square(x), axis=_own(x), keepdims=True))
    return jnp.where(x == 0, 0, 1 / jnp.where(x == 0, 1, jnp.maximum(x, least)))


def safe_sqrt(square: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The square root, whose derivative at 0 is 0 and not infinite; NaN stays."""
    return jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))


def _own(x: Float[Array, "n ..."]) -> tuple[int, ...]:
    return tuple(range(1, x.ndim))
