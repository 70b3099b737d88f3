import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from ._power import inverse_power_of_two, power_of_two


def towards(
    start: Inexact[Array, "*shape"],
    end: Inexact[Array, "*shape"],
    step: float | Inexact[Array, ""],
) -> Inexact[Array, "*shape"]:
    r"""The point between `start` and `end` at $s$ of the way: $(1 - s)\, a + s\, b$.

    It is computed from the nearer end, $a + s (b - a)$ or $b + (1 - s) (a - b)$. The two weights
    then add up to 1, which rounded values of $s$ and $1 - s$ don't: in float32 the neighbour of
    0.99999 is off by 0.3 % of 1 - 0.99999. And at $s = 1$ the result is `end`, however large
    `start` is.

    **Arguments:**

    - `start`, `end`: $a$ and $b$.
    - `step`: $s$, from 0 to 1; a Python float or an array of their dtype.
    """
    if isinstance(step, float):
        return start + step * (end - start) if step <= 0.5 else end + (1 - step) * (start - end)
    beyond = step > 0.5
    return jnp.where(beyond, end, start) + jnp.where(beyond, step - 1, step) * (end - start)


def moving_mean(
    mean: Float[Array, "*shape"], x: Float[Array, "*shape"], step: Float[Array, ""]
) -> Float[Array, "*shape"]:
    r"""A moving mean, moved towards a new value.

    $$m \leftarrow m + s\, (x - m)$$

    It is computed in units of a power of two near the larger of the two, so that nothing in
    between over- or underflows: scaling both arguments by a power of two scales the result
    exactly as long as it is a normal number.

    **Arguments:**

    - `mean`: $m$, float32 or float64.
    - `x`: the new value, of the same dtype.
    - `step`: $s$, from 0 to 1.
    """
    unit = power_of_two(mean, x)
    inverse = inverse_power_of_two(unit)
    return unit * towards(mean * inverse, x * inverse, step)


def moving_root_mean_square(
    root: Float[Array, "*shape"], x: Float[Array, "*shape"], step: Float[Array, ""]
) -> Float[Array, "*shape"]:
    r"""The root of a moving mean of squares, which itself need not be representable.

    $$r \leftarrow \sqrt{r^2 + s\, (x^2 - r^2)}$$

    A square underflows in float32 where the number itself is still 1e-19, and overflows at
    1e19. The root does neither: it is computed in units of a power of two, as
    [`scalex_eqx.ops.moving_mean`][] is.

    **Arguments:**

    - `root`: $r$, not negative; float32 or float64.
    - `x`: the new value, of the same dtype.
    - `step`: $s$, from 0 to 1.
    """
    unit = power_of_two(root, x)
    inverse = inverse_power_of_two(unit)
    return unit * jnp.sqrt(towards(jnp.square(root * inverse), jnp.square(x * inverse), step))
