"""Sums over units, made from their gradients: in float32 at least.

Squares leave the range of shorter dtypes, and sums their digits.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..ops._wide import wide

POWERS = {"square": jnp.square, "fourth": lambda x: jnp.square(jnp.square(x)), "sign": jnp.sign}
"""What is summed of each entry by itself."""


def entrywise(statistic: str, gradients: Array) -> Array:
    """The sum over the units, which the first axis numbers, of a function of each entry."""
    return jnp.sum(POWERS[statistic](wide(gradients)), axis=0)


def squared_norms(gradients: Array) -> Array:
    """Of each unit."""
    return jnp.sum(jnp.square(wide(gradients)), axis=range(1, gradients.ndim))


def clip_factors(squared: Array, clip: Any) -> Array:
    r"""$\min(1, C / \lvert g_i \rvert)$; NaN stays NaN."""
    one = jnp.ones((), squared.dtype)
    return jnp.minimum(one, jnp.asarray(clip, squared.dtype) / jnp.sqrt(squared))


def total(norms: PyTree) -> Array:
    """Of the whole tree, from the squared norms of its parts."""
    leaves = jax.tree.leaves(norms)
    dtype = jnp.result_type(*(leaf.dtype for leaf in leaves))
    return functools.reduce(jnp.add, (leaf.astype(dtype) for leaf in leaves))
