"""Updates relative to the size of the weight."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx

WEIGHTS = np.random.default_rng(0).normal(size=(5, 7))


def scaled(tx: Any, params: sx.Weight) -> np.ndarray:
    ones = jax.tree.map(jnp.ones_like, params)
    update, _ = tx.update(ones, tx.init(params), params)
    assert update.value.dtype == params.value.dtype
    return np.asarray(update.value, np.float64)


def test_the_update_is_multiplied_by_the_size(weight):
    found = scaled(sx.optim.scale_by_parameter_rms(), weight(WEIGHTS))
    np.testing.assert_allclose(found, np.sqrt(np.mean(WEIGHTS**2)), rtol=1e-6)


def test_it_is_that_of_optax_with_a_constant_floor(weight):
    for size in (1.0, 1e-5):
        params = weight(WEIGHTS * size)
        found = scaled(sx.optim.scale_by_parameter_rms(floor_scaling="constant"), params)
        expected = scaled(optax.scale_by_param_block_rms(1e-3), params)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(("role", "b"), [("hidden", 0.5), ("vector", 0.0), ("constant", 0.0)])
def test_the_floor_scales_as_the_initial_weights(weight, role: str, b: float):
    params = weight(np.zeros((2, 2)) if role == "hidden" else np.zeros(2), role)
    floor = scaled(sx.optim.scale_by_parameter_rms(0.25), params)
    np.testing.assert_allclose(floor, 0.25 * 4**-b, rtol=1e-6)
    constant = scaled(sx.optim.scale_by_parameter_rms(0.25, floor_scaling="constant"), params)
    np.testing.assert_allclose(constant, 0.25, rtol=1e-6)


def test_the_floor_may_be_traced(weight):
    params = weight(np.zeros((2, 2)))

    @jax.jit
    def scale(floor):
        tx: Any = sx.optim.scale_by_parameter_rms(floor)
        return tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)[0].value

    found = scale(jnp.asarray(0.25))
    np.testing.assert_allclose(found, 0.125, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_sizes_are_computed_wide(weight, dtype: str, x64):
    """In float16 the mean square of these weights would be zero."""
    params = weight(np.full((64, 64), 1e-4), dtype=dtype)
    found = scaled(sx.optim.scale_by_parameter_rms(1e-6), params)
    assert float(jnp.square(jnp.asarray(1e-4, "float16"))) < 0.9e-8 or dtype != "float16"
    np.testing.assert_allclose(found, 1e-4, rtol=1e-2)


def test_each_stacked_weight_has_a_size_of_its_own(weight):
    layers = np.stack([WEIGHTS, 10 * WEIGHTS])
    found = scaled(sx.optim.scale_by_parameter_rms(), weight(layers))
    sizes = np.sqrt(np.mean(layers**2, axis=(1, 2), keepdims=True))
    np.testing.assert_allclose(found, np.broadcast_to(sizes, layers.shape), rtol=1e-6)


def test_it_needs_the_weights(weight):
    tx: Any = sx.optim.scale_by_parameter_rms()
    params = weight(WEIGHTS)
    with pytest.raises(ValueError, match=r"tx.update\(grads, state, params\)"):
        tx.update(params, tx.init(params))


def test_a_wrong_scaling_is_refused():
    with pytest.raises((ValueError, TypeError), match=r"(?s)'?initial'?.*'?constant'?"):
        sx.optim.scale_by_parameter_rms(floor_scaling="gradient")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_gradient_that_is_not_finite_is_not_hidden(weight, bad: float):
    params = weight(WEIGHTS)
    gradient = weight(np.where(WEIGHTS > 1, bad, 1.0))
    tx: Any = sx.optim.adam_parameter_scaling(0.1)
    update, _ = tx.update(gradient, tx.init(params), params)
    np.testing.assert_array_equal(np.isnan(update.value), WEIGHTS > 1)
