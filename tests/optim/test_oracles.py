"""Sixty steps of every rule against its formula in double precision."""

from typing import Any

import jax
import numpy as np
import optax
import pytest

import scalex_eqx as sx

from . import _oracles as oracles

RATE, STEPS, RATIO, DECAY = 0.01, 60, 4.0, 0.02
SHAPES = {
    "embedding": (3, 5),
    "hidden": (4, 6),
    "readout": (2, 6),
    "vector": (6,),
    "constant": (2,),
}
# muP at r = 4 under full alignment: exponents g, b, and c of each family.
GRADIENT = {"embedding": 0.5, "hidden": 1.0, "readout": 0.5, "vector": 1.0, "constant": 0.0}
INITIAL = {"embedding": 0.5, "hidden": 0.5, "readout": 0.5, "vector": 0.0, "constant": 0.0}
RATES = {
    "sgd": {"vector": -1.0},
    "adam": {"embedding": 0.5, "hidden": 1.0, "readout": 0.5},
    "adafactor": {"hidden": 0.5},
}
FULL = sx.full_alignment

RULES: dict[str, tuple[Any, Any, str]] = {
    "sgd": (lambda **k: sx.optim.sgd(RATE, **k), oracles.sgd, "sgd"),
    "momentum": (lambda **k: sx.optim.sgd(RATE, momentum=0.9, **k), oracles.momentum, "sgd"),
    "nesterov": (
        lambda **k: sx.optim.sgd(RATE, momentum=0.9, nesterov=True, **k),
        oracles.nesterov,
        "sgd",
    ),
    "adam_atan2": (lambda **k: sx.optim.adam_atan2(RATE, **k), oracles.adam_atan2, "adam"),
    "lion": (lambda **k: sx.optim.lion(RATE, **k), oracles.lion, "adam"),
    "sign_sgd": (lambda **k: sx.optim.sign_sgd(RATE, **k), oracles.sign, "adam"),
    "adam_parameter_scaling": (
        lambda **k: sx.optim.adam_parameter_scaling(RATE, FULL, eps=1e-2, floor=0.5, **k),
        oracles.adam_parameter_scaling,
        "adafactor",
    ),
    "adafactor": (
        lambda **k: sx.optim.adafactor(RATE, FULL, eps=1e-4, floor=0.5, min_factored_size=3, **k),
        oracles.adafactor,
        "adafactor",
    ),
}


@pytest.fixture(scope="module")
def starts():
    rng = np.random.default_rng(0)
    # Some larger than the floor, some smaller.
    return {role: rng.normal(size=shape) * 0.3 for role, shape in SHAPES.items()}


@pytest.fixture(scope="module")
def gradients(starts):
    """Of many sizes, some of them now and then zero."""
    rng = np.random.default_rng(1)
    sizes = {role: np.exp(2 * rng.normal(size=w.shape)) for role, w in starts.items()}
    return [
        {
            role: sizes[role] * rng.normal(0.2, size=w.shape) * (rng.uniform(size=w.shape) < 0.9)
            for role, w in starts.items()
        }
        for _ in range(STEPS)
    ]


def train(tx: Any, starts, gradients, weight, dtype: str):
    def wrap(arrays):
        return {role: weight(x, role, dtype=dtype) for role, x in arrays.items()}

    params: Any = wrap(starts)
    state = tx.init(params)
    step = jax.jit(tx.update)
    for gradient in gradients:
        updates, state = step(wrap(gradient), state, params)
        params = optax.apply_updates(params, updates)
    return {role: np.asarray(w.value, np.float64) for role, w in params.items()}


def expected(oracle, family: str, starts, gradients, decay: str | None = None):
    weights = dict(starts)
    for role, start in starts.items():
        running = oracle(RATIO ** -GRADIENT[role], RATIO ** -INITIAL[role])
        next(running)
        rate = RATE * RATIO ** -RATES[family].get(role, 0.0)
        decays = DECAY if decay and len(SHAPES[role]) == 2 else 0.0
        w = start
        for gradient in gradients:
            step = rate * running.send((gradient[role], w))
            w = w - step - decays * w * (rate if decay == "coupled" else 1.0)
        weights[role] = w
    return weights


@pytest.mark.parametrize("name", RULES)
def test_sixty_steps_in_float64(name: str, starts, gradients, weight, x64):
    make, oracle, family = RULES[name]
    found = train(make(), starts, gradients, weight, "float64")
    for role, w in expected(oracle, family, starts, gradients).items():
        np.testing.assert_allclose(found[role], w, rtol=0, atol=1e-12, err_msg=role)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("decay", ["independent", "coupled"])
def test_with_decay(name: str, decay: str, starts, gradients, weight, x64):
    make, oracle, family = RULES[name]
    tx = make(weight_decay=DECAY, decay_mode=decay)
    found = train(tx, starts, gradients, weight, "float64")
    for role, w in expected(oracle, family, starts, gradients, decay).items():
        np.testing.assert_allclose(found[role], w, rtol=0, atol=1e-12, err_msg=role)


@pytest.mark.parametrize("name", RULES)
def test_sixty_steps_in_float32(name: str, starts, gradients, weight):
    """Each update is rounded to 2^-24 of itself a few dozen times; the sum of their sizes is 60
    steps times the largest."""
    make, oracle, family = RULES[name]
    narrow = [{role: g.astype(np.float32) for role, g in each.items()} for each in gradients]
    found = train(make(), starts, narrow, weight, "float32")
    for role, w in expected(oracle, family, starts, narrow).items():
        moved = np.max(np.abs(w - starts[role])) + np.max(np.abs(w))
        np.testing.assert_allclose(
            found[role], w, rtol=0, atol=64 * STEPS * 2.0**-24 * moved, err_msg=role
        )


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_told_from_every_other(name: str, starts, gradients):
    """The bounds above are far smaller than what sets the rules apart."""
    _, oracle, family = RULES[name]
    own = expected(oracle, family, starts, gradients)
    for other, (_, other_oracle, other_family) in RULES.items():
        if other != name:
            others = expected(other_oracle, other_family, starts, gradients)
            assert max(np.max(np.abs(own[role] - others[role])) for role in own) > 1e-2
