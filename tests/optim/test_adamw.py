from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx

DECAY = 0.02
RATE = 0.01
RNG = np.random.default_rng(0)
GRADIENTS = RNG.normal(size=(8, 3, 3))
START = RNG.normal(size=(3, 3))
# muP under full alignment at r = 4.
WIDTH_FACTOR = {"embedding": 0.5, "hidden": 0.25, "readout": 0.5}


def oracle(width_factor: float, mode: str, schedule=lambda t: 1.0, rate=lambda t: RATE):
    m = v = 0.0
    w = START
    for t, g in enumerate(GRADIENTS):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        u = m / (1 - 0.9 ** (t + 1)) / np.sqrt(v / (1 - 0.999 ** (t + 1)))
        step = rate(t) * width_factor
        if mode == "coupled":
            w = w - step * (u + DECAY * w)
        else:
            w = w - step * u - schedule(t) * DECAY * w
    return w


def falling(step):
    return 1 - step.astype(float) / 8


def falling_rate(step):
    return RATE * falling(step)


def train(tx: Any, weight, role: str, value=START):
    params: Any = weight(value, role)
    state = tx.init(params)
    step = jax.jit(tx.update)
    for gradient in GRADIENTS:
        gradient = gradient[0] if params.value.ndim == 1 else gradient
        updates, state = step(weight(gradient, role), state, params)
        params = optax.apply_updates(params, updates)
    return np.asarray(params.value)


@pytest.mark.parametrize("role", ["embedding", "hidden", "readout"])
@pytest.mark.parametrize("mode", ["independent", "coupled"])
def test_every_matrix_decays(weight, role: str, mode: Any, x64):
    tx = sx.adamw(RATE, DECAY, decay_mode=mode, eps=0.0)
    expected = oracle(WIDTH_FACTOR[role], mode)
    np.testing.assert_allclose(train(tx, weight, role), expected, rtol=1e-12)
    other = {"independent": "coupled", "coupled": "independent"}[mode]
    assert np.max(np.abs(oracle(WIDTH_FACTOR[role], other) - expected)) > 1e-2


@pytest.mark.parametrize("role", ["vector", "constant"])
@pytest.mark.parametrize("mode", ["independent", "coupled"])
def test_biases_and_gains_do_not_decay(weight, role: str, mode: Any):
    with_decay = train(sx.adamw(RATE, DECAY, decay_mode=mode), weight, role, START[0])
    assert with_decay.tolist() == train(sx.adam(RATE), weight, role, START[0]).tolist()


@pytest.mark.parametrize("mode", ["independent", "coupled"])
def test_it_is_independent_of_the_width_or_falls_with_it(weight, mode: Any):
    """What is left of a weight without a gradient after one step."""

    def kept(ratio: int) -> float:
        params: Any = weight([[1.0]], ratio=ratio)
        tx: Any = sx.adamw(0.5, 0.5, decay_mode=mode)
        gradient = jax.tree.map(jnp.zeros_like, params)
        updates, _ = tx.update(gradient, tx.init(params), params)
        params = optax.apply_updates(params, updates)
        return params.value.item()

    expected = {"independent": (0.5, 0.5), "coupled": (0.75, 1 - 0.25 / 8)}[mode]
    assert (kept(1), kept(8)) == pytest.approx(expected, rel=1e-6)


def test_a_decay_schedule(weight, x64):
    tx = sx.adamw(RATE, DECAY, decay_mode="independent", weight_decay_schedule=falling, eps=0.0)
    expected = oracle(0.25, "independent", lambda t: 1 - t / 8)
    np.testing.assert_allclose(train(tx, weight, "hidden"), expected, rtol=1e-12)


def test_a_learning_rate_schedule_with_its_decay_schedule(weight, x64):
    tx = sx.adamw(
        falling_rate, DECAY, decay_mode="independent", weight_decay_schedule=falling, eps=0.0
    )
    expected = oracle(0.25, "independent", lambda t: 1 - t / 8, rate=lambda t: RATE * (1 - t / 8))
    np.testing.assert_allclose(train(tx, weight, "hidden"), expected, rtol=1e-12)


def test_a_learning_rate_schedule_under_coupled_decay(weight, x64):
    tx = sx.adamw(falling_rate, DECAY, decay_mode="coupled", eps=0.0)
    expected = oracle(0.25, "coupled", rate=lambda t: RATE * (1 - t / 8))
    np.testing.assert_allclose(train(tx, weight, "hidden"), expected, rtol=1e-12)


def test_a_schedule_without_a_decay_schedule_is_refused():
    schedule = optax.constant_schedule(RATE)
    with pytest.raises(ValueError, match=r"weight_decay_schedule must say .*constant_schedule\(1"):
        sx.adamw(schedule, DECAY, decay_mode="independent")
    sx.adamw(
        schedule,
        DECAY,
        decay_mode="independent",
        weight_decay_schedule=optax.constant_schedule(1.0),
    )
    sx.adamw(schedule, DECAY, decay_mode="coupled")


def test_a_decay_schedule_for_coupled_decay_is_refused():
    with pytest.raises(ValueError, match=r"coupled decay follows the learning rate. Leave it out"):
        sx.adamw(
            RATE,
            DECAY,
            decay_mode="coupled",
            weight_decay_schedule=optax.constant_schedule(1.0),
        )


def test_an_unknown_mode_is_refused():
    """Where a runtime type checker is at work, it refuses first, with the same two values."""
    with pytest.raises((ValueError, TypeError), match=r"(?s)independent.*coupled"):
        sx.adamw(RATE, DECAY, decay_mode="decoupled")  # pyright: ignore[reportArgumentType]


def test_decay_needs_the_weights(weight):
    tx: Any = sx.adamw(RATE, DECAY, decay_mode="independent")
    gradient = weight([[1.0]])
    with pytest.raises(ValueError, match=r"tx.update\(grads, state, params\)"):
        tx.update(gradient, tx.init(gradient))


def test_the_decay_may_be_traced_and_swept(weight):
    gradient = weight([[1.0]])

    def run(decay):
        tx: Any = sx.adamw(RATE, decay, decay_mode="independent")
        return tx.update(gradient, tx.init(gradient), gradient)[0].value.squeeze()

    swept = jax.vmap(run)(jnp.asarray([0.0, 0.5]))
    np.testing.assert_allclose(swept, [-RATE / 4, -RATE / 4 - 0.5], rtol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("schedule", [None, optax.constant_schedule(1.0)])
def test_low_precision_weights_stay_low(weight, dtype: str, schedule):
    params = weight([[1.0, 2.0]], dtype=dtype)
    tx: Any = sx.adamw(0.5, 0.5, decay_mode="independent", weight_decay_schedule=schedule)
    updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
    assert updates.value.dtype == jnp.dtype(dtype)
    assert updates.value.tolist() == [[-0.625, -1.125]]


def test_no_decay_is_plain_adam(weight):
    """A decay of zero has its place in the state, and no operation."""
    params = weight(START)
    none = sx.adamw(RATE, 0.0, decay_mode="independent")
    assert train(none, weight, "hidden").tolist() == (
        train(sx.adam(RATE), weight, "hidden").tolist()
    )
    some = sx.adamw(RATE, 0.1, decay_mode="independent")
    assert jax.tree.structure(none.init(params)) == jax.tree.structure(some.init(params))

    def operations(tx) -> int:
        return len(jax.make_jaxpr(tx.update)(params, tx.init(params), params).eqns)

    assert operations(none) == operations(sx.adam(RATE)) < operations(some)
