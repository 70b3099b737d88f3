"""SGD, Lion and the sign: against Optax, and on gradients that are not finite."""

from typing import Any

import jax
import numpy as np
import optax
import pytest

import scalex_eqx as sx

GRADIENTS = np.random.default_rng(0).normal(size=(20, 3, 4))
AS_OPTAX = {
    "sgd": (lambda: sx.optim.sgd(0.1), lambda: optax.sgd(0.1)),
    "momentum": (lambda: sx.optim.sgd(0.1, momentum=0.9), lambda: optax.sgd(0.1, momentum=0.9)),
    "nesterov": (
        lambda: sx.optim.sgd(0.1, momentum=0.9, nesterov=True),
        lambda: optax.sgd(0.1, momentum=0.9, nesterov=True),
    ),
    "lion": (lambda: sx.optim.lion(0.1), lambda: optax.lion(0.1, weight_decay=0.0)),
    "sign_sgd": (lambda: sx.optim.sign_sgd(0.1), lambda: optax.sign_sgd(0.1)),
}


def run(tx: Any, gradients, weight, dtype: str | None = None) -> np.ndarray:
    params = weight(np.zeros_like(gradients[0]), ratio=1, dtype=dtype)
    state, step, found = tx.init(params), jax.jit(tx.update), []
    for gradient in gradients:
        update, state = step(weight(gradient, ratio=1, dtype=dtype), state, params)
        assert update.value.dtype == params.value.dtype
        found.append(np.asarray(update.value, np.float64))
    return np.stack(found)


@pytest.mark.parametrize("name", AS_OPTAX)
def test_at_the_base_width_it_is_that_of_optax(weight, name: str):
    ours, theirs = AS_OPTAX[name]
    found = run(ours(), GRADIENTS, weight)
    with jax.numpy_dtype_promotion("standard"):
        expected = run(theirs(), GRADIENTS, weight)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", AS_OPTAX)
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_gradient_that_is_not_finite_is_not_hidden(weight, name: str, bad: float):
    gradients = np.ones((3, 1, 2))
    gradients[1, 0, 1] = bad
    found = run(AS_OPTAX[name][0](), gradients, weight)
    assert np.isfinite(found[:, 0, 0]).all() and np.isfinite(found[0]).all()
    assert np.isnan(found[1, 0, 1])
    remembers = name not in ("sgd", "sign_sgd")
    assert np.isnan(found[2, 0, 1]) == remembers


@pytest.mark.parametrize("name", ["momentum", "lion"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_memories_are_kept_in_float32(weight, name: str, dtype: str):
    tx: Any = AS_OPTAX[name][0]()
    run(tx, GRADIENTS[:2], weight, dtype)
    state: Any = tx.init(weight(GRADIENTS[0], dtype=dtype))[0]
    memory = state.trace if name == "momentum" else state.mean
    assert memory.value.dtype == np.float32


def test_nesterov_needs_momentum():
    with pytest.raises(ValueError, match=r"nesterov=True .* pass momentum"):
        sx.optim.sgd(0.1, nesterov=True)


@pytest.mark.parametrize("momentum", [1.0, -0.1])
def test_a_wrong_momentum_is_refused(momentum: float):
    with pytest.raises(ValueError, match=r"momentum is .* less than 1"):
        sx.optim.sgd(0.1, momentum=momentum)


@pytest.mark.parametrize("make", [sx.optim.sgd, sx.optim.lion, sx.optim.adafactor])
def test_decay_is_checked_everywhere(make: Any):
    with pytest.raises(ValueError, match="weight_decay_schedule must say"):
        make(optax.constant_schedule(0.1), weight_decay=0.1, decay_mode="independent")
    make(optax.constant_schedule(0.1))
    with pytest.raises((ValueError, TypeError), match=r"(?s)independent.*coupled"):
        make(0.1, decay_mode="decoupled")
