"""Adafactor: factored statistics, its two floors, and the scales that it bears."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.optim._adafactor import factored_axes

RNG = np.random.default_rng(0)
STEPS, SHAPE = 12, (5, 7)
GRADIENTS = RNG.normal(size=(STEPS, *SHAPE)) * np.exp(RNG.normal(size=SHAPE))
START = RNG.normal(size=SHAPE) * 0.1
ULP = 2.0**-24


def run(tx: Any, gradients, make, start=START) -> np.ndarray:
    """The updates at weights that stay where they are."""
    params = make(start)
    state, step = tx.init(params), jax.jit(tx.update)
    found = []
    for gradient in gradients:
        update, state = step(make(gradient), state, params)
        found.append(np.asarray(update.value, np.float64))
    return np.stack(found)


@pytest.mark.parametrize("least", [4, 128])
@pytest.mark.parametrize("threshold", [1.0, 0.1, None])
def test_it_is_that_of_optax(weight, least: int, threshold: float | None):
    """At equal settings, up to rounding: each mean adds at most seven numbers in another order,
    and a dozen steps pass it on."""
    settings: Any = {"clipping_threshold": threshold}
    tx = sx.optim.adafactor(0.1, eps_scaling="constant", min_factored_size=least, **settings)
    other = optax.adafactor(0.1, min_dim_size_to_factor=least, **settings)
    found = run(tx, GRADIENTS, lambda x: weight(x, ratio=1))
    with jax.numpy_dtype_promotion("standard"):
        expected = run(other, GRADIENTS, lambda x: weight(x, ratio=1))
    np.testing.assert_allclose(found, expected, rtol=64 * ULP)
    not_ours = optax.adafactor(
        0.1, min_dim_size_to_factor=least, clipping_threshold=threshold, decay_rate=0.7
    )
    with jax.numpy_dtype_promotion("standard"):
        assert np.max(np.abs(run(not_ours, GRADIENTS, weight) - expected)) > 1e-5


def test_the_floor_of_optax(weight):
    tiny = START * 1e-4
    found = run(sx.optim.adafactor(0.1), GRADIENTS, lambda x: weight(x, ratio=1), tiny)
    with jax.numpy_dtype_promotion("standard"):
        expected = run(optax.adafactor(0.1), GRADIENTS, lambda x: weight(x, ratio=1), tiny)
    np.testing.assert_allclose(found, expected, rtol=64 * ULP)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((128, 128), (0, 1)),
        ((127, 128), None),
        ((128,), None),
        ((4, 128, 130), (1, 2)),
        ((128, 4, 130), (0, 2)),
        ((200, 128, 130), (1, 2)),
    ],
)
def test_which_axes_are_factored(shape, axes):
    fan_in = tuple(range(-len(shape), -1))
    spec = sx.WeightSpec(fan_in, (-1,), role=sx.Role.hidden)
    assert factored_axes(spec, jnp.zeros(shape), 128) == axes


def test_stack_axes_are_not_factored():
    spec = sx.WeightSpec((-1,), (-2,), role=sx.Role.hidden)
    assert factored_axes(spec, jnp.zeros((300, 2, 200, 200)), 128) == (2, 3)
    assert factored_axes(spec, jnp.zeros((300, 200, 2)), 128) is None


def test_a_factored_state_is_small(weight):
    params = {"w": weight(np.zeros((5, 7))), "bias": weight(np.zeros(7), "vector")}
    tx: Any = sx.optim.scale_by_factored_rms(min_factored_size=4)
    state = tx.init(params)
    assert state.row["w"].value.shape == (5, 1)
    assert state.column["w"].value.shape == (1, 7)
    assert state.full["w"].value is None
    assert state.full["bias"].value.shape == (7,)
    assert state.row["bias"].value is None
    for field in (state.row, state.column, state.full):
        assert [w.spec for w in (field["w"], field["bias"])] == [
            params["w"].spec,
            params["bias"].spec,
        ]


@pytest.mark.parametrize("least", [4, 128])
def test_the_scale_of_the_gradient_does_not_matter(weight, least: int):
    """Without epsilon: from the smallest normal gradient to the largest, to the last bit."""
    tx: Any = sx.optim.scale_by_factored_rms(eps=0.0, min_factored_size=least)

    @jax.jit
    def updates(scale):
        state, found = tx.init(weight(GRADIENTS[0])), []
        for gradient in GRADIENTS:
            update, state = tx.update(weight(gradient * scale), state)
            found.append(update.value)
        return jnp.stack(found)

    def at(exponent):
        return np.asarray(updates(jnp.float32(2.0**exponent)))

    smallest = np.floor(np.log2(np.min(np.abs(GRADIENTS))))
    largest = np.ceil(np.log2(np.max(np.abs(GRADIENTS))))
    band = range(int(-126 - smallest) + 1, int(126 - largest))
    assert band[0] < -110 and band[-1] > 118
    assert [k for k in band if at(k).tobytes() != at(0).tobytes()] == []


def test_the_squares_of_optax_underflow(weight):
    tx = optax.scale_by_factored_rms(epsilon=0.0)
    tiny = GRADIENTS.astype(np.float32) * np.float32(2.0**-80)
    assert not np.isfinite(run(tx, tiny, lambda x: weight(x, ratio=1))).all()


@pytest.mark.parametrize("eps_scaling", ["gradient", "constant"])
def test_epsilon_is_added_to_the_square(weight, eps_scaling: Any):
    """At the first step u = g / sqrt(g^2 + eps r^-2g); muP's hidden g is 1, r = 4."""
    tx: Any = sx.optim.scale_by_factored_rms(eps=1e-4, eps_scaling=eps_scaling)
    gradient = weight([[1e-2]])
    update, _ = tx.update(gradient, tx.init(gradient))
    scale = {"gradient": 1 / 16, "constant": 1.0}[eps_scaling]
    assert update.value.item() == pytest.approx((1 + scale) ** -0.5, rel=1e-6)


