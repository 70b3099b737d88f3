from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ..theory import Role
from ._init import named_axes
from ._linear import Linear


class GatedMLP(eqx.Module):
    r"""An MLP with gated inner features: $y = W_\text{down} (\phi(W_g x) \odot W_\text{up} x)$.

    With `jax.nn.silu` for $\phi$ it is SwiGLU, with `jax.nn.gelu` GeGLU. The inner size may grow at
    a rate of its own, as one that is rounded does: each weight has the ratios of its own fans.

    ??? cite "Source"

        Shazeer (2020), [arXiv:2002.05202](https://arxiv.org/abs/2002.05202), equations 5 and 6.
    """

    gate: Linear
    up: Linear
    down: Linear
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int,
        *,
        activation: Callable[[Array], Array] = jax.nn.silu,
        use_bias: bool = False,
        role: Role | None = None,
        dtype: Any = None,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `in_features`, `hidden_features`, `out_features`: the sizes of input, inner layer and
            output. Llama's inner layer has 8/3 of the width, rounded up to a multiple.
        - `activation`: of the gate.
        - `use_bias`: whether the three layers have biases.
        - `role`: of gate and up, as in [`scalex_eqx.nn.Linear`][]: `Role.hidden` for an inner size
            that stays.
        - `dtype`: of the weights; JAX's default float if not given.
        - `key`: for the initial draw.
        """
        gate, up, down = jax.random.split(key, 3)
        self.gate, self.up = (
            named_axes(
                Linear(
                    in_features, hidden_features, use_bias=use_bias, role=role, dtype=dtype, key=key
                ),
                "inner",
                "width",
            )
            for key in (gate, up)
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

        - `x`: one example's features; use `jax.vmap` for more.
        - `key`: ignored; with it the layer fits into `equinox.nn.Sequential`.
        """
        # Only what the gate multiplies is kept for the backward pass.
        gated = jax.checkpoint(lambda gate, up: self.activation(gate) * up)
        return self.down(gated(self.gate(x), self.up(x)))
