"""The rules under optax's wrappers, and on trees that they must refuse."""

import functools
from typing import Any

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.optim._catalogue import catalogue

from .._statistics import with_statistics

KEY = jax.random.key(0)
REFUSED = r"bare/0, bare/1.*not completed: fresh/weight, fresh/bias"
RULES = {
    "adam": lambda: sx.adam(0.01),
    "adamw": lambda: sx.adamw(0.01, 0.001, decay_mode="independent"),
    "adamw coupled": lambda: sx.adamw(0.01, 0.1, decay_mode="coupled"),
    "adam_atan2": lambda: sx.optim.adam_atan2(0.01, weight_decay=0.001, decay_mode="independent"),
    "sgd": lambda: sx.optim.sgd(0.1),
    "momentum": lambda: sx.optim.sgd(
        0.05, momentum=0.9, weight_decay=0.001, decay_mode="independent"
    ),
    "learned": lambda: sx.learned(0.01),
    "lion": lambda: sx.optim.lion(0.01),
    "micro_adam": lambda: with_statistics(sx.micro_adam(0.01)),
    "muon": lambda: sx.muon(0.01),
    "sign_ema": lambda: sx.sign_ema(0.01),
    "sign_sgd": lambda: sx.optim.sign_sgd(0.01),
    "adafactor": lambda: sx.optim.adafactor(0.05),
    "adafactor factored": lambda: sx.optim.adafactor(0.05, min_factored_size=2),
    "adam_parameter_scaling": lambda: sx.optim.adam_parameter_scaling(0.05),
}
NUMBERS: dict[str, tuple[Any, dict[str, float]]] = {
    "adam": (sx.adam, {"eps": 1e-3}),
    "adam_atan2": (
        functools.partial(sx.optim.adam_atan2, decay_mode="coupled"),
        {"weight_decay": 0.1, "b": 0.5},
    ),
    "sgd": (sx.optim.sgd, {"momentum": 0.8}),
    "lion": (sx.optim.lion, {"b1": 0.8}),
    "sign_sgd": (
        functools.partial(sx.optim.sign_sgd, decay_mode="coupled"),
        {"weight_decay": 0.1},
    ),
    "adam_parameter_scaling": (sx.optim.adam_parameter_scaling, {"floor": 0.1}),
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


def test_every_optimizer_is_among_them():
    assert set(catalogue) <= set(RULES)


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


@pytest.mark.parametrize("name", NUMBERS)
def test_injected_hyperparameters(params, name: str):
    """They are arrays then, decay rates included."""
    make, numbers = NUMBERS[name]
    tx: Any = optax.inject_hyperparams(make)(learning_rate=0.01, **numbers)
    assert_close(train(tx, params), train(make(0.01, **numbers), params))
    state = tx.init(params)
    assert {"learning_rate", *numbers} <= set(state.hyperparams)
    state.hyperparams["learning_rate"] = jnp.asarray(0.5)
    updates, _ = tx.update(gradients(params, 0), state, params)
    other = make(jnp.asarray(0.5), **{k: jnp.asarray(v) for k, v in numbers.items()})
    expected, _ = other.update(gradients(params, 0), other.init(params), params)
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
        sx.optim.scale_by_adam_atan2(),
        sx.optim.scale_by_momentum(),
        sx.optim.scale_by_gradient(),
        sx.optim.scale_by_lion(),
        sx.optim.scale_by_sign(),
        sx.optim.scale_by_factored_rms(),
        sx.optim.scale_by_parameter_rms(),
        sx.optim.clip_by_rms(1.0),
        sx.optim.clip_by_effective_norm(1.0),
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


def states(tree) -> list[Any]:
    """The parts of an optimizer's state that carry a rule."""

    def has_rule(node):
        return hasattr(node, "rule")

    return [n for n in jtu.tree_leaves(tree, is_leaf=has_rule) if has_rule(n)]


def test_a_state_has_the_nodes_of_its_model(rule, params):
    """Each field with units has the weights, with their laws, in their places."""
    for state in states(rule().init(params)):
        for name, _ in state.rule.fields:
            specs = [w.spec for w in jtu.tree_leaves(getattr(state, name), is_leaf=is_weight)]
            assert specs == [w.spec for w in jtu.tree_leaves(params, is_leaf=is_weight)]


def is_weight(node) -> bool:
    return isinstance(node, sx.Weight)


def test_the_fields_have_the_degrees_that_they_say(rule, params):
    """Gradients and weights in other units: what is remembered follows them."""
    before = rule().init(params)
    small, large = 2.0**-3, 2.0**5

    def after(gradient_unit, weight_unit):
        grads = jax.tree.map(lambda g: g * gradient_unit, gradients(params, 0))
        weights = jax.tree.map(lambda w: w * weight_unit, params)
        return states(rule().update(grads, before, weights)[1])

    normalised = False
    for state, scaled in zip(after(1.0, 1.0), after(small, large), strict=True):
        for name, degree in state.rule.fields:
            unit = 1.0 if normalised else small**degree.update * large**degree.weight
            for x, y in zip(
                jtu.tree_leaves(getattr(state, name)),
                jtu.tree_leaves(getattr(scaled, name)),
                strict=True,
            ):
                np.testing.assert_allclose(y, x * unit, rtol=1e-5)
                assert np.any(np.asarray(x) != 0)
        # Other roles' gradients are handed on as they came.
        normalised = normalised or (state.rule.output.update == 0 and state.rule.roles is None)


def test_a_buffer_has_no_state_and_does_not_change(rule, params, weight):
    with_buffer = params | {"table": weight([[1.0, 2.0]], "buffer")}
    grads = gradients(with_buffer, 0)
    state = rule().init(with_buffer)
    for part in states(state):
        for name, _ in part.rule.fields:
            assert getattr(part, name)["table"].value is None
    updates, after = rule().update(grads, state, with_buffer)
    # Whatever comes in: resolved models give zero, but this gradient isn't.
    np.testing.assert_array_equal(updates.pop("table").value, 0)
    grads.pop("table")
    assert jtu.tree_structure(after) == jtu.tree_structure(state)
    alone, _ = rule().update(grads, rule().init(params), params)
    assert_close(updates, alone)


@chex.assert_max_traces(n=1)
def _traced_once(learning_rate, params, grads, make):
    tx = make(learning_rate)
    return tx.update(grads, tx.init(params), params)[0]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_learning_rate_does_not_compile_again(params, name: str):
    chex.clear_trace_counter()
    make = NUMBERS[name][0]
    step = jax.jit(_traced_once, static_argnames="make")
    one, two = (step(jnp.asarray(r), params, gradients(params, 0), make=make) for r in (0.1, 0.2))
    assert_close(jax.tree.map(lambda u: 2 * u, one), two)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_updates_have_the_dtype_of_their_gradients(rule, weight, dtype: str, x64):
    params = {"w": weight(np.ones((2, 2)), dtype=dtype), "b": weight(np.ones(2), "vector")}
    tx = rule()
    state, step = tx.init(params), jax.jit(tx.update)
    for seed in range(2):
        grads = gradients(params, seed)
        updates, after = step(grads, state, params)
        assert [u.dtype for u in jtu.tree_leaves(updates)] == [
            g.dtype for g in jtu.tree_leaves(grads)
        ]
        chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
        state = after


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
