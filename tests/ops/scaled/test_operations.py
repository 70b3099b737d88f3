"""Outputs and gradients of size one on inputs of size one, and exceptions by name and number.

Inputs, weights and output gradients are drawn by NumPy with a fixed seed. Each size is that of at
least 4,096 entries, so that its relative error is at most 1 / sqrt(2 * 4096), 1.1 %, where the
entries are independent; the bound is 10 %.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalex_eqx.ops import scaled

RNG = np.random.default_rng(7)
BATCH, LENGTH, HEADS, D = 8, 64, 4, 16


@functools.cache
def drawn(*shape, place=0):
    rng = np.random.default_rng((place, *shape))
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


def size(x):
    return float(np.sqrt(np.mean(np.square(np.asarray(x, np.float64)))))


def deviation(x):
    return float(np.std(np.asarray(x, np.float64)))


def sizes(function, *inputs, measure=size):
    """The size of the output, and of each input's gradient for an output gradient of size one."""

    @jax.jit
    def both(inputs, cotangent):
        y, pull = jax.vjp(function, *inputs)
        return y, pull(cotangent.reshape(y.shape))

    shape = jax.eval_shape(function, *inputs).shape
    y, gradients = both(inputs, drawn(*shape, place=9))
    return measure(y), *map(size, gradients)


X, W = drawn(512, 64), drawn(96, 64)
TOKENS = jnp.asarray(RNG.integers(0, 64, (64, 64)))
Q, K, V = (drawn(BATCH, LENGTH, HEADS, D, place=place) for place in range(3))
UNIT = {
    "linear": lambda: sizes(lambda x, w: scaled.linear(x, w, mapped=1, constraint=None), X, W),
    "embedding": lambda: sizes(lambda w: scaled.embedding(w, TOKENS, mapped=1), drawn(64, 64)),
    "matmul": lambda: sizes(
        lambda x, y: scaled.matmul(x, y, constraint=None), drawn(4, 64, 32), drawn(4, 32, 96)
    ),
    "conv": lambda: sizes(
        lambda x, w: scaled.conv(x, w, mapped=1, stride=2, groups=2, constraint=None),
        drawn(8, 16, 65),
        drawn(32, 8, 4),
    ),
    "gated silu": lambda: sizes(scaled.gated_silu, drawn(128, 64), drawn(128, 64, place=1)),
    "softmax, mult 1/4": lambda: sizes(
        lambda x: scaled.softmax(x, 0.25, constraint=None), drawn(64, 128)
    ),
    "layer norm": lambda: sizes(
        lambda x, g: scaled.layer_norm(x, g, mapped=1), drawn(64, 1024), jnp.ones(1024)
    ),
    "rms norm": lambda: sizes(lambda x: scaled.rms_norm(x, mapped=1), X),
    "add": lambda: sizes(
        lambda x, y: scaled.add(x, y, constraint=None), X, drawn(512, 64, place=1)
    ),
    "dropout": lambda: sizes(
        lambda x: scaled.dropout(x, 0.3, key=jax.random.key(0)), drawn(256, 64)
    ),
    "residual": lambda: sizes(
        lambda x, w: scaled.residual_add(*_through(*scaled.residual_split(x, 0.4), w), 0.4),
        X,
        drawn(64, 64),
    ),
}


def _through(branch, skip, w):
    return scaled.linear(branch, w, mapped=1), skip


@pytest.mark.parametrize("name", UNIT)
def test_unit_inputs_give_units(name):
    np.testing.assert_allclose(UNIT[name](), 1, atol=0.1)


@pytest.mark.parametrize("mult", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_activations_deviate_by_one_and_have_a_mean(name, mult):
    function = getattr(scaled, name)
    found = sizes(lambda x: function(x, mult, constraint=None), drawn(256, 64), measure=deviation)
    np.testing.assert_allclose(found, 1, atol=0.1)


def test_exceptions_by_number():
    """What is of another size than one, and by how much."""
    gelu = sizes(lambda x: scaled.gelu(x, constraint=None), drawn(256, 64))
    assert abs(gelu[0] - 1.15) < 0.03  # The mean comes on top.
    softmax = sizes(lambda x: scaled.softmax(x, constraint=None), drawn(64, 4096))
    assert abs(softmax[0] - 0.72) < 0.04
    readout = sizes(lambda x, w: scaled.readout(x, w, mapped=1), X, W)
    np.testing.assert_allclose(readout, [64**-0.5, 1, 1], rtol=0.1)


@pytest.mark.parametrize("causal", [True, False])
def test_attention(causal):
    out, of_q, of_k, of_v = sizes(lambda *x: scaled.attention(*x, causal=causal), Q, K, V)
    np.testing.assert_allclose([out, of_v], 1, atol=0.1)
    np.testing.assert_allclose([of_q, of_k], D**-0.5, rtol=0.2)


def test_shared_heads_add_their_gradients():
    k, v = K[:, :, :1], V[:, :, :1]
    _, _, _, of_v = sizes(scaled.attention, Q, k, v)
    np.testing.assert_allclose(of_v, HEADS**0.5, rtol=0.1)


def test_constraint_makes_a_narrow_way_in_smaller():
    """The control: with one factor for both passes the gradient of the input is not of size one."""
    found = sizes(lambda x, w: scaled.linear(x, w, mapped=1), X, W)
    np.testing.assert_allclose(found, [1, (96 / 64) ** 0.5, 1], rtol=0.1)
    assert abs(found[1] - 1) > 0.1


def test_losses_have_their_value_and_unit_gradients():
    logits, target = drawn(256, 64) / 8, TOKENS.reshape(-1)[:256]
    loss = functools.partial(scaled.cross_entropy, target=target, mapped=1)
    value, gradient = jax.jit(jax.value_and_grad(loss))(logits)
    y = np.asarray(logits, np.float64)
    logs = y - np.log(np.exp(y).sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(value, -logs[np.arange(256), target].mean(), rtol=1e-6)
    assert abs(size(gradient) - 1) < 0.1
    # The multiplier is in the value alone.
    doubled = jax.grad(lambda y: loss(y, mult=2.0))(logits / 2)
    np.testing.assert_allclose(doubled, gradient, rtol=1e-4, atol=1e-5)
    x, other = drawn(64, 64), drawn(64, 64, place=1)
    square, of_both = jax.value_and_grad(lambda pair: scaled.mean_square(*pair, mapped=1))(
        (x, other)
    )
    np.testing.assert_allclose(square, np.mean((np.asarray(x) - np.asarray(other)) ** 2), rtol=1e-5)
    np.testing.assert_allclose([size(g) for g in of_both], 1, atol=0.1)


def test_attention_is_a_scaled_average():
    y = np.asarray(scaled.attention(Q, K, V, 2.0), np.float64)
    q, k, v = (np.asarray(x, np.float64) for x in (Q, K, V))
    logits = 2 / D * np.einsum("bqhd,bkhd->bhqk", q, k)
    weights = np.exp(logits) * np.tril(np.ones((LENGTH, LENGTH)))
    mixed = np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), v)
    factor = scaled.attention_factors(LENGTH, D, 2.0).output
    np.testing.assert_allclose(y, factor * mixed, rtol=2e-4, atol=2e-5)


def test_refusals():
    with pytest.raises(ValueError, match="4 query heads are not a multiple of 3"):
        scaled.attention(Q, K[:, :, :3], V[:, :, :3])
    with pytest.raises(ValueError, match=r"dropout is 0\.5 and there is no dropout_key"):
        scaled.attention(Q, K, V, dropout=0.5)
