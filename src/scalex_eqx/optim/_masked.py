"""Whole matrices, of which a mask leaves something out."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# A little more than the largest singular value that Newton-Schulz leaves, 1.2: what is whole stays.
_LARGEST = 1.25
_STEPS = 8


def masked_like(
    matrix: Float[Array, "*stack rows columns"], mean: Float[Array, "*stack rows columns"]
) -> Float[Array, "*stack rows columns"]:
    r"""An orthogonalised matrix without what is masked, and no larger than it was.

    $$P = O \odot [m \ne 0], \qquad u = P\, \min\left(1,\ 1.25 / \sigma_1(P)\right)$$

    What is left of a matrix whose singular values are all one may have much larger ones: in the
    direction of the gradient entries add up that what is left out had balanced.

    **Arguments:**

    - `matrix`: $O$.
    - `mean`: $m$, of the gradients. What is masked has never had one. What else has none stands in
        a row or column of zeros, and has no update either.
    """
    kept = jnp.where(mean == 0, jnp.zeros((), matrix.dtype), matrix)
    size = _largest_singular_value(kept)
    limit = jnp.asarray(_LARGEST, size.dtype)
    return kept * jnp.minimum(jnp.ones((), size.dtype), limit / size)[..., None, None]


def _largest_singular_value(matrix: Float[Array, "*stack rows columns"]) -> Float[Array, "*stack"]:
    """By the power method: from below, and closest where one stands out."""
    start = jax.random.normal(jax.random.key(0), matrix.shape[-1:], matrix.dtype)
    vector = jnp.broadcast_to(start, (*matrix.shape[:-2], matrix.shape[-1]))
    size = jnp.zeros(matrix.shape[:-2], matrix.dtype)
    for _ in range(_STEPS):
        image = jnp.einsum("...rc,...c->...r", matrix, _unit(vector))
        size = jnp.linalg.norm(image, axis=-1)
        vector = jnp.einsum("...rc,...r->...c", matrix, image)
    return size


def _unit(vector: Float[Array, "*stack n"]) -> Float[Array, "*stack n"]:
    size = jnp.linalg.norm(vector, axis=-1, keepdims=True)
    return vector / jnp.where(size > 0, size, jnp.ones_like(size))
