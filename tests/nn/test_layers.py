"""Each layer against its formula in double precision."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx import Role, nn

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def assert_close(actual, expected):
    """For float64 and sums of at most 16 terms."""
    np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=1e-13)


def array(weight: sx.Weight) -> np.ndarray:
    return np.asarray(weight.value, np.float64)


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize("layer", [nn.Linear, nn.Readout])
@pytest.mark.parametrize("use_bias", [False, True])
def test_linear(layer, use_bias: bool, draw, x64):
    model = draw(lambda: layer(5, 3, use_bias=use_bias, key=KEY))
    x = RNG.normal(size=5)
    bias = array(model.bias) if use_bias else 0.0
    assert_close(model(jnp.asarray(x)), array(model.weight) @ x + bias)
    assert (model.bias is not None) == use_bias


def test_embedding(draw, x64):
    model = draw(lambda: nn.Embedding(5, 3, key=KEY))
    assert model(jnp.asarray(4)).tolist() == array(model.weight)[4].tolist()


def test_tied_readout_is_the_embedding_transposed(draw, x64):
    embedding, readout = draw(lambda: nn.Embedding(5, 4, key=KEY)), nn.TiedReadout(4)
    x = RNG.normal(size=4)
    expected = array(embedding.weight) @ x / 2
    assert_close(readout(jnp.asarray(x), embedding), expected)


@pytest.mark.parametrize("use_bias", [False, True])
def test_layer_norm(use_bias: bool, draw, x64):
    model = draw(lambda: nn.LayerNorm(6, use_bias=use_bias, eps=0.1))
    x = 3 + RNG.normal(size=6)
    bias = array(model.bias) if use_bias else 0.0
    expected = array(model.gain) * (x - np.mean(x)) / np.sqrt(np.var(x) + 0.1) + bias
    assert_close(model(jnp.asarray(x)), expected)


def test_rms_norm(draw, x64):
    model = draw(lambda: nn.RMSNorm(6, eps=0.1))
    x = 3 + RNG.normal(size=6)
    expected = array(model.gain) * x / np.sqrt(np.mean(x**2) + 0.1)
    assert_close(model(jnp.asarray(x)), expected)


def test_rms_norm_without_gain(x64):
    model, x = nn.RMSNorm(6, use_gain=False, eps=0.1), 3 + RNG.normal(size=6)
    assert sx.weights_with_paths(model) == {}
    assert_close(model(jnp.asarray(x)), x / np.sqrt(np.mean(x**2) + 0.1))


@pytest.mark.parametrize("use_gain", [False, True])
def test_head_norm(use_gain: bool, draw, x64):
    model = draw(lambda: nn.HeadNorm(3, 4, use_gain=use_gain, eps=0.1))
    x = 3 + RNG.normal(size=(3, 4))
    gain = array(model.gain) if use_gain else np.ones((3, 4))
    for head, row in enumerate(np.asarray(model(jnp.asarray(x)))):
        assert_close(row, gain[head] * x[head] / np.sqrt(np.mean(x[head] ** 2) + 0.1))


def test_norms_start_as_norms():
    x = jnp.arange(8.0)
    assert np.std(nn.LayerNorm(8)(x)) == pytest.approx(1, abs=1e-5)
    assert np.mean(np.square(nn.RMSNorm(8)(x))) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("use_bias", [False, True])
def test_mlp(use_bias: bool, draw, x64):
    model = draw(lambda: nn.MLP(4, 6, 3, use_bias=use_bias, key=KEY))
    x = RNG.normal(size=4)
    up, down = (array(b) if b is not None else 0.0 for b in (model.up.bias, model.down.bias))
    inner = gelu(array(model.up.weight) @ x + up)
    assert_close(model(jnp.asarray(x)), array(model.down.weight) @ inner + down)


def test_mlp_with_another_activation(draw, x64):
    model = draw(lambda: nn.MLP(4, 6, 3, activation=jnp.tanh, key=KEY))
    x = RNG.normal(size=4)
    expected = array(model.down.weight) @ np.tanh(array(model.up.weight) @ x)
    assert_close(model(jnp.asarray(x)), expected)


@pytest.mark.parametrize("use_bias", [False, True])
def test_gated_mlp(use_bias: bool, draw, x64):
    model = draw(lambda: nn.GatedMLP(4, 6, 3, use_bias=use_bias, key=KEY))
    x = RNG.normal(size=4)
    gate, up, down = (
        (array(layer.weight), array(layer.bias) if use_bias else 0.0)
        for layer in (model.gate, model.up, model.down)
    )
    gated = gate[0] @ x + gate[1]
    inner = gated / (1 + np.exp(-gated)) * (up[0] @ x + up[1])
    assert_close(model(jnp.asarray(x)), down[0] @ inner + down[1])


def test_gated_mlp_with_another_activation(draw, x64):
    model = draw(lambda: nn.GatedMLP(4, 6, 3, activation=jax.nn.gelu, key=KEY))
    x = RNG.normal(size=4)
    inner = gelu(array(model.gate.weight) @ x) * (array(model.up.weight) @ x)
    assert_close(model(jnp.asarray(x)), array(model.down.weight) @ inner)


# What a layer declares


def test_declared_laws():
    layers = {
        "linear": nn.Linear(9, 4, use_bias=True, key=KEY),
        "inner": nn.Linear(4, 9, use_bias=True, role=Role.hidden, key=KEY),
        "readout": nn.Readout(9, 4, key=KEY),
        "embedding": nn.Embedding(9, 4, key=KEY),
        "norm": nn.LayerNorm(4, use_bias=True),
        "heads": nn.HeadNorm(2, 4, use_gain=True),
    }
    declared = {
        path: (w.spec.fan_in, w.spec.fan_out, w.spec.std, w.spec.role)
        for path, w in sx.weights_with_paths(layers).items()
    }
    assert declared == {
        "linear/weight": ((-1,), (-2,), 1 / 3, None),
        "linear/bias": ((), (-1,), None, None),
        "inner/weight": ((-1,), (-2,), 1 / 2, Role.hidden),
        "readout/weight": ((-1,), (-2,), 1 / 3, Role.readout),
        "embedding/weight": ((-2,), (-1,), 1.0, Role.embedding),
        "norm/gain": ((), (-1,), None, None),
        "norm/bias": ((), (-1,), None, None),
        "inner/bias": ((), (-1,), None, Role.vector),
        "heads/gain": ((), (-2, -1), None, Role.vector),
    }


@pytest.mark.parametrize("layer", [nn.Linear, nn.Readout, nn.Embedding])
def test_the_declared_spread_is_that_of_the_draw(layer):
    """4.5 standard errors, 1 / sqrt(2 n), of 16384 entries."""
    weight = layer(256, 64, key=KEY).weight
    spread = np.sqrt(np.mean(array(weight) ** 2))
    assert spread == pytest.approx(weight.spec.std, rel=4.5 / np.sqrt(2 * 256 * 64))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_weights_and_outputs_have_the_dtype_asked_for(dtype: str):
    def run():
        x, index = jnp.ones(4, dtype), jnp.asarray(1)
        embedding = nn.Embedding(3, 4, dtype=dtype, key=KEY)
        layers = [
            (nn.Linear(4, 3, use_bias=True, dtype=dtype, key=KEY), x),
            (nn.Readout(4, 3, use_bias=True, dtype=dtype, key=KEY), x),
            (nn.MLP(4, 3, 4, use_bias=True, dtype=dtype, key=KEY), x),
            (nn.GatedMLP(4, 3, 4, use_bias=True, dtype=dtype, key=KEY), x),
            (nn.HeadNorm(2, 2, use_gain=True, dtype=dtype), x.reshape(2, 2)),
            (nn.LayerNorm(4, use_bias=True, dtype=dtype), x),
            (nn.RMSNorm(4, dtype=dtype), x),
            (embedding, index),
        ]
        outputs = [layer(argument) for layer, argument in layers]
        return layers, outputs, nn.TiedReadout(4)(x, embedding)

    shapes = jtu.tree_leaves(eqx.filter_eval_shape(run))
    found = {x.dtype for x in shapes if jnp.issubdtype(getattr(x, "dtype", int), jnp.floating)}
    assert found == {jnp.dtype(dtype)}


def test_the_default_dtype_is_that_of_jax(x64):
    assert nn.Linear(2, 2, key=KEY).weight.value.dtype == np.float64
    assert nn.LayerNorm(2).gain.value.dtype == np.float64


def test_a_scaled_layer_applies_its_multiplier(draw, x64):
    def make():
        return sx.parameterize(
            lambda width: nn.Linear(width, width, use_bias=True, key=KEY),
            width=16,
            base_width=4,
            parameterization=sx.ntk,
        )

    model = draw(make)
    x = RNG.normal(size=16)
    assert_close(model(jnp.asarray(x)), array(model.weight) @ x / 2 + array(model.bias))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Linear(0, 3, key=KEY), "in_features is 0; expected a positive integer"),
        (lambda: nn.Readout(3, -1, key=KEY), "out_features is -1"),
        (lambda: nn.Embedding(0, 3, key=KEY), "count is 0"),
        (lambda: nn.TiedReadout(0), "size is 0"),
        (lambda: nn.LayerNorm(0), "size is 0"),
        (lambda: nn.RMSNorm(-2), "size is -2"),
        (lambda: nn.HeadNorm(0, 4), "heads is 0"),
        (lambda: nn.GatedMLP(4, 0, 4, key=KEY), "out_features is 0"),
    ],
)
def test_a_size_below_one_is_refused(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()
