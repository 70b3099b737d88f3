"""Adam with moments of a byte each, against Adam in float64."""

from typing import Any
from unittest import mock

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx.ops._byte_pairs import from_byte_pairs
from scalex_eqx.optim import _adam_bytes

SHAPE, B1, B2 = (48, 96), 0.9, 0.999
BYTES: Any = {"moment_dtype": "int8"}


def gradients(steps: int, seed: int = 0) -> np.ndarray:
    """Normal ones around means of their own, of sizes that differ by eight octaves in each row."""
    rng = np.random.default_rng(seed)
    size = 2.0 ** rng.uniform(-8, 0, SHAPE)
    return size * (0.3 * rng.normal(size=SHAPE) + rng.normal(size=(steps, *SHAPE)))


def in_double(gradients: np.ndarray) -> np.ndarray:
    """Adam's last update by its formula, without an epsilon."""
    m, v = np.zeros(SHAPE), np.zeros(SHAPE)
    for g in gradients:
        m, v = B1 * m + (1 - B1) * g, B2 * v + (1 - B2) * g**2
    mass = 1 - np.asarray([B1, B2]) ** len(gradients)
    return (m / mass[0]) / np.sqrt(v / mass[1])


def run(tx: Any, gradients: np.ndarray, params: Any) -> tuple[np.ndarray, Any]:
    """The updates, and the state."""

    def step(state, g):
        updates, state = tx.update(sx.Weight(g, params.spec), state, params)
        return state, updates.value

    scan = jax.jit(lambda gs: jax.lax.scan(step, tx.init(params), gs))
    state, updates = scan(jnp.asarray(gradients, jnp.float32))
    return np.asarray(updates, np.float64), state


@pytest.mark.parametrize("steps", [1, 10, 300])
def test_its_updates_are_adams(weight, steps: int):
    """A mean is off by up to 1/16 of itself, a root by 1/32 once, and by 10 % after many steps."""
    tx = sx.scale_by_adam(B1, B2, **BYTES)
    found = run(tx, gradients(steps), weight(np.ones(SHAPE)))[0][-1]
    expected = in_double(gradients(steps))
    error = found - expected
    assert np.sqrt(np.mean(error**2)) < 0.15 * np.sqrt(np.mean(expected**2))
    # Without a preferred direction, by five deviations of a mean.
    assert abs(np.mean(error * np.sign(expected))) < 0.02
    # Of 4,608 entries none is off by more than four deviations.
    assert np.max(np.abs(found)) < 1.5 * np.max(np.abs(expected))


def roots(state: Any) -> np.ndarray:
    square = np.asarray(from_byte_pairs(state.code.value)[1], np.float64)
    return np.asarray(state.scale.value) * np.sqrt(square)


def after_a_drop(weight) -> tuple[np.ndarray, np.ndarray]:
    """Roots of the second moments when gradients have been 2^-8 as large, and what they should be.

    For 1,500 steps of a memory of 100. One entry of each row has a larger one that stays, and with
    it the scale: as that falls, it carries all roots with it.
    """
    rng = np.random.default_rng(1)
    g = rng.normal(size=(1600, *SHAPE)).astype(np.float32)
    g[100:] *= 2.0**-8
    g[:, :, 0] = 8
    _, state = run(sx.scale_by_adam(B1, 0.99, **BYTES), g, weight(np.ones(SHAPE)))
    v = np.zeros(SHAPE, np.float32)
    for x in g:
        v += np.float32(0.01) * (np.square(x) - v)
    return roots(state)[:, 1:], np.sqrt(v)[:, 1:]


def test_the_second_moment_follows_a_drop(weight):
    found, expected = after_a_drop(weight)
    assert np.mean(found**2 / expected**2) == pytest.approx(1, abs=0.05)
    assert np.std(found / expected) < 0.25


def test_rounded_to_nearest_it_stands_still(weight):
    """A step of a hundredth is less than half of one in sixteen."""
    halves = np.uint32((1 << 31) | (1 << 19))

    with mock.patch.object(_adam_bytes, "hashed", lambda shape, _: jnp.full(shape, halves)):
        found, expected = after_a_drop(weight)
    assert np.mean(found / expected) > 100


