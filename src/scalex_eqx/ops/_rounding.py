from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

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
    $[0, 1)$. The probability is exact: all that stands in the formula is, and $U$ has 23 bits.

    **Arguments:**

    - `x`: float32.
    - `dtype`: bfloat16 or float16.
    - `key`: of `jax.random`.

    **Returns:** numbers of `dtype`, still in the dtype of `x`. Infinities and NaN stay.
    """
    info = jnp.finfo(dtype)
    # The spacing doesn't shrink below the dtype's smallest normal numbers, and float32's own
    # subnormal numbers are flushed to zero.
    least = max(float(info.smallest_subnormal), float(jnp.finfo(x.dtype).tiny))
    # Of half of x, since a power of two above 2^126 has no normal inverse and is not given.
    spacing = jnp.maximum(power_of_two(x / 2) * (2 * float(info.eps)), least)
    whole = jnp.floor(x / spacing)
    up = jax.random.uniform(key, x.shape, x.dtype) < x / spacing - whole
    return spacing * (whole + up.astype(x.dtype))
