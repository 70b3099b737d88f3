import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.optim._moments import mass

STEPS = 20
ULP = 2.0**-24
# In float32 an average over 20 steps has at most 3 roundings a step: 30 ulp for the first moment,
# whose memory is 10 steps, and half of 60 for the root of the second. The updates are about one.
FLOAT32 = 64 * ULP

RNG = np.random.default_rng(0)
GRADIENTS = RNG.normal(size=(STEPS, 3, 4)) * np.exp(RNG.normal(size=(3, 4)))

# Gradient exponents g: embedding, hidden, readout, vector.
ROLES = ("embedding", "hidden", "readout", "vector")
GRADIENT = {
    "standard": (0.5, 0.5, 0.0, 0.5),
    "ntk": (0.5, 1.0, 0.5, 0.5),
    "mup": (0.5, 1.0, 0.5, 1.0),
    "mean_field": (1.0, 1.5, 1.0, 1.0),
}
BY_NAME = {p.name: p for p in (sx.standard, sx.ntk, sx.mup, sx.mean_field)}


def oracle(gradients: np.ndarray, b1: float, b2: float, eps: float) -> list[np.ndarray]:
    m, v, updates = 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        updates.append(m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps))
    return updates


def run(tx: Any, gradients, make) -> list:
    """The updates for one gradient after another; `make` wraps each in its weight."""
    state = tx.init(make(gradients[0]))
    step = jax.jit(tx.update)
    updates = []
    for gradient in gradients:
        update, state = step(make(gradient), state)
        updates.append(update.value)
    return updates


def first_update(tx: Any, gradient: sx.Weight) -> np.ndarray:
    update, _ = tx.update(gradient, tx.init(gradient))
    return np.asarray(update.value, np.float64)


@pytest.mark.parametrize("eps", [0.0, 1e-12, 0.1])
@pytest.mark.parametrize(("b1", "b2"), [(0.9, 0.999), (0.8, 0.9), (0.0, 0.95)])
def test_twenty_steps_in_float32(weight, b1: float, b2: float, eps: float):
    tx = sx.scale_by_adam(b1, b2, eps)
    found = run(tx, GRADIENTS, lambda g: weight(g, ratio=1))
    np.testing.assert_allclose(found, oracle(GRADIENTS, b1, b2, eps), rtol=0, atol=4 * FLOAT32)


