import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def power_of_two(*numbers: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""The power of two just below the largest of some numbers, which can be divided by exactly.

    $$2^{\lfloor \log_2 \max |x| \rfloor}$$

    The exponents are taken from the bits as they stand. The result is kept within
    $[2^{e}, 2^{-e}]$, $2^e$ the smallest normal number, so that it and its inverse are
    normal: for the largest, $x / p$ has a size in $[1, 4)$, or is less if it is subnormal or 0.
    An infinity or NaN stays one when it is divided by the result.

    **Arguments:**

    - `numbers`: arrays of one shape, all float32 or all float64.
    """
    info = jnp.finfo(numbers[0].dtype)
    mask = ((1 << info.nexp) - 1) << info.nmant
    exponents = (_bits(x) & mask for x in numbers)
    least, most = 1 << info.nmant, (2 * info.maxexp - 3) << info.nmant
    power = jnp.clip(functools.reduce(jnp.maximum, exponents), least, most)
    return jax.lax.bitcast_convert_type(power, numbers[0].dtype)


def inverse_power_of_two(power: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""$1 / p$ for a $p$ from [`scalex_eqx.ops.power_of_two`][], by a subtraction of bits.

    **Arguments:**

    - `power`: $p$.
    """
    info = jnp.finfo(power.dtype)
    return jax.lax.bitcast_convert_type(
        (2 * (info.maxexp - 1) << info.nmant) - _bits(power), power.dtype
    )


def _bits(x: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
    whole = jnp.int64 if jnp.finfo(x.dtype).bits == 64 else jnp.int32
    return jax.lax.bitcast_convert_type(x, whole)
