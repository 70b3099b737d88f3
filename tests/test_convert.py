"""Training goes on along the same trajectory in an equivalent parameterization.

In float64 a model of three times the base width is trained, converted in mid-run, and trained on;
its losses are held against those of the run that was not converted. They are of order one, have
come out equal to a few 1e-15, and what breaks the equivalence moves them by more than 1e-6, so
the bound of 1e-12 decides nothing.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.optim._catalogue import catalogue

from ._statistics import with_statistics
from .scaling._measure import FAST_COMPILE

BASE_WIDTH, WIDTH = 8, 24
VOCABULARY, SEQUENCE, BATCH = 11, 6, 4
CHUNK = 10
BEFORE, AFTER = CHUNK, 5 * CHUNK
TOLERANCE = 1e-12
RATE = 2.0**-6

RULES: dict[str, Any] = {
    "adam": lambda: sx.adam(RATE, eps=1e-4),
    "adam, no eps": lambda: sx.adam(RATE, eps=0.0),
    "adamw": lambda: sx.adamw(RATE, 0.01, decay_mode="independent", eps=1e-4),
    "adam of no alignment": lambda: sx.adam(RATE, sx.no_alignment),
    "adam, clipped": lambda: optax.chain(sx.clip_by_effective_norm(0.1), sx.adam(RATE)),
    "adam_atan2": lambda: sx.adam_atan2(RATE),
    "sgd": lambda: sx.sgd(0.05),
    "sgd with momentum": lambda: sx.sgd(0.02, momentum=0.9),
    "sgd with Nesterov momentum, clipped": lambda: optax.chain(
        sx.clip_by_effective_norm(0.1), sx.sgd(0.1, momentum=0.9, nesterov=True)
    ),
    "learned": lambda: sx.learned(2.0**-7),
    "lion": lambda: sx.lion(2.0**-9),
    "micro_adam": lambda: with_statistics(sx.micro_adam(RATE, eps=1e-4)),
    "muon": lambda: sx.muon(2.0**-9),
    "sign_ema": lambda: sx.sign_ema(2.0**-9),
    "adafactor": lambda: sx.adafactor(0.01, min_factored_size=4),
    "adafactor, one rate": lambda: sx.adafactor(0.01, sx.global_rate, min_factored_size=4),
    "adam_parameter_scaling": lambda: sx.adam_parameter_scaling(0.01),
    "MultiSteps": lambda: optax.MultiSteps(
        sx.adam(RATE), every_k_schedule=3, accumulator_dtype=jnp.float64
    ),
    "inject_hyperparams": lambda: optax.inject_hyperparams(sx.adam)(RATE),
}
CLASSES = [(sx.standard, sx.ntk), (sx.mean_field, sx.mup)]
# Both for a rule of each family; others go through the same code, and take one of the two in turn.
CASES = [
    (rule, *pair)
    for i, rule in enumerate(RULES)
    for j, pair in enumerate(CLASSES)
    if rule in ("adam", "sgd with momentum", "adafactor", "muon") or i % 2 == j
]

BREAKING: dict[str, tuple[Any, str]] = {
    "one learning rate": (lambda: sx.adam(RATE, sx.global_rate), "learning rates do not follow"),
    "exponents by hand": (
        lambda: sx.adam(RATE, dict.fromkeys(sx.Role, "1/2")),
        "learning rates do not follow",
    ),
    "no learning rates": (
        lambda: optax.chain(sx.scale_by_adam(), sx.optim.scale_by_learning_rate(RATE)),
        "learning rates do not follow",
    ),
    "constant epsilon": (
        lambda: sx.adam(RATE, eps=1e-4, eps_scaling="constant"),
        r"state\[0\]: eps of scale_by_adam",
    ),
    "coupled decay": (
        lambda: sx.adamw(RATE, 0.1, decay_mode="coupled"),
        r"state\[1\]: weight_decay of add_weight_decay",
    ),
    "Adafactor's constant epsilon": (
        lambda: sx.adafactor(0.01, eps=1e-8, eps_scaling="constant"),
        "eps of scale_by_",
    ),
    "Adafactor's constant floor": (
        lambda: sx.adafactor(0.01, floor_scaling="constant"),
        "floor of scale_by_",
    ),
    "a global-norm clip": (
        lambda: optax.chain(optax.clip_by_global_norm(1.0), sx.adam(RATE)),
        r"state\[0\] is a EmptyState",
    ),
    "a mask of which nothing is known": (
        lambda: optax.masked(sx.sgd(0.1), lambda p: jax.tree.map(lambda _: True, p)),
        "state masks weights",
    ),
    "a foreign rule": (
        lambda: optax.chain(
            optax.scale_by_adam(), sx.scale_by_width("adam", sx.full_alignment), optax.scale(-RATE)
        ),
        r"state\[0\] is a ScaleByAdamState",
    ),
}


def test_every_optimizer_is_among_them():
    # A sign has no state and no number that could change with the parameterization.
    assert set(catalogue) - set(RULES) == {"sign_sgd"}


@pytest.mark.parametrize(
    ("rule", "one", "other"), CASES, ids=lambda x: x if isinstance(x, str) else x.name
)
def test_training_goes_on_along_the_same_trajectory(x64, rule, one, other):
    tx = RULES[rule]()
    model, state = start(tx, one)
    before, model, state = train(tx, model, state, 0, BEFORE)
    straight, _, _ = train(tx, model, state, BEFORE, AFTER)
    converted = sx.convert(model, state, to=other, tx=tx)
    turned, final, _ = train(tx, *converted, BEFORE, AFTER)
    assert np.ptp(np.concatenate([before, straight])) > 0.05
    assert np.abs(straight - turned).max() < TOLERANCE
    assert {w.spec.parameterization for w in weights(final)} == {other}


@pytest.mark.parametrize("rule", BREAKING)
def test_what_is_no_equivalence_is_refused_by_name(x64, rule):
    make, message = BREAKING[rule]
    tx = make()
    model, state = start(tx, sx.standard)
    with pytest.raises(ValueError, match=message):
        sx.convert(model, state, to=sx.ntk, tx=tx)


def test_what_is_refused_would_have_gone_elsewhere(x64):
    """The refusals above are needed: one that is let through by force moves the losses."""
    scaled, constant = (
        sx.adam(RATE, eps=1e-4, eps_scaling=scaling) for scaling in ("gradient", "constant")
    )
    model, state = start(constant, sx.standard)
    _, model, state = train(constant, model, state, 0, BEFORE)
    straight, _, _ = train(constant, model, state, BEFORE, AFTER)
    forced, _, _ = train(constant, *sx.convert(model, state, to=sx.ntk, tx=scaled), BEFORE, AFTER)
    assert np.abs(straight - forced).max() > 1e-6


def test_there_and_back(x64):
    tx = sx.adam(RATE)
    model, state = start(tx, sx.standard)
    _, model, state = train(tx, model, state, 0, BEFORE)
    there = sx.convert(model, state, to=sx.ntk, tx=tx)
    back = sx.convert(*there, to=sx.standard, tx=tx)
    assert jax.tree.structure(back) == jax.tree.structure((model, state))
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves((model, state)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-15)


@pytest.mark.parametrize("tied", [False, True])
def test_a_converted_model_has_the_tree_of_a_fresh_one(x64, tied):
    tx = sx.adam(RATE)
    model, state = start(tx, sx.standard, tied=tied)
    converted = sx.convert(model, state, to=sx.ntk, tx=tx)
    fresh = start(tx, sx.ntk, tied=tied)
    assert jax.tree.structure(converted) == jax.tree.structure(fresh)
    for a, b in zip(jax.tree.leaves(converted), jax.tree.leaves(fresh), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)


@pytest.mark.parametrize("other", [sx.ntk, sx.mup, sx.mean_field], ids=lambda p: p.name)
def test_tied_models_are_one_class(x64, other):
    tx = sx.adam(RATE)
    model, state = start(tx, sx.standard, tied=True)
    _, model, state = train(tx, model, state, 0, BEFORE)
    straight, _, _ = train(tx, model, state, BEFORE, AFTER)
    turned, _, _ = train(tx, *sx.convert(model, state, to=other, tx=tx), BEFORE, AFTER)
    assert np.abs(straight - turned).max() < TOLERANCE


def test_an_embedding_that_is_tied_through_equinox(x64):
    class Model(eqx.Module):
        shared: eqx.nn.Shared

        def __init__(self, width):
            embedding = eqx.nn.Embedding(5, width, key=jax.random.key(0), dtype=jnp.float64)
            readout = eqx.nn.Linear(
                width, 5, use_bias=False, key=jax.random.key(1), dtype=jnp.float64
            )
            self.shared = eqx.nn.Shared(
                (embedding, readout), lambda pair: pair[1].weight, lambda pair: pair[0].weight
            )

        def __call__(self, token):
            embedding, readout = self.shared()
            return readout(jnp.tanh(embedding(token)))

    model = sx.parameterize(Model, width=WIDTH, base_width=BASE_WIDTH, parameterization=sx.standard)
    tx = sx.adam(RATE)
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))
    converted, _ = sx.convert(model, state, to=sx.mup, tx=tx)
    fresh = sx.parameterize(Model, width=WIDTH, base_width=BASE_WIDTH, parameterization=sx.mup)
    outputs = [sx.resolve(m)(jnp.asarray(2)) for m in (model, converted, fresh)]
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-14)
    np.testing.assert_allclose(outputs[2], outputs[0], rtol=1e-14)


def test_partition_is_followed(x64):
    tx = optax.partition(
        {"matrix": sx.adam(RATE), "vector": sx.sgd(0.1, momentum=0.9)},
        lambda params: sx.map_weights(
            lambda w: sx.Weight("vector" if w.spec.role == "vector" else "matrix", w.spec), params
        ),
    )
    model, state = start(tx, sx.standard)
    _, model, state = train(tx, model, state, 0, BEFORE)
    straight, _, _ = train(tx, model, state, BEFORE, AFTER)
    turned, _, _ = train(tx, *sx.convert(model, state, to=sx.ntk, tx=tx), BEFORE, AFTER)
    assert np.abs(straight - turned).max() < TOLERANCE


def test_other_classes_are_refused():
    tx = sx.adam(RATE)
    with pytest.raises(ValueError, match="readout"):
        sx.convert(*start(tx, sx.standard), to=sx.mup, tx=tx)


def test_a_state_of_another_optimizer_is_refused():
    model, _ = start(sx.adam(RATE), sx.standard)
    _, state = start(sx.sgd(RATE, momentum=0.9), sx.standard)
    with pytest.raises(ValueError, match="not a state of tx"):
        sx.convert(model, state, to=sx.ntk, tx=sx.adam(RATE))


def test_a_user_made_parameterization(x64):
    shifted = sx.theory.shift(sx.mup, sx.LayerExponents("1/3", "-1/4", "2/3"))
    tx = sx.adam(RATE)
    model, state = start(tx, sx.mup)
    straight, _, _ = train(tx, model, state, 0, AFTER)
    turned, _, _ = train(tx, *sx.convert(model, state, to=shifted, tx=tx), 0, AFTER)
    assert np.abs(straight - turned).max() < TOLERANCE


def test_folding_all_multipliers_exports_plain_arrays(x64):
    """`resolve` gives the original module; its outputs are the trained model's."""
    tx = sx.adam(RATE)
    make = functools.partial(eqx.nn.MLP, 3, 2, depth=2, key=jax.random.key(0), dtype=jnp.float64)
    model = sx.parameterize(make, width=WIDTH, base_width=BASE_WIDTH, parameterization=sx.ntk)
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))
    converted, _ = sx.convert(model, state, to=sx.standard, tx=tx)
    exported, folded = sx.resolve(model), sx.resolve(converted)
    x = jnp.arange(3.0, dtype=jnp.float64)
    assert jax.tree.structure(exported) == jax.tree.structure(make(WIDTH))
    np.testing.assert_allclose(exported(x), folded(x), rtol=1e-14)


