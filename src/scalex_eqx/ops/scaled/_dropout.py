import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ._constraint import Number
from ._factors import dropout_factors


def dropout(
    x: Float[Array, "*shape"], rate: Number, *, key: PRNGKeyArray
) -> Float[Array, "*shape"]:
    r"""$x / \sqrt{1 - p}$ where an entry is kept, and zero where it is not.

    **Arguments:**

    - `x`: of size one.
    - `rate`: $p$, the share that is left out. Where nothing is to be left out, as in evaluation,
        don't call it.
    - `key`: draws which.
    """
    factor = dropout_factors(rate).output / (1 - rate)
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x * factor, jnp.zeros((), x.dtype))
