from typing import Any, Literal

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ...ops import scaled
from ...ops.scaled import Constraint, Mapped, Number
from ...theory import Role
from ._linear import Linear

Activation = Literal["gelu", "silu"]
ACTIVATIONS = {"gelu": scaled.gelu, "silu": scaled.silu}


class MLP(eqx.Module):
    r"""Two linear layers with an activation between them."""

    up: Linear
    down: Linear
    activation: Activation = eqx.field(static=True)
    mult: Number = eqx.field(static=True)

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int,
        *,
        activation: Activation = "gelu",
        mult: Number = 1.0,
        use_bias: bool = False,
        dtype: Any = None,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `in_features`, `hidden_features`, `out_features`: the sizes of input, inner layer and
            output.
        - `activation`: `"gelu"` or `"silu"`.
        - `mult`: of the activation's argument.
        - `use_bias`, `dtype`, `key`: as of [`scalex_eqx.nn.MLP`][].
        """
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation is {activation!r}; expected 'gelu' or 'silu'")
        up, down = jax.random.split(key)
        given = {
            "use_bias": use_bias,
            "constraint": mirrored(in_features, out_features),
            "dtype": dtype,
        }
        self.up = Linear(in_features, hidden_features, key=up, **given)
        self.down = Linear(hidden_features, out_features, key=down, **given)
        self.activation = activation
        self.mult = mult

    def __call__(
        self, x: Float[Array, "*batch in"], *, mapped: Mapped
    ) -> Float[Array, "*batch out"]:
        """**Arguments:** those of [`scalex_eqx.nn.unit.Linear`][]."""

        # Only the activation's input is kept for the backward pass.
        @jax.checkpoint
        def activated(x: Array) -> Array:
            return ACTIVATIONS[self.activation](x, self.mult)

        return self.down(activated(self.up(x, mapped=mapped)), mapped=mapped)


class GatedMLP(eqx.Module):
    r"""$y = W_\text{down} (\operatorname{silu}(W_g x) \odot W_\text{up} x)$, scaled."""

    gate: Linear
    up: Linear
    down: Linear
    mult: Number = eqx.field(static=True)

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int,
        *,
        mult: Number = 1.0,
        use_bias: bool = False,
        role: Role | None = None,
        dtype: Any = None,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `in_features`, `hidden_features`, `out_features`: the sizes of input, inner layer and
            output.
        - `mult`: of the gate's argument.
        - `use_bias`, `role`, `dtype`, `key`: as of [`scalex_eqx.nn.GatedMLP`][].
        """
        gate, up, down = jax.random.split(key, 3)
        given = {
            "use_bias": use_bias,
            "constraint": mirrored(in_features, out_features),
            "dtype": dtype,
        }
        self.gate, self.up = (
            Linear(in_features, hidden_features, role=role, key=key, **given) for key in (gate, up)
        )
        self.down = Linear(hidden_features, out_features, key=down, **given)
        self.mult = mult

    def __call__(
        self, x: Float[Array, "*batch in"], *, mapped: Mapped
    ) -> Float[Array, "*batch out"]:
        """**Arguments:** those of [`scalex_eqx.nn.unit.Linear`][]."""

        # Only what the gate multiplies is kept for the backward pass.
        @jax.checkpoint
        def gated(x: Array, gate: Array) -> Array:
            return scaled.gated_silu(x, gate, self.mult)

        inner = gated(self.up(x, mapped=mapped), self.gate(x, mapped=mapped))
        return self.down(inner, mapped=mapped)


def mirrored(in_features: int, out_features: int) -> Constraint | None:
    """No constraint where what the way in does to the gradient the way out takes back.

    With as many outputs as inputs the factors of both passes have equal products over the two
    layers, whatever the inner size.
    """
    return None if in_features == out_features else "to_output_scale"
