"""Which numbers a format rounds to zero, and which overflow in it."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Format:
    """A floating-point format, by what it can't hold.

    **Arguments:**

    - `name`: short, for tables.
    - `dtype`: of JAX.
    """

    name: str
    dtype: Any

    @property
    def zero_below(self) -> float:
        """Half of the least number: what is at most that in size becomes zero."""
        return float(jnp.finfo(self.dtype).smallest_subnormal) / 2

    @property
    def overflow_from(self) -> float:
        """Halfway from the largest number to the next that would be: from there on it is none.

        A tie goes to the neighbour whose last digit is even, which is the largest number itself if
        that is. Where a format has no infinity such numbers become NaN, or the largest.
        """
        info = jnp.finfo(self.dtype)
        largest = float(info.max)
        spacing = 2.0 ** np.floor(np.log2(largest)) * float(info.eps)
        is_even = (largest / spacing) % 2 == 0
        tie = largest + spacing / 2
        return float(np.nextafter(np.float64(tie), np.inf)) if is_even else tie


FORMATS = {
    one.name: one
    for one in (
        Format("float32", jnp.float32),
        Format("bfloat16", jnp.bfloat16),
        Format("float16", jnp.float16),
        Format("e5m2", jnp.float8_e5m2),
        Format("e4m3", jnp.float8_e4m3fn),
        Format("e2m1", jnp.float4_e2m1fn),
    )
}
"""Those that are looked at, by their names."""
