"""Weights of size one, which their layers scale."""

import dataclasses
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..._pages import Section, see
from ..._spec import WeightSpec
from ..._weight import Masked, Weight, kept_entries, map_weights
from ...theory import Role
from ...theory._power import Size
from .._init import default_dtype

Sizes = tuple[tuple[Size, Fraction], ...]


def unit_normal(
    shape: tuple[int, ...],
    *,
    fan_in: tuple[int, ...] = (-1,),
    fan_out: tuple[int, ...] = (-2,),
    role: Role | None = None,
    sizes: Sizes = (),
    dtype: Any = None,
    key: PRNGKeyArray,
) -> Weight[Float[Array, "..."]]:
    """A weight whose entries are drawn from N(0, 1)."""
    value = jax.random.normal(key, shape, default_dtype(dtype))
    spec = WeightSpec(fan_in, fan_out, std=1.0, role=role, sizes=sizes, scaled=True)
    return Weight(value, spec)


def unit_constant(
    size: int, value: float, *, role: Role | None = None, sizes: Sizes = (), dtype: Any = None
) -> Weight[Float[Array, " size"]]:
    """A gain or a bias."""
    array = jnp.full(size, value, default_dtype(dtype))
    return Weight(array, WeightSpec((), (-1,), role=role, sizes=sizes, scaled=True))


def fan(size: int) -> Sizes:
    """The declaration of a layer's fan-in, which its weight's role doesn't tell."""
    return (("fan_in", Fraction(size)),)


def in_stack(layers: PyTree, depth: int) -> PyTree:
    """The layers, with every weight declared to stand in a stack of `depth`."""

    def declared(weight: Weight) -> Weight:
        sizes = (*weight.spec.sizes, ("depth", Fraction(depth)))
        return Weight(weight.value, dataclasses.replace(weight.spec, sizes=sizes))

    return map_weights(declared, layers)


def stored(weight: Weight) -> tuple[Array, float]:
    """What a weight holds, of size one, and what the law multiplies it by.

    **Raises:** `ValueError` if the weight has no law yet.
    """
    if not isinstance(weight, Weight) or not weight.spec.is_complete:
        raise ValueError(
            "a layer of scalex_eqx.nn.unit has a weight without its law, by which it scales; build "
            "the model with scalex_eqx.parameterize(make, width=..., "
            f"parameterization=scalex_eqx.u_mup){see(Section.unit)}"
        )
    value: Any = weight.value
    if type(weight) is Masked:
        value = kept_entries(value, weight.mask)
    value = value if weight.spec.is_trained else jax.lax.stop_gradient(value)
    return value, weight.spec.multiplier
