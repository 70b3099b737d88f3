from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import pytest

import scalex_eqx as sx

AXES = {"vector": ((), (-1,)), "constant": ((), (-1,))}


@pytest.fixture
def weight():
    """Makes a weight with its law completed: hidden, of muP, at four times the base width."""

    def weight(
        value: Any,
        role: str = "hidden",
        *,
        parameterization: sx.Parameterization = sx.mup,
        ratio: int = 4,
        dtype: str | None = None,
    ) -> sx.Weight:
        fan_in, fan_out = AXES.get(role, ((-1,), (-2,)))
        spec = sx.WeightSpec(
            fan_in,
            fan_out,
            std=1.0,
            role=sx.Role(role),
            parameterization=parameterization,
            width_ratio=Fraction(ratio),
        )
        return sx.Weight(jnp.asarray(value, dtype or jnp.result_type(float)), spec)

    return weight
