"""Adam-atan2: the same update whatever the scale of the gradient."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx

from ._oracles import adam_atan2

STEPS, ENTRIES = 12, 2048
NORMALS = np.random.default_rng(0).normal(size=(STEPS, 1, ENTRIES)).astype(np.float32)
# The largest of these gradients is 4.2 and stays finite; the smallest, 3e-5, normal or nearly so.
BAND = range(-109, 126)


def test_which_scales_the_gradients_bear():
    assert 4 < np.max(np.abs(NORMALS)) < 2.0 ** (128 - max(BAND))


def updates_at(tx: Any, weight, gradients=NORMALS):
    """A compiled function of the gradients' scale: all scales go through one program."""

    @jax.jit
    def run(scale):
        def step(state, gradient):
            update, state = tx.update(weight(gradient * scale), state)
            return state, update.value

        return jax.lax.scan(step, tx.init(weight(gradients[0])), jnp.asarray(gradients))[1]

    return lambda exponent: np.asarray(run(jnp.float32(2.0**exponent)))


@pytest.mark.parametrize("b2", [0.95, 0.999])
def test_bitwise_equal_at_every_scale(weight, b2: float):
    at = updates_at(sx.optim.scale_by_adam_atan2(0.9, b2), weight)
    expected = at(0)
    different = [k for k in BAND if at(k).tobytes() != expected.tobytes()]
    assert different == []


def test_below_the_band_it_fades(weight):
    at = updates_at(sx.optim.scale_by_adam_atan2(), weight)
    expected = at(0)
    for exponent in range(-149, -109):
        found = at(exponent)
        assert np.isfinite(found).all()
        assert np.max(np.abs(found)) <= np.max(np.abs(expected))
        assert np.sqrt(np.mean(found**2)) <= np.sqrt(np.mean(expected**2)) * 1.0001
        if exponent < -128:
            assert np.all(found == 0)


def test_the_plain_form_fails(weight):
    """Its second moment has underflowed: every update is the largest possible, 2."""

    def plain_updates(scale):
        def step(carry, g):
            m, v, t = carry
            t, g = t + 1, g * scale
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * jnp.square(g)
            corrected = jnp.sqrt(v / (1 - 0.999**t))
            return (m, v, t), 4 / jnp.pi * jnp.arctan2(m / (1 - 0.9**t), corrected)

        zeros = jnp.zeros((1, ENTRIES))
        return jax.lax.scan(step, (zeros, zeros, jnp.zeros(())), jnp.asarray(NORMALS))[1]

    run = jax.jit(plain_updates)
    own = updates_at(sx.optim.scale_by_adam_atan2(), weight)(0)
    np.testing.assert_allclose(run(jnp.float32(1)), own, rtol=0, atol=2e-5)
    assert np.sqrt(np.mean(np.square(run(jnp.float32(2.0**-62))))) > 2 * np.sqrt(np.mean(own**2))


@pytest.mark.parametrize(("a", "b"), [(4 / np.pi, 1.0), (1.0, 1.0), (1.27, 0.5)])
@pytest.mark.parametrize("traced", [False, True])
def test_its_factors(weight, a: float, b: float, traced: bool, x64):
    gradients = NORMALS[:, :, :8].astype(np.float64)
    running = adam_atan2(1.0, 1.0, a, b)
    next(running)
    expected = [running.send((g, g)) for g in gradients]

    @jax.jit
    def run(a, b):
        return _updates(sx.optim.scale_by_adam_atan2(a=a, b=b), gradients, weight)

    if traced:
        found = run(jnp.asarray(a), jnp.asarray(b))
    else:
        found = _updates(sx.optim.scale_by_adam_atan2(a=a, b=b), gradients, weight)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def _updates(tx: Any, gradients, weight, dtype: str | None = None):
    state, found = tx.init(weight(gradients[0], dtype=dtype)), []
    for gradient in gradients:
        update, state = tx.update(weight(gradient, dtype=dtype), state)
        found.append(update.value)
    return jnp.stack(found)


@pytest.mark.parametrize("decay", [0.9, 0.999, 0.99999])
@pytest.mark.parametrize("traced", [False, True])
def test_a_constant_gradient_gives_an_update_of_one(weight, decay: float, traced: bool):
    """The moments need no correction: no rounding adds up, however long the memory."""
    b = jnp.asarray(decay) if traced else decay
    found = _updates(sx.optim.scale_by_adam_atan2(b, b), np.full((50, 1, 1), 0.3), weight)
    np.testing.assert_allclose(found, 1.0, rtol=4 * 2.0**-24)


@pytest.mark.parametrize("decay", [0.999, 0.99999])
def test_long_memories_against_double_precision(weight, decay: float):
    gradients = NORMALS[:, :, :64]
    found = _updates(sx.optim.scale_by_adam_atan2(0.9, decay), gradients, weight)
    m = v = 0.0
    for t, g in enumerate(gradients.astype(np.float64), start=1):
        m, v = 0.9 * m + 0.1 * g, decay * v + (1 - decay) * g**2
        exact = np.arctan2(m / (1 - 0.9**t), np.sqrt(v / -np.expm1(t * np.log(decay))))
        np.testing.assert_allclose(found[t - 1], 4 / np.pi * exact, rtol=0, atol=2e-6)


@pytest.mark.parametrize("decays", [(0.0, 0.0), (0.0, 0.95), (0.9, 0.0)])
def test_decay_rates_of_zero(weight, decays: tuple[float, float]):
    """After a gradient 1e10 times as large: without a memory nothing of it is left."""
    gradients = np.asarray([[[1e5]], [[2e-5]], [[-1e-5]]])
    found = _updates(sx.optim.scale_by_adam_atan2(*decays), gradients, weight).squeeze()
    if decays == (0.0, 0.0):
        np.testing.assert_allclose(found, [1, 1, -1], rtol=1e-6)
    assert np.isfinite(found).all() and np.max(np.abs(found)) <= 2.0


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_gradient_that_is_not_finite_is_never_hidden(weight, bad: float):
    gradients = np.asarray([[[1.0, 1.0]], [[1.0, bad]], [[1.0, 1.0]], [[1.0, 1.0]]])
    found = _updates(sx.optim.scale_by_adam_atan2(), gradients, weight)
    assert np.isnan(found[:, 0, 1]).tolist() == [False, True, True, True]
    assert np.isfinite(found[:, 0, 0]).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_is_computed_in_float32(weight, dtype: str):
    """The state and the arithmetic are float32; only the update is rounded to the dtype."""
    rounded = [jnp.asarray(g, dtype).astype(jnp.float32) for g in NORMALS[:, :, :256] * 1e-3]
    tx: Any = sx.optim.scale_by_adam_atan2()
    found = _updates(tx, rounded, weight, dtype)
    assert found.dtype == jnp.dtype(dtype)
    state = tx.init(weight(rounded[0], dtype=dtype))
    assert state.mean.value.dtype == state.root.value.dtype == jnp.float32
    wide = _updates(tx, rounded, weight)
    half_ulp = float(jnp.finfo(dtype).eps) / 2
    np.testing.assert_allclose(found.astype(jnp.float32), wide, rtol=1.01 * half_ulp, atol=1e-7)


def test_a_row_without_gradient_stays_where_it_is(weight):
    gradients = np.zeros((4, 2, 2))
    gradients[:, 0] = 1.0
    gradients[3, 1] = 1e-30
    found = _updates(sx.optim.scale_by_adam_atan2(), gradients, weight)
    assert np.all(found[:3, 1] == 0)
    assert np.all(found[3, 1] > 0)
