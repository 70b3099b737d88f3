"""The rules under optax's wrappers, and on trees that they must refuse."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optax
import pytest

import scalex_eqx as sx

KEY = jax.random.key(0)
REFUSED = r"bare/0, bare/1.*not completed: fresh/weight, fresh/bias"
RULES = {
    "adam": lambda: sx.adam(0.01),
    "adamw": lambda: sx.adamw(0.01, 0.001),
    "adamw coupled": lambda: sx.adamw(0.01, 0.1, decay_mode="coupled"),
}


@pytest.fixture
def params(weight):
    return {
        "w": weight([[1.0, 2.0], [3.0, 4.0]]),
        "out": weight([[1.0, -1.0]], "readout"),
        "bias": weight([0.5, -0.5], "vector"),
    }


def gradients(params, seed: int):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), params)


def train(tx: Any, params: Any, steps: int = 3) -> Any:
    state = tx.init(params)
    step = jax.jit(tx.update)
    for seed in range(steps):
        updates, state = step(gradients(params, seed), state, params)
        params = optax.apply_updates(params, updates)
    return params


def assert_close(tree, other):
    assert jtu.tree_structure(tree) == jtu.tree_structure(other)
    for a, b in zip(jtu.tree_leaves(tree), jtu.tree_leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.fixture(params=RULES)
def rule(request) -> Any:
    return RULES[request.param]


def test_multi_steps_averages_gradients(rule, params):
    every_two = optax.MultiSteps(rule(), every_k_schedule=2)
    with jax.numpy_dtype_promotion("standard"):
        accumulated = train(every_two, params, steps=2)
    tx = rule()
    mean = jax.tree.map(lambda a, b: (a + b) / 2, gradients(params, 0), gradients(params, 1))
    updates, _ = tx.update(mean, tx.init(params), params)
    assert_close(accumulated, optax.apply_updates(params, updates))


def test_injected_hyperparameters(params):
    tx: Any = optax.inject_hyperparams(sx.adam)(learning_rate=0.01, eps=1e-3)
    assert_close(train(tx, params), train(sx.adam(0.01, eps=1e-3), params))
    state = tx.init(params)
    assert {"learning_rate", "b1", "b2", "eps"} <= set(state.hyperparams)
    state.hyperparams["learning_rate"] = jnp.asarray(0.5)
    updates, _ = tx.update(gradients(params, 0), state, params)
    expected, _ = sx.adam(0.5, eps=1e-3).update(gradients(params, 0), state.inner_state)
    assert_close(updates, expected)


def test_injected_schedule(params):
    schedule = optax.linear_schedule(0.1, 0.0, 4)
    tx = optax.inject_hyperparams(sx.adam)(learning_rate=schedule)
    assert_close(train(tx, params), train(sx.adam(schedule), params))


@pytest.mark.parametrize(
    "mask",
    [
        lambda p: {"w": True, "out": True, "bias": False},
        lambda p: sx.map_weights(lambda w: sx.Weight(w.spec.role != "vector", w.spec), p),
    ],
)
def test_masked(rule, params, mask):
    trained = train(optax.masked(rule(), mask(params)), params, steps=1)
    alone = train(rule(), params, steps=1)
    assert_close(trained | {"bias": alone["bias"]}, alone)
    # What is masked out is passed on as it is: the gradient itself.
    assert_close(
        trained["bias"], jax.tree.map(jnp.add, params["bias"], gradients(params, 0)["bias"])
    )


def test_apply_if_finite(rule, params):
    tx: Any = optax.apply_if_finite(rule(), max_consecutive_errors=3)
    bad = jax.tree.map(lambda x: x * jnp.inf, gradients(params, 0))
    updates, state = tx.update(bad, tx.init(params), params)
    assert all(np.all(np.asarray(x) == 0) for x in jtu.tree_leaves(updates))
    updates, _ = tx.update(gradients(params, 1), state, params)
    plain = rule()
    expected, _ = plain.update(gradients(params, 1), plain.init(params), params)
    assert_close(updates, expected)


def test_clipping_by_the_global_norm(rule, params):
    tx: Any = optax.chain(optax.clip_by_global_norm(1.0), rule())
    norm = np.sqrt(sum(np.sum(np.square(x)) for x in jtu.tree_leaves(gradients(params, 0))))
    assert norm > 1
    updates, _ = tx.update(gradients(params, 0), tx.init(params), params)
    clipped = jax.tree.map(lambda x: x / jnp.float32(norm), gradients(params, 0))
    plain = rule()
    expected, _ = plain.update(clipped, plain.init(params), params)
    assert_close(updates, expected)


def test_a_filtered_model(rule, params):
    """Static parts and arrays that are taken out stay out."""
    model = {"weights": params, "activation": jax.nn.relu}
    trained = train(rule(), eqx.filter(model, eqx.is_inexact_array))
    assert_close(trained["weights"], train(rule(), params))
    half, _ = eqx.partition(params, {"w": True, "out": True, "bias": False})
    assert jtu.tree_leaves(train(rule(), half)["bias"]) == []


def test_trees_without_a_law_are_refused_with_every_path(rule, params):
    fresh = sx.nn.Linear(2, 2, use_bias=True, key=KEY)
    tree = params | {"fresh": fresh, "bare": [jnp.ones(2), jnp.ones(1)]}
    with pytest.raises(ValueError, match=REFUSED):
        rule().init(tree)
    state = rule().init(params)
    with pytest.raises(ValueError, match=REFUSED):
        rule().update(tree, state, tree)


@pytest.mark.parametrize(
    "tx",
    [
        sx.scale_by_adam(),
        sx.scale_by_width("adam", sx.global_rate),
        sx.optim.add_weight_decay(0.1),
    ],
)
def test_each_part_refuses_bare_arrays(tx: Any, params):
    bare = jax.tree.map(jnp.ones_like, [1.0, 2.0])
    with pytest.raises(ValueError, match=r"arrays without a scaling law: 0, 1\. Make each"):
        tx.init(bare)
    with pytest.raises(ValueError, match="arrays without a scaling law: 0, 1"):
        tx.update(bare, tx.init(params), bare)


def test_stacked_and_unstacked_weights_get_equal_updates(rule, weight):
    layers = [weight(np.full((2, 2), float(i))) for i in range(3)]
    stacked = jtu.tree_map(lambda *xs: jnp.stack(xs), *layers)

    def moved(params, grads):
        tx = rule()
        _, state = tx.update(grads, tx.init(params), params)
        updates, _ = tx.update(params, state, params)
        return optax.apply_updates(params, updates)

    grads = [gradients(layer, seed) for seed, layer in enumerate(layers)]
    together = moved(stacked, jtu.tree_map(lambda *xs: jnp.stack(xs), *grads))
    alone = [moved(layer, grad) for layer, grad in zip(layers, grads, strict=True)]
    assert_close(together, jtu.tree_map(lambda *xs: jnp.stack(xs), *alone))


def test_a_state_has_the_nodes_of_its_model(rule, params):
    state = rule().init(params)[0]
    for moment in (state.mu, state.nu):
        assert jtu.tree_structure(moment) == jtu.tree_structure(params)


def test_training_a_model(rule):
    """A real model and loss: they go down."""

    def make(width: int):
        first, second = jax.random.split(KEY)
        return [sx.nn.Linear(2, width, key=first), sx.nn.Readout(width, 1, key=second)]

    def loss(model, x):
        return jnp.mean(jnp.square(model[1](jnp.tanh(model[0](x))) - 1.0))

    model = sx.parameterize(make, width=16, base_width=4, parameterization=sx.mup)
    tx, x = rule(), jnp.ones(2)
    state = tx.init(model)

    @jax.jit
    def step(model, state):
        value, grads = jax.value_and_grad(loss)(model, x)
        updates, state = tx.update(grads, state, model)
        return value, optax.apply_updates(model, updates), state

    losses = []
    for _ in range(60):
        value, model, state = step(model, state)
        losses.append(float(value))
    assert losses[-1] < 0.5 * losses[0]
