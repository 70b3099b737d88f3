"""The layers beside Equinox's own and plain functions, resolved or not."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx import nn

KEYS = jax.random.split(jax.random.key(0), 4)
X = jnp.asarray([1.0, -2.0, 0.5])


def sequential(width: int) -> eqx.nn.Sequential:
    return eqx.nn.Sequential(
        [
            nn.Linear(3, width, use_bias=True, key=KEYS[0]),
            eqx.nn.Lambda(jax.nn.relu),
            nn.MLP(width, width, width, key=KEYS[1]),
            nn.RMSNorm(width),
            eqx.nn.Dropout(0.5, inference=True),
            eqx.nn.Identity(),
            nn.Readout(width, 2, key=KEYS[2]),
        ]
    )


def model(width: int = 8) -> eqx.nn.Sequential:
    return sx.parameterize(sequential, width=width, base_width=4, parameterization=sx.mean_field)


def by_hand(model: eqx.nn.Sequential) -> np.ndarray:
    """Ratio 2 and mean field: hidden multiplier 2^-1/2, readout multiplier 1/2."""

    def value(weight) -> np.ndarray:
        return np.asarray(weight.value, np.float64)

    first, _, mlp, _, _, _, readout = model.layers
    x = np.maximum(value(first.weight) @ np.asarray(X) + value(first.bias), 0)
    inner = 2**-0.5 * value(mlp.up.weight) @ x
    inner = 0.5 * inner * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
    x = 2**-0.5 * value(mlp.down.weight) @ inner
    x = x / np.sqrt(np.mean(x**2) + 1e-6)
    return 0.5 * value(readout.weight) @ x


@pytest.mark.parametrize("prepare", [lambda model: model, sx.resolve])
def test_in_a_sequential(prepare):
    np.testing.assert_allclose(prepare(model())(X), by_hand(model()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prepare", [lambda model: model, sx.resolve])
def test_in_plain_functions_and_containers(prepare):
    def make(width: int):
        return {"in": nn.Linear(3, width, key=KEYS[0]), "out": [nn.Readout(width, 2, key=KEYS[1])]}

    def forward(layers, x):
        return layers["out"][0](jnp.tanh(layers["in"](x)))

    layers = sx.parameterize(make, width=8, base_width=4, parameterization=sx.mup)
    # muP at ratio 2: the embedding's multiplier is 2^1/2, the readout's 2^-1/2.
    first, second = (
        np.asarray(layer.weight.value, np.float64) for layer in (layers["in"], layers["out"][0])
    )
    expected = 2**-0.5 * second @ np.tanh(2**0.5 * first @ np.asarray(X))
    np.testing.assert_allclose(forward(prepare(layers), X), expected, rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_the_weights_either_way():
    def loss(model):
        return jnp.sum(jnp.square(model(X)))

    direct = eqx.filter_grad(loss)(model())
    through = eqx.filter_grad(lambda model: loss(sx.resolve(model)))(model())
    assert jtu.tree_structure(direct) == jtu.tree_structure(through)
    assert len(sx.weights_with_paths(direct)) == 6
    for a, b in zip(jtu.tree_leaves(direct), jtu.tree_leaves(through), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_equinox_layers_in_a_model_are_scaled_with_it():
    def make(width: int):
        return [sequential(width), eqx.nn.Linear(width, 2, key=KEYS[3])]

    own, equinox = sx.parameterize(make, width=8, base_width=4, parameterization=sx.mup)
    assert equinox.weight.spec.role is own.layers[-1].weight.spec.role is sx.Role.readout


def test_a_tied_readout_beside_its_embedding():
    class Model(eqx.Module):
        embedding: nn.Embedding
        readout: nn.TiedReadout

        def __init__(self, width: int):
            self.embedding = nn.Embedding(5, width, key=KEYS[0])
            self.readout = nn.TiedReadout(width)

        def __call__(self, token):
            return self.readout(self.embedding(token), self.embedding)

    model = sx.parameterize(Model, width=36, base_width=4, parameterization=sx.mup)
    table = np.asarray(model.embedding.weight.value, np.float64)
    # muP at r = 9: the embedding's multiplier is 3 in each of its two uses, and the tie's factor
    # goes from 1 / sqrt(4) to 1 / 9 of that.
    expected = (3 * table) @ (3 * table[2]) / 18
    np.testing.assert_allclose(model(jnp.asarray(2)), expected, rtol=1e-5)
    assert list(sx.weights_with_paths(model)) == ["embedding/weight"]


def test_a_tie_on_its_own_is_a_node_without_arrays():
    readout = nn.TiedReadout(4)
    assert jtu.tree_leaves(readout) == []
    assert jtu.tree_structure(readout) == jtu.tree_structure(nn.TiedReadout(4))
    assert jtu.tree_structure(readout) != jtu.tree_structure(nn.TiedReadout(9))
