from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

from ._hashed import hashed
from ._power import power_of_two


def rounded(x: Float[Array, "*shape"], dtype: Any) -> Float[Array, "*shape"]:
    """The nearest number of a narrower dtype, still in the dtype of `x`.

    A cast there and back says the same, but compilers may leave it out where they are allowed
    excess precision, as XLA does for accelerators. This they may not.

    **Arguments:**

    - `x`: float32.
    - `dtype`: bfloat16 or float16.
    """
    info = jnp.finfo(dtype)
    if info.nexp == jnp.finfo(x.dtype).nexp:
        return jax.lax.reduce_precision(x, info.nexp, info.nmant)
    # reduce_precision would flush the subnormal numbers of the narrower range.
    return jax.lax.optimization_barrier(x.astype(dtype)).astype(x.dtype)


def stochastically_rounded(
    x: Float[Array, "*shape"], dtype: Any, key: jax.Array
) -> Float[Array, "*shape"]:
    r"""One of the two neighbours in a narrower dtype, at random, so that the mean is $x$.

    $$y = h \left( \lfloor x / h \rfloor + [\,U < x / h - \lfloor x / h \rfloor\,] \right)$$

    with the spacing $h$ of the dtype's numbers at $x$, a power of two, and $U$ uniform on
    $[0, 1)$. The probability is exact: all that stands in the formula is, and $U$ has the 16 bits
    by which bfloat16 is shorter than float32, or 24. They come from
    [`scalex_eqx.ops.hashed`][], with words from the key.

    **Arguments:**

    - `x`: float32.
    - `dtype`: bfloat16 or float16.
    - `key`: of `jax.random`.

    **Returns:** numbers of `dtype`, still in the dtype of `x`. Infinities and NaN stay.
    """
    one, two = jax.random.bits(key, (2,), jnp.uint32)
    return rounded_by(x, dtype, hashed(x.shape, (one, two)))


def rounded_by(
    x: Float[Array, "*shape"], dtype: Any, bits: UInt32[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """The same with random bits that are given."""
    info = jnp.finfo(dtype)
    if info.nexp == jnp.finfo(x.dtype).nexp:
        return _cut_by(x, info.nmant, bits)
    # The spacing doesn't shrink below the dtype's smallest normal numbers, and float32's own
    # subnormal numbers are flushed to zero.
    least = max(float(info.smallest_subnormal), float(jnp.finfo(x.dtype).tiny))
    # Of half of x, since a power of two above 2^126 has no normal inverse and is not given.
    spacing = jnp.maximum(power_of_two(x / 2) * (2 * float(info.eps)), least)
    whole = jnp.floor(x / spacing)
    uniform = (bits >> 8).astype(x.dtype) * 2.0**-24
    return spacing * (whole + (uniform < x / spacing - whole).astype(x.dtype))


def _cut_by(
    x: Float[Array, "*shape"], nmant: int, bits: UInt32[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """To fewer bits of the same exponents: what is cut off carries if the random bits make it.

    The bits of a positive number count its dtype's numbers, so that the carry leads to the next.
    """
    cut = jnp.finfo(x.dtype).nmant - nmant
    kept = np.uint32((1 << 32) - (1 << cut))
    sum = jax.lax.bitcast_convert_type(x, jnp.uint32) + (bits >> (32 - cut))
    return jnp.where(jnp.isnan(x), x, jax.lax.bitcast_convert_type(sum & kept, x.dtype))