@pytest.mark.parametrize("power", [-60, 60])
def test_a_power_of_two_changes_no_bit(weight, power: int):
    """Where a square of the gradient itself has left the range; epsilon is then the least."""
    params, tx = weight(np.ones(SHAPE)), sx.scale_by_adam(B1, 0.95, 0.0, **BYTES)
    g = gradients(12).astype(np.float32)
    one, _ = run(tx, g, params)
    other, _ = run(tx, g * np.float32(2.0**power), params)
    if power > 0:
        np.testing.assert_array_equal(one, other)
    else:
        # The least epsilon, 5e-19, is seen beside gradients of 4e-21 to 1e-18.
        assert np.all(np.abs(other) <= np.abs(one))


def test_small_weights_have_moments_in_float32(weight):
    params = weight(np.ones((20, 40)))
    g = np.random.default_rng(2).normal(size=(8, 20, 40))
    found, state = run(sx.scale_by_adam(B1, B2, **BYTES), g, params)
    expected, _ = run(sx.scale_by_adam(B1, B2), g, params)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert state.code.value is None and state.mean.value.dtype == np.float32


def test_a_gradient_that_is_not_finite_is_not_hidden(weight):
    g = np.ones((3, *SHAPE))
    where = np.zeros(SHAPE, bool)
    for row, bad in enumerate((np.inf, -np.inf, np.nan)):
        g[1, row, 7] = bad
        where[row, 7] = True
    first, *others = run(sx.scale_by_adam(**BYTES), g, weight(np.ones(SHAPE)))[0]
    assert np.isfinite(first).all()
    for update in others:
        np.testing.assert_array_equal(np.isnan(update), where)


def test_rows_without_a_gradient_stay(weight):
    g = np.ones((21, *SHAPE))
    g[:-1, ::2] = 0
    found, _ = run(sx.scale_by_adam(**BYTES), g, weight(np.ones(SHAPE)))
    np.testing.assert_array_equal(found[-2, ::2], 0)
    assert np.mean(found[-2, 1::2]) == pytest.approx(1, abs=0.02)
    # And move when one comes.
    assert np.all(found[-1] > 0.25)


def model() -> Any:
    def make(width: int) -> Any:
        return sx.nn.MLP(64, width, 64, key=jax.random.key(0))

    return sx.parameterize(make, width=64, base_width=32, parameterization=sx.mup)


def test_a_models_state_is_of_two_bytes_a_weight():
    params = eqx.filter(model(), eqx.is_array)
    state = jax.eval_shape(sx.adam(1e-2, **BYTES).init, params)
    count = sum(x.size for x in jax.tree.leaves(params))
    assert sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)) <= 2.3 * count


def test_stacked_weights_have_rows_of_their_own(weight):
    params = weight(np.ones((3, *SHAPE)))
    state = jax.eval_shape(sx.scale_by_adam(**BYTES).init, params)
    assert state.code.value.shape == (3, *SHAPE)
    assert state.scale.value.shape == (3, SHAPE[0], 1)


def test_training_goes_on_in_an_equivalent_parameterization():
    tx, one = sx.adam(1e-2, **BYTES), model()
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 64)), jnp.float32)

    @jax.jit
    def step(model, state):
        def loss(model):
            return jnp.mean(jnp.square(jax.vmap(model)(x) - x))

        value, grads = eqx.filter_value_and_grad(loss)(model)
        updates, state = tx.update(grads, state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), state, value

    def begin(model):
        return tx.init(eqx.filter(model, eqx.is_array))

    state = begin(one)
    for _ in range(3):
        one, state, _ = step(one, state)
    other, converted = sx.convert(one, state, tx=tx, to=sx.mean_field)
    assert jtu.tree_structure(converted) == jtu.tree_structure(begin(other))
    for _ in range(3):
        one, state, loss = step(one, state)
        other, converted, again = step(other, converted)
        assert float(again) == pytest.approx(float(loss), rel=1e-3)


def test_a_dropped_step_changes_no_bit(weight):
    tx = sx.optim.skip_nonfinite(sx.adam(0.01, **BYTES))
    params = weight(np.ones(SHAPE))
    update = jax.jit(tx.update)
    _, state = update(weight(np.ones(SHAPE)), tx.init(params), params)
    bad = np.ones(SHAPE)
    bad[3, 3] = np.nan
    _, after = update(weight(bad), state, params)
    assert int(after.skipped) == 1
    for x, y in zip(*map(jax.tree.leaves, (state.inner_state, after.inner_state)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_complex_weights_are_refused(weight):
    with pytest.raises(ValueError, match=r"'int8'.*complex64 are complex; leave it out"):
        sx.adam(0.01, **BYTES).init(weight(np.ones(SHAPE), dtype="complex64"))
