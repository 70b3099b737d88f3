"""Unit-scaled muP trains as muP shifted by a half does, and as its own layers do.

muP is taken at a base width of one, where its $\\sigma$ is one as well. In double precision the
losses of 50 steps are of order one and agree to 1e-12. Adam-atan2 has no epsilon. The layers of
`nn.unit` scale each weight's gradient by a constant of its own, which Adam-atan2 does not see.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx import theory
from scalex_eqx.ops import scaled

WIDTH, COUNT, STEPS = 24, 10, 50
SHIFTED = theory.shift(sx.mup, "1/2")
PLAIN = theory.unit_scaled(embedding_rate=0)
# Of gelu at mult 1: the share 0.8 of the way from 2 to sqrt(2 / (1 - 1 / pi)), in logarithms.
GELU = 2**0.2 * (2 / (1 - 1 / np.pi)) ** 0.4


def make_plain(width):
    keys = jax.random.split(jax.random.key(0), 3)
    return {
        "in": sx.nn.Embedding(COUNT, width, dtype=jnp.float64, key=keys[0]),
        "hidden": sx.nn.Linear(width, width, dtype=jnp.float64, key=keys[1]),
        "out": sx.nn.Readout(width, COUNT, dtype=jnp.float64, key=keys[2]),
    }


def plain_loss(model, x, y):
    h = jax.vmap(lambda i: model["hidden"](model["in"](i)))(x)
    h = GELU * jax.nn.gelu(h, approximate=False)
    logits = jax.vmap(model["out"])(h)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))


def make_unit(width):
    keys = jax.random.split(jax.random.key(0), 3)
    return {
        "in": sx.nn.unit.Embedding(COUNT, width, dtype=jnp.float64, key=keys[0]),
        "hidden": sx.nn.unit.Linear(width, width, dtype=jnp.float64, key=keys[1]),
        "out": sx.nn.unit.Readout(width, COUNT, dtype=jnp.float64, key=keys[2]),
    }


def unit_loss(model, x, y):
    h = model["hidden"](model["in"](x, mapped=1), mapped=1)
    return scaled.cross_entropy(model["out"](scaled.gelu(h), mapped=1), y, mapped=1)


@functools.cache
def losses(law, unit=False, tx=None):
    with jax.enable_x64(True):
        make, loss = (make_unit, unit_loss) if unit else (make_plain, plain_loss)
        base = None if law.unit else 1
        model = sx.parameterize(make, width=WIDTH, base_width=base, parameterization=law)
        tx = sx.adam_atan2(0.02) if tx is None else tx
        x = jax.random.randint(jax.random.key(1), (STEPS, 16), 0, COUNT)

        def step(carry, x):
            model, state = carry
            value, gradient = jax.value_and_grad(loss)(model, x, (3 * x + 1) % COUNT)
            updates, state = tx.update(gradient, state, model)
            return (eqx.apply_updates(model, updates), state), value

        carry = (model, tx.init(model))
        return np.asarray(jax.jit(lambda c: jax.lax.scan(step, c, x)[1])(carry))


@pytest.mark.parametrize("unit", [False, True], ids=["the law alone", "nn.unit"])
def test_it_trains_as_shifted_mup_does(unit):
    one, other = losses(SHIFTED), losses(PLAIN, unit)
    assert one[0] - one[-1] > 0.5
    np.testing.assert_allclose(other, one, rtol=0, atol=1e-12)


def test_the_embeddings_own_rate_is_another_training():
    assert np.max(np.abs(losses(sx.u_mup, True) - losses(SHIFTED))) > 1e-3


def test_sgd_on_scaled_gradients_follows_adams_exponents(x64):
    """The gradients of `nn.unit` are of size one at all widths, as Adam's updates are."""
    model = sx.parameterize(make_unit, width=WIDTH, parameterization=PLAIN)
    sgd, adam = (sx.plan(model, tx) for tx in (sx.sgd(1.0), sx.adam_atan2(1.0)))
    assert [row.learning_rate for row in sgd.rows] == [row.learning_rate for row in adam.rows]
    plain = sx.parameterize(make_plain, width=WIDTH, parameterization=PLAIN)
    assert [row.learning_rate for row in sx.plan(plain, sx.sgd(1.0)).rows] != [
        row.learning_rate for row in adam.rows
    ]
