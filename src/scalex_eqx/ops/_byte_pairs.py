"""A number of either sign and a square, both below one, in sixteen bits.

Each has a byte that counts as floating-point numbers do: octaves, and steps in them. A number's
float32 bits are cut to those of the byte after random bits are added, as `stochastically_rounded`
does, so that the mean is kept.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt16, UInt32

LEAST_SQUARE, STEP = 2.0**-32, 2.0**-18
"""The least square that there is a byte for, and the steps between numbers near zero."""

# float32's exponents of 2^-32 and 2^-15 in front of three bits of the mantissa; the others are cut.
_SQUARE, _NUMBER = (np.uint32((127 - k) << 3) for k in (32, 15))
_CUT = 20
_LOW = np.uint32((1 << _CUT) - 1)
_NAN = np.uint32(255)


def to_byte_pairs(
    x: Float[Array, "*shape"], square: Float[Array, "*shape"], bits: UInt32[Array, "*shape"]
) -> UInt16[Array, "*shape"]:
    r"""Neighbours of both in their grids, at random, so that the means are kept.

    | | the grid | below it |
    |---|---|---|
    | $x$ | $\pm (2^e (1 + i / 8) - 2^{-15})$ for $e \ge -15$ | |
    | the square | $2^e (1 + i / 8)$ for $e \ge -32$ | the least, since one divides by its root |

    Both end with the octave below one. What is larger comes out as the largest number; a square
    that is not finite stays so.

    **Arguments:**

    - `x`, `square`: float32.
    - `bits`: random ones. Those of the lower end decide on the square, of the upper on the number.
    """
    whole = lax.bitcast_convert_type(jnp.abs(x) + 2.0**-15, jnp.uint32) + (bits >> (32 - _CUT))
    number = jnp.minimum((whole >> _CUT) - _NUMBER, np.uint32(127))
    number = number | ((lax.bitcast_convert_type(x, jnp.uint32) >> 31) << 7)
    least = jnp.where(square < LEAST_SQUARE, LEAST_SQUARE, square)
    whole = lax.bitcast_convert_type(least, jnp.uint32) + (bits & _LOW)
    counted = (whole >> _CUT) - _SQUARE
    above = jnp.where(square < jnp.inf, _NAN - 1, _NAN)
    counted = jnp.where(counted < _NAN, counted, above)
    # XLA:CPU doesn't repeat an operation on two arrays in loops that read its result, but would
    # compute all of this in them if the last one were on a single array.
    return number.astype(jnp.uint16) | (counted << 8).astype(jnp.uint16)


def from_byte_pairs(
    code: UInt16[Array, "*shape"],
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """The number and the square, in float32; NaN for a square that was not finite."""
    whole = code.astype(jnp.uint32)
    size = _counted((whole & 127) + _NUMBER) - 2.0**-15
    signed = lax.bitcast_convert_type(size, jnp.uint32) | ((whole & 128) << 24)
    square = jnp.where(whole >> 8 == _NAN, jnp.nan, _counted((whole >> 8) + _SQUARE))
    return lax.bitcast_convert_type(signed, jnp.float32), square


def _counted(counted: UInt32[Array, "*shape"]) -> Float[Array, "*shape"]:
    return lax.bitcast_convert_type(counted << _CUT, jnp.float32)
