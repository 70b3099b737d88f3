"""What follows from the means over units."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..ops._wide import wide
from ._result import GradientStatistics
from ._sums import total


def signal_to_noise(result: GradientStatistics) -> PyTree:
    r"""Of each entry $\lvert G \rvert / \hat\sigma$, $\hat\sigma^2 = \frac{n}{n - 1} (Q - G^2)$.

    $G$ is the mean of the units' gradients, $Q$ that of their squares and $\hat\sigma^2$ the
    unbiased estimate of one unit's variance. By chance alone it is about $n^{-1/2}$. Where all
    units agree exactly it is infinite; where none has a gradient it is 0.

    **Arguments:**

    - `result`: with the statistic `"square"`.
    """
    return jax.tree.map(_ratio, result.gradient, _asked(result, "square", 2), _variances(result))


def signal_to_noise_by_weight(result: GradientStatistics) -> PyTree:
    r"""Of each weight $(\sum G^2 / \sum \hat\sigma^2)^{1/2}$: a number in place of each array.

    The sums are over its entries; $\hat\sigma^2$ is that of
    [`scalex_eqx.per_example.signal_to_noise`][].

    **Arguments:**

    - `result`: with the statistic `"square"`.
    """

    def ratio(gradient: Array, square: Array, variance: Array) -> Array:
        size = jnp.sqrt(jnp.sum(jnp.square(wide(gradient))))
        return _ratio(size, jnp.sum(square), jnp.sum(variance))

    return jax.tree.map(ratio, result.gradient, _asked(result, "square", 2), _variances(result))


def sign_agreement(result: GradientStatistics) -> PyTree:
    r"""Of each entry $\lvert \frac1n \sum_i \operatorname{sign} g_i \rvert$.

    1 where all units agree on the sign, about $n^{-1/2}$ by chance, 0 where none has a gradient.

    **Arguments:**

    - `result`: with the statistic `"sign"`.
    """
    return jax.tree.map(jnp.abs, _asked(result, "sign"))


def kurtosis(result: GradientStatistics) -> PyTree:
    r"""Of each entry $\frac1n \sum_i g_i^4 / (\frac1n \sum_i g_i^2)^2$, the kurtosis about zero.

    3 for normal noise that is large against the mean, 1 where all are of one size, and $n$ where
    one unit alone has a gradient: the heaviest tail that $n$ units can show. 0 where none has one.
    It is about zero, not about the mean, and biased downwards for few units.

    **Arguments:**

    - `result`: with the statistics `"square"` and `"fourth"`.
    """

    def ratio(fourth: Array, square: Array) -> Array:
        # Twice by the square: its own square leaves the range of numbers first.
        safe = jnp.where(square == 0, jnp.ones_like(square), square)
        return jnp.where(square == 0, jnp.zeros_like(square), fourth / safe / safe)

    return jax.tree.map(ratio, _asked(result, "fourth"), _asked(result, "square"))


def noise_scale(result: GradientStatistics) -> Float[Array, ""]:
    r"""The simple gradient noise scale $\operatorname{tr} \Sigma / \lvert G \rvert^2$, in examples.

    $$\widehat{\operatorname{tr} \Sigma} = \frac{k n}{n - 1} \Big(\frac1n \sum_i \lvert g_i \rvert^2
    - \lvert G \rvert^2\Big), \qquad
    \widehat{\lvert G \rvert^2} = \frac{1}{n - 1} \Big(n \lvert G \rvert^2
    - \frac1n \sum_i \lvert g_i \rvert^2\Big)$$

    $k$ is how many examples a unit has; both estimates are unbiased, their ratio is not. The
    second can be negative by chance, and so is the ratio then: take the means of both over several
    batches, as the source does. Of tokens, it counts tokens, as though they were independent.

    **Arguments:**

    - `result`: with the statistic `"square"` or `"norm"`.

    ??? cite "Source"

        McCandlish et al. (2018), [arXiv:1812.06162](https://arxiv.org/abs/1812.06162), equation 2.9
        and appendix A.1, with the small batch of one unit and the large one of all.
    """
    _check_count(result)
    if result.norm is not None:
        mean = jnp.mean(result.norm)
    else:
        mean = total(jax.tree.map(jnp.sum, _asked(result, "square")))
    gradient = total(jax.tree.map(lambda g: jnp.sum(jnp.square(wide(g))), result.gradient))
    count = result.count
    trace = result.examples * count / (count - 1) * (mean - gradient)
    return trace / ((count * gradient - mean) / (count - 1))


def _variances(result: GradientStatistics) -> PyTree:
    r"""$\frac{n}{n - 1} (Q - G^2)$; what rounding makes negative is 0."""
    _check_count(result)
    factor = result.count / (result.count - 1)

    def variance(gradient: Array, square: Array) -> Array:
        found = factor * (square - jnp.square(wide(gradient)))
        return jnp.where(found < 0, jnp.zeros_like(found), found)

    return jax.tree.map(variance, result.gradient, _asked(result, "square"))


def _ratio(gradient: Array, square: Array, variance: Array) -> Array:
    size = jnp.abs(wide(gradient))
    return jnp.where(square == 0, jnp.zeros_like(size), size / jnp.sqrt(variance))


def _asked(result: GradientStatistics, statistic: str, count: int = 1) -> Any:
    found = getattr(result, statistic)
    if found is None:
        raise ValueError(
            f"the result has no {statistic!r}; ask for it: "
            f"gradient_statistics(..., statistics=({statistic!r}, ...))"
        )
    if count > 1:
        _check_count(result)
    return found


def _check_count(result: GradientStatistics) -> None:
    if result.count < 2:
        raise ValueError("one unit has no variance; expected a batch of at least two")
