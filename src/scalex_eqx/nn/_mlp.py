from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ._init import named_axes
from ._linear import Linear


class MLP(eqx.Module):
    r"""Two linear layers with an activation between them: $y = W_2\, \phi(W_1 x)$."""

    up: Linear
    down: Linear
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int,
        *,
        activation: Callable[[Array], Array] = jax.nn.gelu,
        use_bias: bool = False,
        dtype: Any = None,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `in_features`, `hidden_features`, `out_features`: the sizes of input, inner layer and
            output.
        - `activation`: applied to each inner feature.
        - `use_bias`: whether the two layers have biases.
        - `dtype`: of the weights; JAX's default float if not given.
        - `key`: for the initial draw.
        """
        up, down = jax.random.split(key)
        self.up = named_axes(
            Linear(in_features, hidden_features, use_bias=use_bias, dtype=dtype, key=up),
            "inner",
            "width",
        )
        self.down = named_axes(
            Linear(hidden_features, out_features, use_bias=use_bias, dtype=dtype, key=down),
            "width",
            "inner",
        )
        self.activation = activation

    def __call__(
        self, x: Float[Array, " in"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " out"]:
        """**Arguments:**

        - `x`: one example's features.
        - `key`: ignored; with it the layer fits into `equinox.nn.Sequential`.
        """
        # Only the activation's input is kept for the backward pass.
        return self.down(jax.checkpoint(self.activation)(self.up(x)))