def weights(model) -> list[sx.Weight]:
    return list(sx.weights_with_paths(model).values())


def start(tx: Any, parameterization: sx.Parameterization, *, tied: bool = False) -> Any:
    model = sx.parameterize(
        functools.partial(transformer, tied=tied),
        width=WIDTH,
        base_width=BASE_WIDTH,
        parameterization=parameterization,
    )
    return model, tx.init(eqx.filter(model, eqx.is_inexact_array))


def transformer(width: int, *, tied: bool) -> sx.nn.Transformer:
    return sx.nn.Transformer(
        vocabulary_size=VOCABULARY,
        sequence_length=SEQUENCE,
        width=width,
        depth=1,
        head_dimension=8,
        tied=tied,
        dtype=jnp.result_type(float),
        key=jax.random.key(0),
    )


def train(tx: Any, model: Any, state: Any, first: int, steps: int) -> Any:
    """The losses of the steps, each on a batch of its own, then the model and the state."""
    shape = (BEFORE + AFTER, BATCH, SEQUENCE + 1)
    batches = jax.random.randint(jax.random.key(1), shape, 0, VOCABULARY)
    losses = []
    for i in range(first, first + steps, CHUNK):
        model, state, found = compiled(tx)(model, state, batches[i : i + CHUNK])
        losses.append(found)
    return np.concatenate(losses), model, state


@functools.cache
def compiled(tx: Any) -> Any:
    """CHUNK steps; all runs of a parameterization go through one compiled function."""

    def chunk(model, state, batches):
        params, static = eqx.partition(model, eqx.is_inexact_array)

        def loss(params, batch):
            logits = eqx.combine(params, static)(batch[:, :-1])
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:]).mean()

        def step(carry, batch):
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, batch)
            with jax.numpy_dtype_promotion("standard"):  # Optax's wrappers need it.
                updates, state = tx.update(gradient, state, params)
            return (eqx.apply_updates(params, updates), state), value

        (params, state), losses = jax.lax.scan(step, (params, state), batches)
        return eqx.combine(params, static), state, losses

    return eqx.filter_jit(chunk, compiler_options=FAST_COMPILE)  # pyright: ignore
