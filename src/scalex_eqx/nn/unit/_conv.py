import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..._weight import Weight
from ...ops import scaled
from ...ops.scaled import Constraint, Mapped, Number
from .._init import check_positive
from ._linear import plus_bias
from ._mlp import ACTIVATIONS, Activation
from ._norm import RMSNorm
from ._weights import fan, stored, unit_constant, unit_normal


class Conv(eqx.Module):
    r"""A convolution along as many axes as its kernel has; $W \sim \mathcal N(0, 1)$, $b = 0$.

    It is [`scalex_eqx.ops.scaled.conv`][] with the weight's own multiplier.
    """

    weight: Weight[Float[Array, "..."]]
    bias: Weight[Float[Array, " out"]] | None
    stride: int = eqx.field(static=True)
    padding: str = eqx.field(static=True)
    groups: int = eqx.field(static=True)
    constraint: Constraint | None = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Sequence[int],
        *,
        stride: int = 1,
        padding: str = "SAME",
        groups: int = 1,
        use_bias: bool = False,
        constraint: Constraint | None = "to_output_scale",
        dtype: Any = None,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `in_channels`, `out_channels`: of all groups.
        - `kernel`: its size along each axis.
        - `stride`: along every axis.
        - `padding`: `"SAME"` or `"VALID"`.
        - `groups`: of channels.
        - `use_bias`, `constraint`, `dtype`, `key`: as of [`scalex_eqx.nn.unit.Linear`][].
        """
        check_positive(in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups is {groups}, of which {in_channels} and {out_channels} channels are not "
                "multiples"
            )
        of_group, taps = in_channels // groups, math.prod(kernel)
        axes = tuple(range(-1 - len(kernel), 0))
        self.weight = unit_normal(
            (out_channels, of_group, *kernel),
            fan_in=axes,
            fan_out=(axes[0] - 1,),
            sizes=fan(of_group * taps),
            dtype=dtype,
            key=key,
        )
        sizes = fan(of_group * taps)
        self.bias = unit_constant(out_channels, 0.0, sizes=sizes, dtype=dtype) if use_bias else None
        self.stride = stride
        self.padding = padding
        self.groups = groups
        self.constraint = constraint

    def __call__(
        self, x: Float[Array, "batch in_channels *space"], *, mapped: Mapped
    ) -> Float[Array, "batch out_channels *space_out"]:
        """**Arguments:**

        - `x`: examples along the first axis.
        - `mapped`: how many examples are mapped over outside.
        """
        value, multiplier = stored(self.weight)
        y = scaled.conv(
            x,
            value,
            mapped=mapped,
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
            constraint=self.constraint,
            output_scale=multiplier,
        )
        return plus_bias(y, self.bias, mapped, axis=1)


class ConvBlock(eqx.Module):
    r"""A pre-norm residual block: a convolution, an activation, and a way back of single taps.

    $$\left(\tau\, W_2 * \phi(W_1 * \operatorname{norm} x) + x\right) / \sqrt{1 + \tau^2}$$

    The norm is over the channels.
    """

    norm: RMSNorm
    first: Conv
    second: Conv
    activation: Activation = eqx.field(static=True)
    mult: Number = eqx.field(static=True)
    tau: Number = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        kernel: Sequence[int],
        *,
        activation: Activation = "gelu",
        mult: Number = 1.0,
        tau: Number = 1.0,
        dtype: Any = None,
        key: PRNGKeyArray,
    ):
        r"""**Arguments:**

        - `channels`: of input and output.
        - `kernel`: of the first convolution.
        - `activation`, `mult`: as of [`scalex_eqx.nn.unit.MLP`][].
        - `tau`: $\tau$, the branch's share.
        - `dtype`, `key`: as of [`scalex_eqx.nn.unit.Linear`][].
        """
        first, second = jax.random.split(key)
        self.norm = RMSNorm(channels)
        self.first = Conv(channels, channels, kernel, dtype=dtype, key=first)
        self.second = Conv(channels, channels, [1] * len(kernel), dtype=dtype, key=second)
        self.activation = activation
        self.mult = mult
        self.tau = tau

    def __call__(
        self, x: Float[Array, "batch channels *space"], *, mapped: Mapped
    ) -> Float[Array, "batch channels *space"]:
        """**Arguments:** those of [`scalex_eqx.nn.unit.Conv`][]."""
        branch, skip = scaled.residual_split(x, self.tau)
        normed = self.norm(jnp.moveaxis(branch, 1, -1), mapped=mapped)
        inner = self.first(jnp.moveaxis(normed, -1, 1), mapped=mapped)
        activated = ACTIVATIONS[self.activation](inner, self.mult)
        return scaled.residual_add(self.second(activated, mapped=mapped), skip, self.tau)
