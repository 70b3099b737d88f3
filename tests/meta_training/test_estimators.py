"""Estimates of meta-gradients against the exact one, on a rule of two numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalex_eqx.meta_training import Episode, first_particle, pes, unrolled

# Descent with momentum on a quadratic loss, learning rate and momentum to be found.
CURVATURES, START = np.array([1.0, 0.2, 3.0]), np.array([1.0, -2.0, 0.5])
PHI = np.array([-1.5, 0.3])
TRUNCATIONS, LENGTH = 3, 2


def total_loss(phi: np.ndarray) -> float:
    """The sum of the truncations' mean losses, in float64."""
    rate, momentum = np.exp(phi[0]), 1 / (1 + np.exp(-phi[1]))
    w, m, total = START.copy(), np.zeros(3), 0.0
    for _ in range(TRUNCATIONS * LENGTH):
        total += 0.5 * np.sum(CURVATURES * w**2) / LENGTH
        m = momentum * m + CURVATURES * w
        w = w - rate * m
    return total


def exact(step: float = 1e-5) -> np.ndarray:
    shifts = step * np.eye(2)
    return np.array([(total_loss(PHI + s) - total_loss(PHI - s)) / (2 * step) for s in shifts])


def begin(phi, key):
    del phi, key
    return jnp.asarray(START, jnp.float32), jnp.zeros(3, jnp.float32)


def advance(phi, state, key):
    del key
    curvatures = jnp.asarray(CURVATURES, jnp.float32)
    rate, momentum = jnp.exp(phi[0]), jax.nn.sigmoid(phi[1])
    (w, m), losses = state, []
    for _ in range(LENGTH):
        losses.append(0.5 * jnp.sum(curvatures * w**2))
        m = momentum * m + curvatures * w
        w = w - rate * m
    return (w, m), jnp.mean(jnp.stack(losses))


EPISODE = Episode(begin, advance, TRUNCATIONS)


def estimates(*, forget: bool, count: int = 20_000, sigma: float = 0.01) -> np.ndarray:
    """The sum over a training's truncations, from many pairs: one row each."""
    phi = jnp.asarray(PHI, jnp.float32)

    def one(index):
        key = jax.random.fold_in(jax.random.key(0), index)
        particle = first_particle(EPISODE, phi, key, jnp.zeros((), jnp.int32), "pes")
        total = jnp.zeros(2)
        for k in range(TRUNCATIONS):
            if forget:
                particle = particle._replace(perturbation=jnp.zeros(2))
            keys = key, jax.random.fold_in(key, k)
            particle, gradient, _ = pes(EPISODE, phi, particle, keys, sigma)
            total = total + gradient
        return total

    return np.asarray(jax.jit(jax.vmap(one))(jnp.arange(count)), np.float64)


def test_pes_has_no_bias():
    found = estimates(forget=False)
    error = found.std(axis=0) / len(found) ** 0.5
    assert np.all(error < 0.02 * np.linalg.norm(exact()))
    assert np.all(np.abs(found.mean(axis=0) - exact()) < 4 * error)


def test_without_the_sum_of_perturbations_it_has_one():
    found = estimates(forget=True)
    error = found.std(axis=0) / len(found) ** 0.5
    assert np.max(np.abs(found.mean(axis=0) - exact()) / error) > 50


@pytest.mark.parametrize("truncations", [1, TRUNCATIONS])
def test_unrolled_gradients_are_exact_over_a_whole_training_only(truncations: int):
    def whole(phi, state, key):
        total = jnp.zeros(())
        for _ in range(TRUNCATIONS // truncations):
            state, loss = advance(phi, state, key)
            total = total + loss
        return state, total

    episode, phi = Episode(begin, whole, truncations), jnp.asarray(PHI, jnp.float32)
    key, total = jax.random.key(0), np.zeros(2)
    particle = first_particle(episode, phi, key, jnp.zeros((), jnp.int32), "unrolled")
    for _ in range(truncations):
        particle, gradient, _ = unrolled(episode, phi, particle, (key, key), 0.01)
        total = total + np.asarray(gradient, np.float64)
    # A few hundred roundings in float32.
    is_exact = np.allclose(total, exact(), rtol=1e-4)
    assert is_exact == (truncations == 1)


def test_trainings_begin_again_at_different_times():
    phi = jnp.asarray(PHI, jnp.float32)
    particles = [
        first_particle(EPISODE, phi, jax.random.key(i), jnp.asarray(i), "pes") for i in range(3)
    ]
    assert [int(p.left) for p in particles] == [3, 2, 1]
    key = jax.random.key(0)
    last, _, _ = pes(EPISODE, phi, particles[2], (key, key), 0.01)
    assert int(last.left) == 0
    assert np.any(last.perturbation)
    fresh, gradient, loss = pes(EPISODE, phi, last, (key, jax.random.key(1)), 0.0001)
    assert (int(fresh.left), int(fresh.number)) == (2, 1)
    assert np.abs(fresh.perturbation).max() < 0.001
    first = 0.5 * np.sum(CURVATURES * START**2)
    assert 0.5 * first < float(loss) < 1.5 * first
    assert np.all(np.isfinite(gradient))
