"""A learned rule under stress, beside the same network with the published absolute epsilons."""

import jax
import jax.numpy as jnp
import optax
import pytest

from scalex_eqx.diagnostics import stress, stress_expectations, stress_rules
from scalex_eqx.optim import load_rule

LEARNED = stress_rules["learned"]
DECAYS = (0.9, 0.99, 0.999)
TIMES = (1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5)


def published() -> optax.GradientTransformation:
    """The published features of a matrix, epsilons as they are there, and the shipped network."""
    layers = load_rule("default").rule.layers

    def init(params):
        (w,) = jax.tree.leaves(params)
        dtype = jnp.result_type(float)
        m, v = jnp.zeros((3, *w.shape), dtype), jnp.zeros(w.shape, dtype)
        return jnp.zeros((), dtype), m, v, jnp.zeros((3, w.shape[0], 1), dtype), m[:, :1]

    def update(updates, state, params=None):
        (g,), (w,) = jax.tree.leaves(updates), jax.tree.leaves(params)
        t, m, v, row, column = state
        b = jnp.array(DECAYS, g.dtype)[:, None, None]
        square, t = g**2, t + 1
        m, v = b * m + (1 - b) * g, 0.999 * v + 0.001 * square
        row = b * row + (1 - b) * jnp.mean(square, 1, keepdims=True)
        column = b * column + (1 - b) * jnp.mean(square, 0, keepdims=True)
        by_row = jax.lax.rsqrt(jnp.maximum(row / (jnp.mean(row, 1, keepdims=True) + 1e-9), 1e-9))
        size = by_row * jax.lax.rsqrt(jnp.maximum(column, 1e-9))
        inverse = jax.lax.rsqrt(v + 1e-6)
        ends = jax.lax.rsqrt(row + 1e-8), jax.lax.rsqrt(column + 1e-8)
        features = [w[None], g[None], m, v[None], m * inverse, inverse[None]]
        features += [g * size, m * size, row, column, *ends]
        x = jnp.concatenate([jnp.broadcast_to(x, (len(x), *g.shape)) for x in features])
        x = x * jax.lax.rsqrt(1e-5 + jnp.mean(x**2, (1, 2), keepdims=True))
        of_time = jnp.tanh(t / jnp.array(TIMES, g.dtype) - 1)[:, None, None]
        x = jnp.concatenate([x, jnp.broadcast_to(of_time, (len(TIMES), *g.shape))])
        for i, layer in enumerate(layers):
            weight, bias = (jnp.asarray(x, g.dtype) for x in (layer.weight, layer.bias))
            x = jnp.tensordot(weight, x, 1, precision="highest") + bias[:, None, None]
            x = jax.nn.relu(x) if i < 2 else x
        found = x[0] * jnp.exp(1e-3 * x[1])
        return jax.tree.map(lambda _: found, updates), (t, m, v, row, column)

    return optax.GradientTransformation(init, update)


@pytest.mark.parametrize("absolute", [False, True])
def test_an_absolute_epsilon_is_found(absolute: bool):
    tx = published() if absolute else LEARNED.make()
    result = stress(tx, gradient="noisy", steps=4, shape=LEARNED.shape)
    failed = {e.quantity for e in stress_expectations(LEARNED, result) if not e.holds}
    assert result.full is not None
    if absolute:
        # 1e-5 in the mean square of a feature takes 10 % of it at 2.06 * 1e-5^1/2 = 2^-7.3, and
        # squares of squares overflow.
        assert failed == {"full_low", "full_high"} and result.full.low >= -8, str(result)
    else:
        assert failed == set() and result.full.low <= -112, str(result)
        # Powers of two change no bit, until the slowest mean is not a normal number.
        assert result.exact is not None and result.exact.low <= -100 and result.exact.high == 126