def test_twenty_steps_in_float64(weight, x64):
    found = run(sx.scale_by_adam(eps=0.1), GRADIENTS, lambda g: weight(g, ratio=1))
    expected = oracle(GRADIENTS, 0.9, 0.999, 0.1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
    assert np.max(np.abs(np.subtract(expected, oracle(GRADIENTS, 0.9, 0.99, 0.1)))) > 1e-3


def test_at_the_base_width_it_is_that_of_optax(weight):
    found = run(sx.scale_by_adam(eps=1e-3), GRADIENTS, lambda g: weight(g, ratio=1))
    with jax.numpy_dtype_promotion("standard"):
        expected = run(optax.scale_by_adam(eps=1e-3), GRADIENTS, lambda g: weight(g, ratio=1))
    np.testing.assert_allclose(found, expected, rtol=0, atol=4 * FLOAT32)


# Epsilon


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("role", ROLES)
def test_epsilon_scales_as_the_gradient(weight, name: str, role: str):
    """At the first step the update is g / (|g| + eps r^-g): with g = eps far from its limits."""
    eps, exponent = 1e-3, GRADIENT[name][ROLES.index(role)]
    gradient = weight([eps] if role == "vector" else [[eps]], role, parameterization=BY_NAME[name])
    update = first_update(sx.scale_by_adam(eps=eps), gradient)
    assert update.item() == pytest.approx(1 / (1 + 4**-exponent), rel=1e-5)
    for wrong in (exponent - 0.5, exponent + 0.5):
        assert update.item() != pytest.approx(1 / (1 + 4**-wrong), rel=0.03)


def test_the_epsilon_of_a_constant_does_not_scale(weight):
    update = first_update(sx.scale_by_adam(eps=1e-3), weight([1e-3], "constant"))
    assert update.item() == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("role", ["embedding", "hidden"])
def test_a_constant_epsilon(weight, role: str):
    tx = sx.scale_by_adam(eps=1e-3, eps_scaling="constant")
    assert first_update(tx, weight([[1e-3]], role)).item() == pytest.approx(0.5, rel=1e-5)


def test_epsilon_may_be_traced(weight):
    @jax.jit
    def update(eps):
        gradient = weight([[1e-3, 0.0]])
        tx: Any = sx.scale_by_adam(eps=eps)
        return tx.update(gradient, tx.init(gradient))[0].value

    np.testing.assert_allclose(update(jnp.asarray(1e-3)), [[0.8, 0.0]], rtol=1e-5)
    np.testing.assert_allclose(update(jnp.asarray(0.0)), [[1.0, 0.0]], rtol=1e-5)


@pytest.mark.parametrize("eps", [0.0, 1e-12, 1e-45])
def test_a_row_without_gradient_stays_where_it_is(weight, eps: float):
    """A token that no batch has held yet, and then one does."""
    gradients = np.zeros((4, 3, 2))
    gradients[:, 0], gradients[2:, 1] = 1.0, -2.0
    updates = run(sx.scale_by_adam(eps=eps), gradients, lambda g: weight(g, "embedding"))
    assert np.all(np.isfinite(updates))
    assert np.all(np.asarray(updates)[:, 2] == 0)
    assert np.all(np.asarray(updates)[:2, 1] == 0)
    np.testing.assert_allclose(np.asarray(updates)[:, 0], 1, rtol=1e-5)


def test_the_rule_of_optax_gives_nan_there(weight):
    gradients = np.zeros((2, 1, 1))
    with jax.numpy_dtype_promotion("standard"):
        updates = run(optax.scale_by_adam(eps=0.0), gradients, weight)
    assert np.all(np.isnan(updates))


@pytest.mark.parametrize("eps", [0.0, 1e-12])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_gradient_that_is_not_finite_is_not_hidden(weight, eps: float, bad: float):
    updates = run(sx.scale_by_adam(eps=eps), np.asarray([[[1.0, bad]]] * 2), weight)
    assert np.isnan(updates).tolist() == [[[False, True]]] * 2


def test_an_unknown_scaling_of_epsilon_is_refused():
    """Where a runtime type checker is at work, it refuses first, with the same two values."""
    with pytest.raises((ValueError, TypeError), match=r"(?s)'?gradient'?.*'?constant'?"):
        sx.scale_by_adam(eps_scaling="width")  # pyright: ignore[reportArgumentType]


# Moments


@pytest.mark.parametrize(
    ("dtype", "moments"),
    [("bfloat16", "float32"), ("float16", "float32"), ("float32", "float32"), ("float64",) * 2],
)
def test_moments_are_wide_and_updates_as_the_gradient(weight, dtype: str, moments: str, x64):
    gradient = weight([[0.5, -2.0]], dtype=dtype)
    tx: Any = sx.scale_by_adam(eps=0.0)
    state = tx.init(gradient)
    update, after = jax.jit(tx.update)(gradient, state)
    assert {x.value.dtype for s in (state, after) for x in (s.mu, s.nu)} == {jnp.dtype(moments)}
    assert update.value.dtype == jnp.dtype(dtype)
    np.testing.assert_allclose(np.asarray(update.value, float), [[1, -1]], rtol=1e-6)
    assert after.count.dtype == jnp.int32


def test_a_narrow_second_moment_would_lose_small_changes(weight):
    """In bfloat16 0.999 is 1, so the moments must be kept wider than the weights."""
    gradients = np.asarray([[[1.0]]] + [[[0.0]]] * 50)
    tx: Any = sx.scale_by_adam(b1=0.0, b2=0.999)
    state = tx.init(weight(gradients[0], dtype="bfloat16"))
    for gradient in gradients:
        _, state = tx.update(weight(gradient, dtype="bfloat16"), state)
    assert state.nu.value.item() == pytest.approx(0.001 * 0.999**50, rel=1e-5)


@pytest.mark.parametrize("decay", [0.9, 0.999, 0.99999])
@pytest.mark.parametrize("count", [1, 2, 10, 1000])
@pytest.mark.parametrize("prepare", [float, np.float64])
def test_bias_correction_is_accurate(decay: float, count: int, prepare):
    exact = -math.expm1(count * math.log(decay))
    found = float(mass(prepare(decay), jnp.asarray(count)))
    assert found == pytest.approx(exact, rel=8 * ULP)


def test_the_textbook_bias_correction_is_not():
    naive = float(1 - jnp.float32(0.99999) ** jnp.float32(2))
    exact = -math.expm1(2 * math.log(0.99999))
    assert abs(naive / exact - 1) > 1000 * ULP


@pytest.mark.parametrize("traced", [False, True])
def test_a_constant_gradient_gives_an_update_of_one(weight, traced: bool):
    """Ten steps with averages of 100000: three roundings a step and as many at the end."""
    gradients = np.full((10, 1, 1), 0.3)
    b = jnp.asarray(0.99999) if traced else 0.99999
    updates = run(sx.scale_by_adam(b, b, 0.0), gradients, weight)
    np.testing.assert_allclose(updates, 1, rtol=FLOAT32)


def test_decay_rates_of_zero(weight):
    updates = run(sx.scale_by_adam(0.0, 0.0, 0.0), GRADIENTS, weight)
    np.testing.assert_allclose(updates, np.sign(GRADIENTS), rtol=1e-6)
