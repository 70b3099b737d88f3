from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._weight import Weight, effective
from ._init import check_positive, constant


class LayerNorm(eqx.Module):
    r"""$y = \gamma\, (x - \bar x) / \sqrt{\operatorname{var} x + \epsilon} + \beta$."""

    gain: Weight[Float[Array, " size"]]
    bias: Weight[Float[Array, " size"]] | None
    eps: float = eqx.field(static=True)

    def __init__(self, size: int, *, use_bias: bool = False, eps: float = 1e-5, dtype: Any = None):
        """**Arguments:**

        - `size`: how many features there are.
        - `use_bias`: whether to add a bias.
        - `eps`: added to the variance.
        - `dtype`: of gain and bias; JAX's default float if not given.
        """
        check_positive(size=size)
        self.gain = constant(size, 1.0, dtype)
        self.bias = constant(size, 0.0, dtype) if use_bias else None
        self.eps = eps

    def __check_init__(self):
        _check(self.gain, self.bias)

    def __call__(
        self, x: Float[Array, " size"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " size"]:
        """**Arguments:**

        - `x`: one example's features.
        - `key`: ignored; with it the layer fits into `equinox.nn.Sequential`.
        """
        centred = x - jnp.mean(x)
        y = centred / jnp.sqrt(jnp.mean(jnp.square(centred)) + self.eps) * effective(self.gain)
        return y if self.bias is None else y + effective(self.bias)


class RMSNorm(eqx.Module):
    r"""$y = \gamma\, x / \sqrt{\overline{x^2} + \epsilon}$."""

    gain: Weight[Float[Array, " size"]]
    eps: float = eqx.field(static=True)

    def __init__(self, size: int, *, eps: float = 1e-6, dtype: Any = None):
        """**Arguments:**

        - `size`: how many features there are.
        - `eps`: added to the mean square.
        - `dtype`: of the gain; JAX's default float if not given.
        """
        check_positive(size=size)
        self.gain = constant(size, 1.0, dtype)
        self.eps = eps

    def __check_init__(self):
        _check(self.gain, None)

    def __call__(
        self, x: Float[Array, " size"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " size"]:
        """**Arguments:**

        - `x`: one example's features.
        - `key`: ignored; with it the layer fits into `equinox.nn.Sequential`.
        """
        return x / jnp.sqrt(jnp.mean(jnp.square(x)) + self.eps) * effective(self.gain)


def _check(gain: Weight[Float[Array, " size"]], bias: Weight[Float[Array, " size"]] | None) -> None:
    """Runtime type checkers look at arguments, not at fields."""
