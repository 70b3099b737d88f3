import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..._weight import Weight
from ...ops import scaled
from ...ops.scaled import Constraint, Mapped, Number
from ...theory import Role
from .._init import check_positive
from .._linear import check_fields
from ._weights import fan, stored, unit_constant, unit_normal


class Linear(eqx.Module):
    r"""$y = n_\text{in}^{-1/2}\, W x + b$, with $W \sim \mathcal N(0, 1)$ and $b = 0$.

    It is [`scalex_eqx.ops.scaled.linear`][] with the weight's own multiplier. The roles are those
    of [`scalex_eqx.nn.Linear`][].
    """

    weight: Weight[Float[Array, "out in"]]
    bias: Weight[Float[Array, " out"]] | None
    constraint: Constraint | None = eqx.field(static=True)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = False,
        role: Role | None = None,
        constraint: Constraint | None = "to_output_scale",
        dtype: Any = None,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `in_features`, `out_features`, `use_bias`, `role`, `dtype`, `key`: as of
            [`scalex_eqx.nn.Linear`][].
        - `constraint`: of the factors of output and input gradient; see
            [`scalex_eqx.ops.scaled.constrained`][].
        """
        check_positive(in_features=in_features, out_features=out_features)
        shape, sizes = (out_features, in_features), fan(in_features)
        self.weight = unit_normal(shape, role=role, sizes=sizes, dtype=dtype, key=key)
        of_bias = Role.vector if role == Role.hidden else None
        self.bias = _bias(in_features, out_features, of_bias, dtype) if use_bias else None
        self.constraint = constraint

    def __check_init__(self):
        check_fields(self.weight, self.bias)

    def __call__(
        self, x: Float[Array, "*batch in"], *, mapped: Mapped, gradient_scale: Number = 1.0
    ) -> Float[Array, "*batch out"]:
        """**Arguments:**

        - `x`: features, with the positions of a batch along the leading axes.
        - `mapped`: how many examples are mapped over outside, 1 if none are; see
            [`scalex_eqx.ops.scaled.mapped_size`][].
        - `gradient_scale`: multiplies the weight's gradient besides.
        """
        value, multiplier = stored(self.weight)
        y = scaled.linear(
            x,
            value,
            mapped=mapped,
            constraint=self.constraint,
            output_scale=multiplier,
            gradient_scale=gradient_scale,
        )
        return plus_bias(y, self.bias, mapped)


class Readout(eqx.Module):
    r"""The logits $y = n_\text{in}^{-1}\, W x + b$, with $W \sim \mathcal N(0, 1)$ and $b = 0$.

    It is [`scalex_eqx.ops.scaled.readout`][] with the weight's own multiplier.
    """

    weight: Weight[Float[Array, "out in"]]
    bias: Weight[Float[Array, " out"]] | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = False,
        dtype: Any = None,
        key: PRNGKeyArray,
    ):
        """**Arguments:** those of [`scalex_eqx.nn.Readout`][]."""
        check_positive(in_features=in_features, out_features=out_features)
        shape = (out_features, in_features)
        self.weight = unit_normal(shape, role=Role.readout, dtype=dtype, key=key)
        self.bias = _bias(in_features, out_features, None, dtype) if use_bias else None

    def __check_init__(self):
        check_fields(self.weight, self.bias)

    def __call__(
        self, x: Float[Array, "*batch in"], *, mapped: Mapped
    ) -> Float[Array, "*batch out"]:
        """**Arguments:** those of [`scalex_eqx.nn.unit.Linear`][]."""
        value, multiplier = stored(self.weight)
        y = scaled.readout(x, value, mapped=mapped, output_scale=multiplier)
        return plus_bias(y, self.bias, mapped)


def _bias(in_features: int, out_features: int, role: Role | None, dtype: Any) -> Weight:
    return unit_constant(out_features, 0.0, role=role, sizes=fan(in_features), dtype=dtype)


def plus_bias(y: Array, bias: Weight | None, mapped: Mapped, axis: int = -1) -> Array:
    """`y` with a bias along an axis, whose gradient is summed over all others."""
    if bias is None:
        return y
    value, multiplier = stored(bias)
    count = math.prod(y.shape) // value.shape[0] * scaled.mapped_size(mapped)
    own = scaled.scale(value, forward=multiplier, backward=count**-0.5)
    shape = [1] * y.ndim
    shape[axis] = -1
    return y + jnp.broadcast_to(own.reshape(shape), y.shape)