def test_a_row_and_a_column_without_gradient_stay_where_they_are(weight):
    gradients = GRADIENTS.copy()
    gradients[:6, 2] = gradients[:6, :, 3] = 0
    tx = sx.optim.scale_by_factored_rms(eps=0.0, min_factored_size=4)
    found = run(tx, gradients, weight)
    assert np.isfinite(found).all()
    assert np.all(found[:6, 2] == 0) and np.all(found[:6, :, 3] == 0)
    assert np.all(found[6] != 0)


@pytest.mark.parametrize("eps", [0.0, 1e-30])
@pytest.mark.parametrize("least", [4, 128])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_gradient_that_is_not_finite_is_not_hidden(weight, bad: float, least: int, eps: float):
    gradients = GRADIENTS[:3].copy()
    gradients[1, 2, 3] = bad
    alone: Any = sx.optim.scale_by_factored_rms(eps=eps, min_factored_size=least)
    found = run(alone, gradients, weight)
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1:, 2, 3]).all()
    # Through the clipping the whole weight.
    whole = run(sx.optim.adafactor(0.1, eps=eps, min_factored_size=least), gradients, weight)
    assert np.isnan(whole[1:]).all()


def test_the_first_steps_forget_as_they_should(weight):
    """1 - t^-0.8: the first statistics are those of the first gradient alone."""
    tx: Any = sx.optim.scale_by_factored_rms(eps=0.0)
    gradients = np.asarray([[[3.0]], [[4.0]], [[5.0]]])
    found = run(tx, gradients, weight, np.ones((1, 1))).squeeze()
    second = (1 - 2**-0.8) * 9 + 2**-0.8 * 16
    third = (1 - 3**-0.8) * second + 3**-0.8 * 25
    np.testing.assert_allclose(found, [1, 4 / second**0.5, 5 / third**0.5], rtol=1e-6)


@pytest.mark.parametrize("size", [0, 2.5, "8"])
def test_a_wrong_size_is_refused(size: Any):
    with pytest.raises((ValueError, TypeError), match="min_factored_size"):
        sx.optim.adafactor(0.1, min_factored_size=size)


def test_sizes_cannot_be_injected_but_all_else_can(weight):
    make: Any = optax.inject_hyperparams(
        sx.optim.adafactor, static_args=("min_factored_size", "floor_scaling", "eps_scaling")
    )
    found = run(make(learning_rate=0.1, eps=1e-4), GRADIENTS, weight)
    expected = run(sx.optim.adafactor(0.1, eps=1e-4), GRADIENTS, weight)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_weight_without_any_gradient_stays_where_it_is(weight):
    gradients = [np.zeros(SHAPE), np.zeros(SHAPE), GRADIENTS[0]]
    found = run(sx.optim.scale_by_factored_rms(eps=0.0, min_factored_size=4), gradients, weight)
    np.testing.assert_array_equal(found[:2], 0)
    assert np.isfinite(found[2]).all() and found[2].any()


def bytes_beside_the_results(tx: Any, w: sx.Weight) -> int:
    """What a compiled step needs while it runs."""

    def step(w, state, g):
        updates, state = tx.update(g, state, w)
        return optax.apply_updates(w, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(w, tx.init(w), w).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


@pytest.mark.parametrize("threshold", [None, 1.0])
def test_nothing_as_large_as_the_gradient_is_kept_beside_it(weight, threshold: float | None):
    w = weight(np.ones((256, 384)), dtype="float32")
    assert bytes_beside_the_results(sx.adafactor(0.1, clipping_threshold=threshold), w) < 256 * 384
    # Clipped behind the rule, the update is used by a sum and by the step, and so is written.
    apart = optax.chain(sx.optim.scale_by_factored_rms(), sx.optim.clip_by_rms(1.0))
    assert bytes_beside_the_results(apart, w) >= 4 * 256 * 384
