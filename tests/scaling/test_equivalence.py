"""Members of one equivalence class train alike: the strongest test of the library as a whole.

(a, b, c) -> (a + t, b - t, c - t), with epsilon's exponent + t, leaves Adam's trajectory
unchanged in exact arithmetic. Standard and NTK are such a pair, muP and mean-field another; with
the readout tied to the embedding all four are one class.

In double precision and from the same standard normal draws (one seed; width 48, base width 16)
the losses of 20 steps agree to 1e-12. They are of order one and have come out equal to 1e-15;
what breaks the equivalence moves them by more than 1e-3, so the bound decides nothing. Losses
are compared, not weights: those differ by their multipliers.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx

from ._measure import FAST_COMPILE

BASE_WIDTH, WIDTH = 16, 48
VOCABULARY, SEQUENCE, BATCH, STEPS = 11, 8, 4, 20
TOLERANCE = 1e-12
BROKEN = 1e-4

# In no table: every role is shifted by a t of its own.
SHIFTED = sx.Parameterization(
    "shifted",
    a=sx.LayerExponents("1/3", "-1/4", "2/3"),
    b=sx.LayerExponents("-1/3", "3/4", "-1/6"),
)

RATE = 2.0**-6
OPTIMIZERS = {
    "zero eps": lambda: sx.adam(RATE, eps=0.0),
    "scaled eps": lambda: sx.adam(RATE, eps=1e-4, eps_scaling="gradient"),
    "independent decay": lambda: sx.adamw(RATE, 0.01, eps=1e-4, decay_mode="independent"),
    "constant eps": lambda: sx.adam(RATE, eps=1e-4, eps_scaling="constant"),
    "coupled decay": lambda: sx.adamw(RATE, 0.1, eps=0.0, decay_mode="coupled"),
    "global rate": lambda: sx.adam(RATE, sx.global_rate, eps=0.0),
}
EQUIVALENT = ("zero eps", "scaled eps", "independent decay")
BREAKING = ("constant eps", "coupled decay", "global rate")


@pytest.mark.parametrize("optimizer", EQUIVALENT)
@pytest.mark.parametrize(
    ("one", "other"),
    [(sx.standard, sx.ntk), (sx.mup, sx.mean_field)],
    ids=["standard-ntk", "mup-mean_field"],
)
def test_members_of_a_class_train_alike(x64, one, other, optimizer):
    assert difference(losses(one, optimizer), losses(other, optimizer)) < TOLERANCE


def test_a_shift_of_any_size_changes_nothing(x64):
    optimizer = "independent decay"
    assert difference(losses(sx.standard, optimizer), losses(SHIFTED, optimizer)) < TOLERANCE


@pytest.mark.parametrize("optimizer", BREAKING)
def test_what_breaks_the_equivalence_is_seen(x64, optimizer):
    assert difference(losses(sx.standard, optimizer), losses(sx.ntk, optimizer)) > BROKEN


def test_the_two_classes_differ(x64):
    assert difference(losses(sx.standard, "zero eps"), losses(sx.mup, "zero eps")) > BROKEN


@pytest.mark.parametrize("other", [sx.ntk, sx.mup, sx.mean_field], ids=lambda p: p.name)
def test_tied_models_are_one_class(x64, other):
    standard = losses(sx.standard, "scaled eps", tied=True)
    assert difference(standard, losses(other, "scaled eps", tied=True)) < TOLERANCE


def test_a_global_rate_sets_tied_models_apart(x64):
    standard = losses(sx.standard, "global rate", tied=True)
    assert difference(standard, losses(sx.ntk, "global rate", tied=True)) > BROKEN


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """The largest, between two curves that have moved."""
    assert np.isfinite(one).all() and np.ptp(one) > 0.1
    return float(np.abs(one - other).max())


@functools.cache
def losses(
    parameterization: sx.Parameterization, optimizer: str, *, tied: bool = False
) -> np.ndarray:
    """Before each of the steps and after the last, each on a batch of its own."""
    tx = OPTIMIZERS[optimizer]()
    model = sx.parameterize(
        functools.partial(transformer, tied=tied),
        width=WIDTH,
        base_width=BASE_WIDTH,
        parameterization=parameterization,
    )
    params, static = eqx.partition(model, eqx.is_inexact_array)
    shape = (STEPS + 1, BATCH, SEQUENCE + 1)
    batches = jax.random.randint(jax.random.key(1), shape, 0, VOCABULARY)

    def loss(params, batch):
        logits = eqx.combine(params, static)(batch[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:]).mean()

    def step(carry, batch):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, batch)
        updates, state = tx.update(gradient, state, params)
        return (eqx.apply_updates(params, updates), state), value

    train = jax.jit(
        lambda params: jax.lax.scan(step, (params, tx.init(params)), batches)[1],
        compiler_options=FAST_COMPILE,
    )
    return np.asarray(train(params))


def transformer(width: int, *, tied: bool) -> sx.nn.Transformer:
    return sx.nn.Transformer(
        vocabulary_size=VOCABULARY,
        sequence_length=SEQUENCE,
        width=width,
        depth=2,
        head_dimension=8,
        tied=tied,
        dtype=jnp.float64,
        key=jax.random.key(0),
    )
