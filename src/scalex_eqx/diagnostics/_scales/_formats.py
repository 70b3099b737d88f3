"""Which numbers a format rounds to zero, and which overflow in it."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp


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
        """Halfway from the largest number to the next that would be."""
        return float(jnp.finfo(self.dtype).max) + self._spacing / 2

    @property
    def keeps_tie(self) -> bool:
        """Whether what is exactly there becomes the largest number, whose last digit is then 0."""
        return (float(jnp.finfo(self.dtype).max) / self._spacing) % 2 == 0

    @property
    def _spacing(self) -> float:
        """Of the largest numbers."""
        info = jnp.finfo(self.dtype)
        return 2.0 ** math.floor(math.log2(float(info.max))) * float(info.eps)


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
