"""Numbers of eight and four bits, kept in a wide dtype."""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._wide import wide

NarrowFormat = Literal["bfloat16", "e4m3", "e5m2", "mxfp8_e4m3", "mxfp8_e5m2", "nvfp4"]
"""A number format, with the scales that it comes with."""

_DTYPES = {
    "bfloat16": jnp.bfloat16,
    "e4m3": jnp.float8_e4m3fn,
    "e5m2": jnp.float8_e5m2,
    "mxfp8_e4m3": jnp.float8_e4m3fn,
    "mxfp8_e5m2": jnp.float8_e5m2,
    "nvfp4": jnp.float4_e2m1fn,
}
_MX_BLOCK, _NV_BLOCK = 32, 16
# The exponent that a scale of eight bits without sign or digits is at least.
_LEAST_SCALE = -127


def narrowed(
    x: Float[Array, "*shape"], format: NarrowFormat, *, axis: int = -1
) -> Float[Array, "*shape"]:
    r"""The nearest numbers of a narrow format, still in the dtype of `x`.

    | format | numbers | scales |
    |---|---|---|
    | `bfloat16`, `e4m3`, `e5m2` | as they are | none |
    | `mxfp8_e4m3`, `mxfp8_e5m2` | of 8 bits | a power of two for each 32 along `axis` |
    | `nvfp4` | of 4 bits, e2m1 | an e4m3 for each 16, and one float32 for all |

    Numbers beyond the largest of a format become that, where JAX's cast gives NaN (e4m3) or
    infinity (e5m2); what is no number, and an infinity, stays what it is. Compilers keep the cast:
    it stands in front of a barrier. Sums and maxima are taken in float32 at least. A block of zeros
    stays zero, and one with a number that is not finite becomes NaN; with `nvfp4` all do. A last
    block may be shorter.

    **Arguments:**

    - `x`: of at least float32.
    - `format`: by name.
    - `axis`: along which the blocks lie; the one that a product sums over.

    ??? cite "Source"

        MX: Rouhani et al. (2023), [arXiv:2310.10537](https://arxiv.org/abs/2310.10537). NVFP4:
        NVIDIA (2025), [arXiv:2509.25149](https://arxiv.org/abs/2509.25149).
    """
    if format not in _DTYPES:
        known = ", ".join(map(repr, get_args(NarrowFormat)))
        raise ValueError(f"format is {format!r}; expected one of {known}")
    if format.startswith("mx"):
        return _in_blocks(x, axis, _MX_BLOCK, lambda blocks: _mx(blocks, format))
    if format == "nvfp4":
        return _in_blocks(x, axis, _NV_BLOCK, _nv)
    return _cast(x, format)


def _largest(format: str) -> float:
    return float(jnp.finfo(_DTYPES[format]).max)


def _cast(x: Array, format: str) -> Array:
    # A number between the largest and infinity must not become the latter.
    largest = _largest(format)
    kept = jnp.where(jnp.isfinite(x), jnp.clip(x, -largest, largest), x)
    cast = jax.lax.optimization_barrier(kept.astype(_DTYPES[format])).astype(x.dtype)
    return jnp.where(jnp.isfinite(x), cast, x)


def _in_blocks(x: Array, axis: int, size: int, rounded: Callable[[Array], Array]) -> Array:
    """`rounded` of arrays `[..., blocks, size]`, which zeros fill up."""
    moved = jnp.moveaxis(wide(x), axis, -1)
    length = moved.shape[-1]
    padding = [(0, 0)] * (moved.ndim - 1) + [(0, -length % size)]
    padded = jnp.pad(moved, padding)
    blocks = rounded(padded.reshape(*padded.shape[:-1], -1, size))
    whole = blocks.reshape(padded.shape)[..., :length]
    return jnp.moveaxis(whole, -1, axis).astype(x.dtype)


def _mx(blocks: Array, format: str) -> Array:
    """With the power of two that brings a block's largest below twice the format's last octave."""
    largest = jnp.max(jnp.abs(blocks), axis=-1, keepdims=True)
    last = jnp.asarray(jnp.frexp(jnp.asarray(_largest(format)))[1] - 1)
    exponent = jnp.frexp(jnp.where(largest > 0, largest, 1))[1] - 1 - last
    exponent = jnp.maximum(exponent, _LEAST_SCALE)
    rounded = jnp.ldexp(_cast(jnp.ldexp(blocks, -exponent), format), exponent)
    return jnp.where(jnp.isfinite(largest), rounded, jnp.nan)


def _nv(blocks: Array) -> Array:
    """With an e4m3 for each block, itself relative to one float32 for the array."""
    top, top_scale = _largest("nvfp4"), _largest("e4m3")
    largest = jnp.max(jnp.abs(blocks), axis=-1, keepdims=True)
    whole = jnp.max(largest) / (top * top_scale)
    whole = jnp.where(whole == 0, 1, whole)
    scale = whole * _cast(largest / top / whole, "e4m3")
    # A block whose scale has become zero is too small beside the largest to be anything but zero.
    known = jnp.where(scale > 0, scale, 1)
    rounded = jnp.where(scale > 0, scale * _cast(blocks / known, "nvfp4"), 0)
    return jnp.where(jnp.isfinite(whole), rounded, jnp.nan)
