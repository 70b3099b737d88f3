"""A weight under a mask is the weight, also where a scan runs over layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx

X = jax.random.normal(jax.random.key(1), (6, 5))
DEPTH = 2


def make(width: int) -> dict:
    keys = jax.random.split(jax.random.key(0), 3)
    return {
        "i": jax.random.normal(keys[0], (DEPTH, width, 5)),
        "w": jax.random.normal(keys[1], (DEPTH, width, width)) / width**0.5,
        "o": jax.random.normal(keys[2], (DEPTH, 5, width)) / width,
        "mask": {"i": jnp.ones((width, 5), bool), "w": jnp.tri(width, dtype=bool)},
    }


def kept(model, name):
    return model["mask"][name][None]


def closed(model, name):
    """Of another dtype, and a constant of the program."""
    return np.tri(*model[name].shape[1:], dtype=np.float32)[None]


def computed(model, name):
    """By the program itself, from its shapes."""
    return jnp.tril(jnp.ones(model[name].shape[1:]))[None]


def selected(weight, mask):
    return jnp.where(mask.astype(bool), weight, 0)


def multiplied(weight, mask):
    return weight * mask.astype(weight.dtype)


def flow(model, masked):
    def layer(x, weights):
        first, second, last = weights
        return x + jnp.tanh(jnp.tanh(x @ first.T) @ second.T) @ last.T, None

    return jax.lax.scan(layer, X, (masked("i"), masked("w"), model["o"]))[0]


def specs(use) -> dict[str, sx.WeightSpec]:
    model = sx.parameterize(make, width=64, base_width=16, parameterization=sx.mup, use=use)
    return {path: weight.spec for path, weight in sx.weights_with_paths(model).items()}


@pytest.mark.parametrize("mask", [kept, closed, computed])
@pytest.mark.parametrize("apply", [selected, multiplied])
def test_a_masked_weight_is_what_it_was(mask, apply):
    found = specs(lambda model: flow(model, lambda name: apply(model[name], mask(model, name))))
    roles = {"i": sx.Role.embedding, "w": sx.Role.hidden, "o": sx.Role.readout}
    assert {name: spec.role for name, spec in found.items()} == roles
    assert {(spec.fan_out, spec.fan_in) for spec in found.values()} == {((-2,), (-1,))}


def test_truth_values_of_an_example_batch_are_data():
    """They don't grow with the width: what they choose is used entry by entry, and goes on."""
    batch = X > 0

    def gated(width):
        return {"g": jnp.ones((5, width)), "o": make(width)["o"][0]}

    def use(model):
        return jnp.where(batch[:, :, None], model["g"][None], 0).sum(1) @ model["o"].T

    model = sx.parameterize(gated, width=64, base_width=16, parameterization=sx.mup, use=use)
    assert model["g"].spec.role is sx.Role.vector
    assert model["o"].spec.role is sx.Role.readout
