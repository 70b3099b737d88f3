import jax.numpy as jnp
from jaxtyping import Array, Float

from ._init import wide


def rotary(
    x: Float[Array, "*batch seq heads d"], base: float
) -> Float[Array, "*batch seq heads d"]:
    r"""Turns pairs of features by angles that grow with the position.

    $$\begin{pmatrix} y_i \\ y_{i + d/2} \end{pmatrix} =
    \begin{pmatrix} \cos t\theta_i & -\sin t\theta_i \\ \sin t\theta_i & \cos t\theta_i
    \end{pmatrix} \begin{pmatrix} x_i \\ x_{i + d/2} \end{pmatrix}, \qquad
    \theta_i = \text{base}^{-2 i / d},$$

    with $t$ the position, from 0. The scalar product of a query and a key then depends on the
    distance between their positions. The angles are computed, so that there is nothing to train,
    and in float32 at least: bfloat16 can't count beyond 256.

    The pairs are those of Llama's published weights: a feature of the first half with one of the
    second.

    **Arguments:**

    - `x`: queries or keys, at the positions 0, 1, ... along the third axis from the end.
    - `base`: of the angles; 10,000 in the source, 500,000 in Llama 3.

    ??? cite "Source"

        Su et al. (2021), [arXiv:2104.09864](https://arxiv.org/abs/2104.09864), equation 34.
    """
    length, d = x.shape[-3], x.shape[-1]
    check_even(d)
    first, second = jnp.split(wide(x), 2, axis=-1)
    speed = base ** (-jnp.arange(0, d, 2, dtype=first.dtype) / d)
    angle = jnp.arange(length, dtype=first.dtype)[:, None, None] * speed[None, None]
    cos, sin = (jnp.broadcast_to(f(angle), first.shape) for f in (jnp.cos, jnp.sin))
    turned = jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)
    return turned.astype(x.dtype)


def check_even(d: int) -> None:
    """Refuses a number of features that don't make pairs."""
    if d % 2:
        raise ValueError(
            f"head_dimension is {d}, of which rotary positions can't make pairs; expected an even "
            "number, or rotary_base=None"
        )
