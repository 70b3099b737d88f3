"""What is counted of an array's entries."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from ...ops._wide import wide
from ._formats import FORMATS


class Sizes(NamedTuple):
    """Of each member of a stack of arrays.

    **Arguments:**

    - `size`: the root mean square; finite entries of any size neither underflow nor overflow.
    - `largest`: in absolute value.
    - `zeroed`, `overflowing`: for each format the share of the entries that aren't zero which it
        rounds to zero, and which are too large for it.
    """

    size: Float[Array, " members"]
    largest: Float[Array, " members"]
    zeroed: Float[Array, "formats members"]
    overflowing: Float[Array, "formats members"]


def sizes_of(x: Shaped[Array, "..."], stacked: int) -> Sizes:
    """The sizes of an array whose leading axes number members.

    **Arguments:**

    - `x`: of floating-point numbers.
    - `stacked`: how many axes do.
    """
    members = x.reshape(*x.shape[:stacked], -1) if stacked else x.reshape(1, -1)
    entries = jnp.abs(wide(members)).reshape(-1, members.shape[-1])
    largest = jnp.max(entries, axis=1)
    unit = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    relative = entries / unit[:, None]
    size = unit * jnp.sqrt(jnp.mean(jnp.square(relative), axis=1))
    # Zeros, and there may be nothing else, are held by every format.
    nonzero = jnp.maximum(jnp.sum(entries != 0, axis=1), 1)
    # All formats at once, since each reduction by itself is a kernel to be compiled.
    low, high = _bounds(entries.dtype)
    every = entries[None]
    zeroed = jnp.sum((every > 0) & (every <= low), axis=2) / nonzero[None]
    # What is no number is none in any format.
    over = jnp.sum(~(every < high), axis=2) / nonzero[None]
    return Sizes(size, largest, zeroed, over)


def _bounds(dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Up to which numbers of a dtype each format gives zero, and from which on it overflows."""
    known = FORMATS.values()
    with np.errstate(over="ignore"):
        low = np.asarray([one.zero_below for one in known], dtype)
        high = np.asarray([one.overflow_from for one in known], dtype)
    ties = np.asarray([one.keeps_tie for one in known])
    high = np.where(ties, np.nextafter(high, np.asarray(np.inf, dtype)), high)
    return low[:, None, None], high[:, None, None]
