from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._weight import Weight, effective
from ..theory import Role
from ._init import check_positive, constant, wide


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
        # Sums over the features in bfloat16 lose what many of them add up to.
        centred = wide(x) - jnp.mean(wide(x))
        size = jnp.sqrt(jnp.mean(jnp.square(centred)) + self.eps)
        y = (centred / size).astype(x.dtype) * effective(self.gain)
        return y if self.bias is None else y + effective(self.bias)


class RMSNorm(eqx.Module):
    r"""$y = \gamma\, x / \sqrt{\overline{x^2} + \epsilon}$."""

    gain: Weight[Float[Array, " size"]] | None
    eps: float = eqx.field(static=True)

    def __init__(self, size: int, *, use_gain: bool = True, eps: float = 1e-6, dtype: Any = None):
        """**Arguments:**

        - `size`: how many features there are.
        - `use_gain`: whether there is a gain; without one nothing is trained.
        - `eps`: added to the mean square.
        - `dtype`: of the gain; JAX's default float if not given.
        """
        check_positive(size=size)
        self.gain = constant(size, 1.0, dtype) if use_gain else None
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
        size = jnp.sqrt(jnp.mean(jnp.square(wide(x))) + self.eps)
        y = (wide(x) / size).astype(x.dtype)
        return y if self.gain is None else y * effective(self.gain)


class HeadNorm(eqx.Module):
    r"""Of each head by itself: $y_h = \gamma_h\, x_h / \sqrt{\overline{x_h^2} + \epsilon}$.

    It normalises the queries and keys of attention, so that their products are at most $d$. Every
    head has a gain of its own, a `vector` whether or not the number of heads grows. One that is
    shared by a growing number of heads has a gradient that sums over them, for which no role has
    the exponents.

    ??? cite "Source"

        Henry et al. (2020), [arXiv:2010.04245](https://arxiv.org/abs/2010.04245), section 2.3, who
        take the norm and one learned number; root mean squares are what later models take.
    """

    gain: Weight[Float[Array, "heads d"]] | None
    eps: float = eqx.field(static=True)

    def __init__(
        self,
        heads: int,
        head_dimension: int,
        *,
        use_gain: bool = False,
        eps: float = 1e-6,
        dtype: Any = None,
    ):
        """**Arguments:**

        - `heads`: how many there are; their number may grow with the width.
        - `head_dimension`: the size of one; it must not grow.
        - `use_gain`: whether there are gains; without them nothing is trained.
        - `eps`: added to the mean square.
        - `dtype`: of the gains; JAX's default float if not given.
        """
        check_positive(heads=heads, head_dimension=head_dimension)
        shape = (heads, head_dimension)
        self.gain = constant(shape, 1.0, dtype, role=Role.vector) if use_gain else None
        self.eps = eps

    def __check_init__(self):
        _check_heads(self.gain)

    def __call__(
        self, x: Float[Array, "heads d"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "heads d"]:
        """**Arguments:**

        - `x`: the heads' features at one position.
        - `key`: ignored; with it the layer fits into `equinox.nn.Sequential`.
        """
        size = jnp.sqrt(jnp.mean(jnp.square(wide(x)), axis=-1, keepdims=True) + self.eps)
        y = (wide(x) / size).astype(x.dtype)
        return y if self.gain is None else y * effective(self.gain)


def _check_heads(gain: Weight[Float[Array, "heads d"]] | None) -> None:
    """Runtime type checkers look at arguments, not at fields."""


def _check(
    gain: Weight[Float[Array, " size"]] | None, bias: Weight[Float[Array, " size"]] | None
) -> None:
    """Runtime type checkers look at arguments, not at fields."""
