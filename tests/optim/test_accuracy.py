"""200 gradients of a Transformer: float32 against double precision, entry by entry.

The bounds are running error bounds: beside each formula in double precision stands what the
roundings of the float32 program can add up to, with U = 2^-24 for each operation and each constant
that float32 lacks. Nothing in them is measured.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optax
import pytest

import scalex_eqx as sx

from . import _oracles as oracles

STEPS, U, TINY = 200, 2.0**-24, 2.0**-126
B1, B2, EPS = 0.9, 0.999, 1e-12
# -expm1(t log b): a constant, a product, and an expm1 of two units in the last place.
MASS = 6 * U


@functools.cache
def recorded() -> tuple[Any, Any]:
    """The start of a small Transformer's training by Adam, and the gradients of each step."""

    def make(width: int):
        return sx.nn.Transformer(
            vocabulary_size=11,
            sequence_length=8,
            width=width,
            depth=2,
            head_dimension=8,
            key=jax.random.key(0),
        )

    model = sx.parameterize(make, width=16, base_width=16, parameterization=sx.standard)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    tokens = jax.random.randint(jax.random.key(1), (STEPS, 4, 8), 0, 11)
    tx = sx.adam(0.01)

    def loss(params, tokens):
        logits = eqx.combine(params, static)(tokens)
        targets = jnp.roll(tokens, 1, axis=-1)
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    def step(carry, tokens):
        params, state = carry
        gradient = jax.grad(loss)(params, tokens)
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), gradient

    with jax.numpy_dtype_promotion("standard"):
        run = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), tokens)[1])
        return params, run(params)


def updates_of(tx: Any) -> list[np.ndarray]:
    """What a rule makes of the recorded gradients, an array a weight, steps in front."""
    params, gradients = recorded()

    def step(state, gradient):
        updates, state = tx.update(gradient, state, params)
        return state, updates

    updates = jax.jit(lambda: jax.lax.scan(step, tx.init(params), gradients)[1])()
    return [np.asarray(x, np.float64) for x in jtu.tree_leaves(updates)]


def gradients() -> list[np.ndarray]:
    return [np.asarray(x, np.float64) for x in jtu.tree_leaves(recorded()[1])]


def moving(mean, error, x, x_error, decay):
    """m + (1 - b)(x - m): a difference, a constant, a product, a sum."""
    c = 1 - decay
    new = mean + c * (x - mean)
    error = decay * error + c * x_error + 3 * U * c * np.abs(x - mean) + U * np.abs(new) + TINY
    return new, error


