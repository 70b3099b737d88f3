from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx

T = TypeVar("T")


@pytest.fixture
def draw() -> Callable[[Callable[[], T]], T]:
    """Makes a model whose values are drawn by NumPy, gains and biases too; nothing is compiled."""

    def draw(make: Callable[[], T]) -> T:
        rng = np.random.default_rng(0)

        def fill(weight: sx.Weight) -> sx.Weight:
            spread = 1.0 if weight.spec.std is None else weight.spec.std
            value = spread * rng.normal(size=weight.value.shape)
            return sx.Weight(jnp.asarray(value, weight.value.dtype), weight.spec)

        return sx.map_weights(fill, eqx.filter_eval_shape(make))

    return draw
