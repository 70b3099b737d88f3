"""A law as traced numbers trains as the law itself does."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.experiments import parse_recipe
from scalex_eqx.experiments._program import build, run_numbers
from scalex_eqx.experiments._schedule import Schedule
from scalex_eqx.optim._catalogue import catalogue
from scalex_eqx.problems import Problem

WIDTH, BASE, STEPS = 24, 8, 4
SIZES, BASES = {"width": WIDTH}, {"width": BASE}
ARGUMENTS = {
    # Epsilons that are felt.
    "adam": ["eps=0.01", "eps=0.01,eps_scaling='constant'"],
    "adamw": [
        "eps=0.01,weight_decay=0.1,decay_schedule='rate'",
        "eps=0.01,weight_decay=0.1,decay_mode='coupled'",
    ],
    "micro_adam": ["eps=0.01,second='variance'"],
    "adam_parameter_scaling": ["eps=0.01,floor=1.0", "floor=1.0,floor_scaling='constant'"],
    "adafactor": ["eps=0.01,floor=1.0,min_factored_size=8"],
    "sgd": ["", "weight_decay=0.1,decay_mode='cautious_coupled'"],
}
OPTIMIZERS = [
    f"{name}({arguments})" for name in catalogue for arguments in ARGUMENTS.get(name, [""])
]
LAWS = ("standard", "ntk", "mup", "mean_field")


class Model(eqx.Module):
    """Declared and foreign weights, a bias, a gain, and a table."""

    table: sx.nn.Embedding
    first: eqx.nn.Linear
    norm: sx.nn.LayerNorm
    hidden: sx.nn.Linear
    readout: sx.nn.Readout
    sign: jax.Array

    def __init__(self, width, key):
        keys = jax.random.split(key, 4)
        self.table = sx.nn.Embedding(5, width, key=keys[0])
        self.first = eqx.nn.Linear(3, width, key=keys[1])
        self.norm = sx.nn.LayerNorm(width)
        self.hidden = sx.nn.Linear(width, width, key=keys[2])
        self.readout = sx.nn.Readout(width, 2, key=keys[3])
        self.sign = jnp.array(1)

    def __call__(self, x, token):
        x = jnp.tanh(self.first(x) + self.table(token))
        return self.readout(jnp.tanh(self.hidden(self.norm(x)))) * self.sign.astype(x.dtype)


def loss(model, batch):
    x, token, y = batch
    return jnp.mean((jax.vmap(model)(x, token) - y) ** 2)


def problem():
    rng = np.random.default_rng(0)
    data = (
        rng.standard_normal((64, 3), np.float32),
        rng.integers(0, 5, 64),
        rng.standard_normal((64, 2), np.float32),
    )
    return Problem(Model, loss, data=data, held_out=data, batch_size=16)


PROBLEM = problem()
SCHEDULE = Schedule(STEPS)


@functools.cache
def functions(signature, recipe):
    """One compilation for all laws of a rule."""
    program = build(PROBLEM, SIZES, BASES, SCHEDULE, recipe)
    return eqx.filter_jit(program.start), eqx.filter_jit(program.advance)


def trained(recipe, change=lambda law: law):
    """The effective weights and losses of a run of the program."""
    program = build(PROBLEM, SIZES, BASES, SCHEDULE, recipe)
    if program.is_traced:
        first = dataclasses.replace(recipe, law=sx.standard)
        start, advance = functions(program.rule, first)
    else:
        start, advance = eqx.filter_jit(program.start), eqx.filter_jit(program.advance)
    run = jax.tree.map(jnp.asarray, run_numbers(0.05, 3, change(program.law)))
    state, losses = advance(start(run), run, PROBLEM.data, (jnp.arange(STEPS), None))
    return jax.tree.leaves(eqx.filter(program._plain(state.model, run), eqx.is_array)), losses


@functools.cache
def trained_by_hand(recipe, rate=0.05, seed=3):
    """The same through the public functions alone."""
    key = jax.random.key(seed)
    model = sx.parameterize(
        lambda width: Model(width, jax.random.fold_in(key, 0)),
        width=WIDTH,
        base_width=BASE,
        parameterization=recipe.law,
    )
    factors = jnp.asarray([float(SCHEDULE(jnp.asarray(step))) for step in range(STEPS)])
    tx = recipe.transformation(
        lambda count: rate * factors[count], shape=lambda count: factors[count]
    )
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state, batch):
        extra = {}
        if recipe.entry.name == "micro_adam":
            extra["statistics"] = sx.gradient_statistics(
                lambda m, one: PROBLEM.example_loss(sx.resolve(m), one), model, batch
            )
        value, gradient = eqx.filter_value_and_grad(lambda m: loss(sx.resolve(m), batch))(model)
        updates, state = optax.with_extra_args_support(tx).update(
            gradient, state, eqx.filter(model, eqx.is_inexact_array), **extra
        )
        return eqx.apply_updates(model, updates), state, value

    losses = []
    for index in range(STEPS):
        chosen = jax.random.randint(
            jax.random.fold_in(jax.random.fold_in(key, 1), index), (16,), 0, 64
        )
        batch = tuple(jnp.asarray(x)[chosen] for x in PROBLEM.data)
        model, state, value = step(model, state, batch)
        losses.append(value)
    return jax.tree.leaves(eqx.filter(sx.resolve(model), eqx.is_array)), jnp.stack(losses)


def differences(one, other):
    """The largest difference of each array, in units of the largest entry of the second."""
    pairs = zip([*one[0], one[1]], [*other[0], other[1]], strict=True)
    numbers = [(np.asarray(x, float), np.asarray(y, float)) for x, y in pairs]
    return [np.abs(x - y).max() / np.abs(y).max() for x, y in numbers]


# Both are float32: an entry's rounding is 6e-8, and four steps of a rule that divides by the root
# of a square, or takes a sign only where gradients are far from zero, add less than a hundred.
# Adafactor and Muon divide by norms of whole matrices, whose rounding all entries share.
TOLERANCE = 1e-5


# Each rule under one law, in turn, and one rule under all.
CASES = [(law, OPTIMIZERS[0]) for law in LAWS]
CASES += [(LAWS[i % 4], optimizer) for i, optimizer in enumerate(OPTIMIZERS) if i]


@pytest.mark.parametrize(("law", "optimizer"), CASES)
def test_the_numbers_train_as_the_law_does(law, optimizer):
    recipe = parse_recipe(f"{law}:{optimizer}:full")
    found = differences(trained(recipe), trained_by_hand(recipe))
    assert max(found) < TOLERANCE, found


@pytest.mark.parametrize("field", ["multiplier", "spread", "rate", "gradient", "weight"])
def test_no_number_is_without_effect(field):
    """The control: what the test above would say of a law that lacks one of the numbers."""
    # The spread of the standard law is that of the program, and that of mean-field stays.
    law = "standard" if field == "weight" else "mean_field"
    recipe = parse_recipe(f"{law}:adafactor(eps=0.01,floor=1.0,min_factored_size=8):full")
    numbers = build(PROBLEM, SIZES, BASES, SCHEDULE, recipe).law
    ones = numbers._replace(**{field: np.ones_like(numbers.rate)})
    found = differences(trained(recipe, lambda _: ones), trained_by_hand(recipe))
    assert max(found) > 100 * TOLERANCE


def test_rules_that_read_shapes_have_the_law_compiled_in():
    program = build(PROBLEM, SIZES, BASES, SCHEDULE, parse_recipe("mup:muon:full"))
    assert not program.is_traced


def test_rules_of_others_are_traced_too():
    # Optax's rules mix integers and floats.
    with jax.numpy_dtype_promotion("standard"):
        recipe = parse_recipe("mup:optax.adam(eps=0.01)@adam:full:hidden=1/2")
        program = build(PROBLEM, SIZES, BASES, SCHEDULE, recipe)
        assert program.is_traced
        found = differences(trained(recipe), trained_by_hand(recipe))
        assert max(found) < TOLERANCE, found


def test_a_tied_model_has_the_law_compiled_in():
    def make(width, key):
        return sx.nn.Transformer(
            vocabulary_size=7,
            sequence_length=4,
            width=width,
            depth=1,
            head_dimension=4,
            tied=True,
            key=key,
        )

    def loss(model, tokens):
        logits = model(tokens[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    tokens = np.random.default_rng(0).integers(0, 7, (8, 5))
    tied = Problem(make, loss, data=tokens, held_out=tokens, batch_size=4)
    program = build(tied, SIZES, BASES, SCHEDULE, parse_recipe("mup:adam:full"))
    assert not program.is_traced