def adam(g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Updates and bounds of their errors."""
    m, v, e, f = (np.zeros_like(g[0]) for _ in range(4))
    updates, bounds = [], []
    for t, x in enumerate(g, 1):
        m, e = moving(m, e, x, 0.0, B1)
        v, f = moving(v, f, x**2, U * x**2, B2)
        mass1, mass2 = 1 - B1**t, 1 - B2**t
        root = np.sqrt(v / mass2)
        # Of the root: half that of v and of its mass, a quotient, and the root's own.
        root_error = root * (MASS + U) / 2 + np.minimum(
            f / mass2 / np.maximum(root, TINY), np.sqrt(f / mass2)
        )
        below = root + EPS
        update = m / mass1 / below
        bound = e / mass1 / below + np.abs(update) * (
            MASS + 5 * U + root_error / np.maximum(below - root_error, EPS)
        )
        updates.append(update)
        bounds.append(bound)
    return np.stack(updates), np.stack(bounds)


def absolute(found: list[np.ndarray], expected: list[np.ndarray]) -> np.ndarray:
    """Errors of all entries; the updates are of a size of one."""
    return np.concatenate([np.ravel(np.abs(a - b)) for a, b in zip(found, expected, strict=True)])


def test_adam():
    found = updates_of(sx.scale_by_adam(B1, B2, EPS))
    expected, bounds = zip(*map(adam, gradients()), strict=True)
    for a, b, bound in zip(found, expected, bounds, strict=True):
        assert np.all(np.abs(a - b) <= bound)
    errors = absolute(found, list(expected))
    # Roundings are of either sign: nearly all entries are within a few units in the last place.
    assert np.median(errors) < U and np.quantile(errors, 0.999) < 8 * U
    assert np.median(np.concatenate([np.ravel(b) for b in bounds])) < 32 * U


def test_the_bounds_tell_a_wrong_constant():
    """An epsilon or a decay rate that is off by a thousandth is seen."""
    expected, bounds = zip(*map(adam, gradients()), strict=True)
    for wrong in (sx.scale_by_adam(B1, 0.99901, EPS), sx.scale_by_adam(0.9001, B2, EPS)):
        off = zip(updates_of(wrong), expected, bounds, strict=True)
        assert any(np.any(np.abs(a - b) > bound) for a, b, bound in off)


def test_optax_with_the_exact_bias_correction():
    """Its moments as it keeps them, corrected in double precision, give our updates.

    Its b v + (1 - b) x has a rounding more in each term, and weights that don't add up to one:
    four roundings of v in each step, of which 1 / (1 - b) steps are remembered.
    """
    params, recorded_gradients = recorded()
    tx = optax.scale_by_adam(B1, B2, EPS)

    def step(state, gradient):
        new: Any = tx.update(gradient, state, params)[1]
        return new, (new.mu, new.nu)

    with jax.numpy_dtype_promotion("standard"):
        moments = jax.lax.scan(step, tx.init(params), recorded_gradients)[1]
    found = updates_of(sx.scale_by_adam(B1, B2, EPS))
    bounds = [adam(g)[1] for g in gradients()]
    t = np.arange(1, STEPS + 1)
    for ours, bound, g, mu, nu in zip(
        found, bounds, gradients(), *map(jtu.tree_leaves, moments), strict=True
    ):
        steps = t.reshape(-1, *[1] * (mu.ndim - 1))
        root = np.sqrt(np.asarray(nu, np.float64) / (1 - B2**steps)) + EPS
        theirs = np.asarray(mu, np.float64) / (1 - B1**steps) / root
        size = np.maximum.accumulate(np.abs(g), 0) / root
        # Four roundings a step: of v over all steps so far, of m over the ten it remembers.
        room = bound + 4 * U * (np.abs(theirs) * steps / 2 + 10 * size)
        assert np.all(np.abs(ours - theirs) <= room)


def test_momentum():
    """m <- 0.9 m + g: a constant, a product, a sum."""
    for found, g in zip(updates_of(sx.optim.scale_by_momentum(0.9)), gradients(), strict=True):
        m, error = np.zeros_like(g[0]), np.zeros_like(g[0])
        for update, x in zip(found, g, strict=True):
            error = 0.9 * error + 2 * U * 0.9 * np.abs(m)
            m = 0.9 * m + x
            error = error + U * np.abs(m) + TINY
            assert np.all(np.abs(update - m) <= error)
            assert np.all(error <= 40 * U * np.maximum(np.max(np.abs(g)), np.abs(m)))


def test_lion():
    """The sign, wherever the roundings can't have changed it: almost everywhere."""
    unclear = total = 0
    for found, g in zip(updates_of(sx.optim.scale_by_lion(0.9, 0.99)), gradients(), strict=True):
        m, error = np.zeros_like(g[0]), np.zeros_like(g[0])
        for update, x in zip(found, g, strict=True):
            looked_at, doubt = moving(m, error, x, 0.0, 0.9)
            clear = np.abs(looked_at) > doubt
            np.testing.assert_array_equal(update[clear], np.sign(looked_at)[clear])
            m, error = moving(m, error, x, 0.0, 0.99)
            unclear, total = unclear + np.sum(~clear & (looked_at != 0)), total + clear.size
    assert unclear < 1e-4 * total


@pytest.mark.parametrize("least", [4, 128])
def test_adafactor(least: int):
    """Every number but the gradient is a mean of squares or its root, without cancellation.

    A sum of n terms is off by n roundings of itself. A moving mean of t steps gains three a step,
    of which about t^0.8 are remembered, and its root half of them. Three such roots are in an
    update, whose root mean square and that of the weight are reductions again.
    """
    params, _ = recorded()
    tx = sx.adafactor(
        1.0, sx.global_rate, eps=1e-4, floor=0.5, clipping_threshold=1.0, min_factored_size=least
    )
    worst = 0.0
    for found, g, weight in zip(
        updates_of(tx), gradients(), jtu.tree_leaves(params, is_leaf=is_weight), strict=True
    ):
        own = weight.value.ndim - len(weight.spec.stack_axes(weight.value.ndim))
        stacked = weight.value.ndim > own
        members = range(weight.value.shape[0]) if stacked else [...]
        for i in members:
            w = np.asarray(weight.value, np.float64)[i]
            oracle = oracles.adafactor(1.0, 1.0, least=least)
            next(oracle)
            for t, (update, x) in enumerate(zip(found[:, i], g[:, i], strict=True), 1):
                expected = -oracle.send((x, w))
                terms = sum(w.shape)
                bound = (4 * terms + 3 * (3 * t**0.8) + 30) * U
                assert np.all(np.abs(update - expected) <= bound * np.abs(expected) + TINY)
                worst = max(worst, bound)
    assert worst < 1e-4


def is_weight(node: Any) -> bool:
    return isinstance(node, sx.Weight)
