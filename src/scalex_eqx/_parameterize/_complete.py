"""Value and spec of a weight once its role is known."""

import dataclasses
import functools
import math
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from .._spec import WeightSpec
from .._weight import Weight, from_effective, is_weight
from ..theory import Role
from ._assign import Triple
from ._spread import resized, respread, size, spread


def complete(triple: Triple, spec: WeightSpec, width_ratio: Fraction, *, keep: bool) -> Weight:
    """The weight with its law.

    **Arguments:**

    - `triple`: what `make` returned for it.
    - `spec`: its law.
    - `width_ratio`: the model's, which the weight may not follow and still have drawn by.
    - `keep`: whether the effective weight is to be what the array is now.
    """
    if spec.role is Role.buffer:
        return Weight(triple.wanted.array, spec)
    if keep:
        # What has been trained is no draw any more.
        return from_effective(triple.wanted.array, dataclasses.replace(spec, std=None))
    if spec.parameterization is not None and spec.parameterization.unit is not None:
        return _with_unit_spread(triple, spec)
    if is_weight(triple.wanted.leaf):
        return _with_declared_spread(triple, spec)
    return Weight(_with_measured_spread(triple, spec, width_ratio), spec)


def _with_unit_spread(triple: Triple, spec: WeightSpec) -> Weight:
    """The weight with a spread of one; an input, a bias or a gain as it was drawn."""
    value, std = triple.wanted.array, spec.std
    if spec.role not in (Role.hidden, Role.readout) or not value.size or std == 0:
        return Weight(value, spec)
    if is_weight(triple.wanted.leaf) and std is None:
        raise ValueError(
            f"a {spec.role} weight of {spec.parameterization and spec.parameterization.name} "
            "starts with a spread of one, but its spec has no std: declare the std that it was "
            "drawn with"
        )
    if std is None:
        return Weight(_like(jnp.asarray(value), 1.0, 1.0, 1.0, is_matrix=True), spec)
    unit = dataclasses.replace(spec, std=1.0)
    return Weight(value if std == 1.0 else value / std, unit)


def _with_declared_spread(triple: Triple, spec: WeightSpec) -> Weight:
    value, base_std = triple.wanted.array, triple.base.leaf.spec.std
    exponent = spec.spread_exponent
    if base_std is None or spec.std is None:
        if exponent:
            name = spec.parameterization and spec.parameterization.name
            raise ValueError(
                f"a {spec.role} weight of {name} starts with a spread of its own "
                "(b != 0), but its spec has no std: declare the std that it was drawn with"
            )
        return Weight(value, spec)
    factor = base_std * spec.scale(exponent) / spec.std if spec.std else 1.0
    spec = dataclasses.replace(spec, std=base_std)
    return Weight(value if factor == 1.0 else factor * value, spec)


def _with_measured_spread(triple: Triple, spec: WeightSpec, width_ratio: Fraction) -> Array:
    is_matrix = spec.role is not None and spec.role.is_matrix
    # What stands in a deeper stack may have been drawn with a spread of that depth.
    stays = width_ratio == 1 and (triple.depth == 1 or not is_matrix)
    if stays or not triple.wanted.array.size:
        return triple.wanted.array
    value, base = jnp.asarray(triple.wanted.array), triple.base.array
    if isinstance(base, jax.ShapeDtypeStruct):
        # Only shapes are known of the base model: the usual spread is taken for granted.
        usual = _usual_spread(spec, triple)
        factor = spec.scale(spec.spread_exponent) / usual
        return value if factor == 1.0 else resized(value, factor)
    if base.size == 1 < math.prod(triple.shapes[2]):
        raise ValueError(
            f"shape {base.shape} at the base width: the spread of a single entry cannot be "
            "measured; take a larger base width, or wrap the array as Weight(array, "
            "WeightSpec(fan_in=..., fan_out=..., std=...))"
        )
    ratio = float(width_ratio)
    base, scale = jnp.asarray(base), spec.scale(spec.spread_exponent)
    if _are_together(base, value):
        return _like_base(value, base, scale, ratio, is_matrix)
    return _like(value, _anywhere(_measured(base, is_matrix)), scale, ratio, is_matrix)


# Compiled once for each shape: one operation after another takes many times as long.
@functools.partial(jax.jit, static_argnums=1, inline=True)
def _measured(x: Array, is_matrix: bool) -> Float[Array, ""]:
    return (size if is_matrix else spread)(x)


@functools.partial(jax.jit, static_argnums=(2, 3, 4), inline=True)
def _like_base(value: Array, base: Array, scale: float, ratio: float, is_matrix: bool) -> Array:
    return _like(value, _measured(base, is_matrix), scale, ratio, is_matrix)


@functools.partial(jax.jit, static_argnums=(2, 3, 4), inline=True)
def _like(value: Array, wanted: Any, scale: float, ratio: float, is_matrix: bool) -> Array:
    r"""`value` with the spread $\sigma r^{-b}$, $\sigma$ `wanted`, $r^{-b}$ `scale`."""
    drawn = _measured(value, is_matrix)
    # Where nothing varies nothing is changed, whatever the factor.
    factor = wanted / jnp.where(drawn > 0, drawn, 1)
    if is_matrix:
        return resized(value, scale * factor)
    # Of biases and gains the law asks for one spread at all widths. Either they have it as they
    # are drawn, and then chance and the forms of tables are not to be corrected, or they fall with
    # the square root of the width, as Equinox's biases do. What is nearer is taken.
    falls = jnp.abs(jnp.log(jnp.where(factor > 0, factor, 1))) > abs(math.log(ratio)) / 4
    return respread(value, jnp.where(falls, factor, 1))


def _are_together(x: Array, y: Array) -> bool:
    """Whether two arrays, or what is traced of them, are placed alike."""
    if isinstance(x, Tracer) or isinstance(y, Tracer):
        return isinstance(x, Tracer)
    return x.sharding == y.sharding


def _anywhere(number: Array) -> Any:
    """A number that may meet arrays of other devices, if its value is known."""
    return number if isinstance(number, Tracer) else jax.device_get(number)


def _usual_spread(spec: WeightSpec, triple: Triple) -> float:
    r"""$1 / \sqrt{\text{fan-in}}$, relative to the base model's."""
    base, _, wanted = triple.shapes
    rate = math.prod(
        (Fraction(wanted[axis], base[axis]) for axis in spec.fan_in), start=Fraction(1)
    )
    return float(rate) ** -0.5
