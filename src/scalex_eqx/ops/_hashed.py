from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, UInt32

# The finaliser "lowbias32" of Wellons' search, https://github.com/skeeto/hash-prospector, and the
# step of a Weyl sequence, 2^32 over the golden ratio.
_FIRST, _SECOND, _WEYL = (np.uint32(x) for x in (0x7FEB352D, 0x846CA68B, 0x9E3779B9))


def hashed(
    shape: tuple[int, ...], words: tuple[UInt32[Array, ""], UInt32[Array, ""]]
) -> UInt32[Array, "..."]:
    r"""Random bits for each entry of an array, from its indices and two words.

    $$h_{ij} = f_{b_i}(j \oplus a_i), \qquad (a_i, b_i) = g(i, \text{words})$$

    for the columns $j$ of row $i$, with integer functions $f$ and $g$ that change about half of the
    result's bits when a bit of the argument changes. An entry costs two multiplications, where
    `jax.random.bits` takes ten rounds, on CPUs through memory. Not for secrets.

    **Arguments:**

    - `shape`: of the array. The entries of its last axis are the columns.
    - `words`: what other words give has nothing to do with it.

    ??? cite "Source"

        Hashing a counter: Salmon et al., *Parallel random numbers: as easy as 1, 2, 3* (2011).
    """
    padded = (1, *shape) if shape else (1, 1)
    row = _rows(padded[:-1])[..., None]
    a = _mixed(row * _WEYL + words[0])
    b = _mixed(a ^ words[1])
    a = _mixed(a + b * _WEYL)
    column = lax.broadcasted_iota(jnp.uint32, padded, len(padded) - 1)
    x = (column ^ a) * _WEYL
    # The second word in the middle: rows whose first words lie close share no stretch of bits.
    x = ((x ^ (x >> 15)) + b) * _SECOND
    return (x ^ (x >> 16)).reshape(shape)


def hashed_words(
    words: tuple[UInt32[Array, ""], UInt32[Array, ""]], number: Any
) -> tuple[UInt32[Array, ""], UInt32[Array, ""]]:
    """Two words of its own for each number."""
    one = _mixed(words[0] + jnp.asarray(number, jnp.uint32) * _WEYL)
    two = _mixed(words[1] ^ one)
    return _mixed(one + two * _FIRST), two


def _rows(shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """The number of each row, counted through all axes."""
    total = jnp.zeros(shape, jnp.uint32)
    for axis, size in enumerate(shape):
        total = total * np.uint32(size % 2**32) + lax.broadcasted_iota(jnp.uint32, shape, axis)
    return total


def _mixed(x: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    x = (x ^ (x >> 16)) * _FIRST
    x = (x ^ (x >> 15)) * _SECOND
    return x ^ (x >> 16)
