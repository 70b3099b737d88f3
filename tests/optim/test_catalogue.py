"""The catalogue against the public makers, and against its numbers written out."""

import inspect
from typing import Any

import jax
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.optim._catalogue import Entry, catalogue
from scalex_eqx.optim._descent import descend

from .._statistics import with_statistics

# What a rule gives in a sweep if nothing is said. Recipes are stored by what differs from it, so
# that a change here gives stored runs another meaning: it needs a new version of their keys.
_ADAM = {"b1": 0.9, "b2": 0.95, "eps": 1e-12, "eps_scaling": "gradient", "moment_dtype": None}
_DECAY = {"weight_decay": None, "decay_mode": "independent", "decay_schedule": "constant"}
_FLOOR = {"floor": 1e-3, "floor_scaling": "initial"}
TAKES: dict[str, dict[str, Any]] = {
    "adam": _ADAM,
    "adamw": _ADAM | _DECAY,
    "adam_atan2": {"b1": 0.9, "b2": 0.95, "a": 4 / np.pi, "b": 1.0, "moment_dtype": None} | _DECAY,
    "adam_parameter_scaling": _ADAM | _FLOOR | _DECAY,
    "adafactor": {
        "decay_exponent": 0.8,
        "eps": 1e-30,
        "eps_scaling": "gradient",
        "min_factored_size": 32,
        "clipping_threshold": 1.0,
    }
    | _FLOOR
    | _DECAY,
    "learned": {"weights": "default"} | _DECAY,
    "lion": {"b1": 0.9, "b2": 0.99, "moment_dtype": None} | _DECAY,
    "micro_adam": _ADAM | {"second": "square"} | _DECAY,
    "muon": {
        "momentum": 0.95,
        "nesterov": True,
        "scale": "rms",
        "method": "newton_schulz",
        "steps": 5,
        "compute_dtype": None,
    }
    | _ADAM
    | _DECAY,
    "sgd": {"momentum": 0.9, "nesterov": False, "moment_dtype": None} | _DECAY,
    "sign_ema": {"b1": 0.9, "placement": "last", "moment_dtype": None} | _DECAY,
    "sign_sgd": _DECAY,
}
# What the public makers are called with by hand for the same.
MAKERS: dict[str, Any] = {
    "adam": lambda *a, **k: sx.adam(*a, b1=0.9, b2=0.95, eps=1e-12, **k),
    "adamw": lambda rate, rates, **k: sx.adamw(
        rate,
        1e-3,
        rates,
        decay_mode="independent",
        weight_decay_schedule=optax.constant_schedule(1.0),
        b1=0.9,
        b2=0.95,
        eps=1e-12,
        **k,
    ),
    "adam_atan2": lambda *a, **k: sx.adam_atan2(*a, b1=0.9, b2=0.95, **k),
    "adam_parameter_scaling": lambda *a, **k: sx.adam_parameter_scaling(
        *a, b1=0.9, b2=0.95, eps=1e-12, **k
    ),
    "adafactor": lambda *a, **k: sx.adafactor(*a, min_factored_size=32, **k),
    "learned": sx.learned,
    "lion": sx.lion,
    "micro_adam": lambda *a, **k: sx.micro_adam(*a, b1=0.9, b2=0.95, eps=1e-12, **k),
    "muon": lambda *a, **k: sx.muon(*a, scale="rms", b1=0.9, b2=0.95, eps=1e-12, **k),
    "sgd": lambda *a, **k: sx.sgd(*a, momentum=0.9, **k),
    "sign_ema": sx.sign_ema,
    "sign_sgd": sx.sign_sgd,
}
GIVEN: dict[str, dict[str, Any]] = {"adamw": {"weight_decay": 1e-3}}


def test_the_values_of_what_is_left_out_are_written_down_here():
    assert {name: entry.takes for name, entry in catalogue.items()} == TAKES
    assert {name for name, entry in catalogue.items() if not entry.budget} == {
        "adafactor",
        "learned",
        "lion",
        "muon",
    }
    assert {name for name, entry in catalogue.items() if not entry.decay} == {"adam"}
    assert {name for name, entry in catalogue.items() if entry.decays} == {"adamw"}


def test_every_maker_of_the_package_is_in_it():
    """A public function that is given a learning rate and rates makes a whole optimizer."""

    def is_maker(x: Any) -> bool:
        return inspect.isfunction(x) and {"learning_rate", "rates"} <= set(
            inspect.signature(x).parameters
        )

    makers = {name: x for name, x in vars(sx.optim).items() if is_maker(x)}
    assert makers == {name: entry.maker for name, entry in catalogue.items()}


def steps(tx: Any, params: Any) -> tuple[Any, Any]:
    """Two updates and the states, for the treedef and the bits."""
    tx = with_statistics(tx)
    state, seen = tx.init(params), []
    for scale in (1.0, -0.25):
        gradient = jax.tree.map(lambda x, s=scale: s * x + 0.5, params)
        updates, state = tx.update(gradient, state, params)
        seen.append(updates)
    return seen, state


def same(one: Any, other: Any) -> bool:
    equal = jax.tree.structure(one) == jax.tree.structure(other)
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return equal and all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in leaves)


@pytest.fixture
def params(weight):
    random = np.random.default_rng(0)
    shapes = {"embedding": (4, 3), "hidden": (4, 6), "readout": (2, 4), "vector": (4,)}
    return {role: weight(random.normal(size=shape), role) for role, shape in shapes.items()}


@pytest.mark.parametrize("name", catalogue)
def test_rule_and_optimizer_are_what_the_maker_builds(name: str, params):
    """By hand, by `optimizer`, and by `descend` of the bare rule: equal to the last bit."""
    entry, given = catalogue[name], GIVEN.get(name, {})
    rate, gamma = optax.linear_schedule(0.1, 0.0, 10), {"hidden": 2.0}
    by_hand = steps(MAKERS[name](rate, sx.full_alignment, role_multipliers=gamma), params)
    made = entry.optimizer(rate, sx.full_alignment, role_multipliers=gamma, **given)
    assert same(by_hand, steps(made, params))
    composed = descend(
        entry.rule(**given),
        family=entry.family,
        learning_rate=rate,
        rates=sx.full_alignment,
        role_multipliers=gamma,
        **entry.decay_options(**given),
    )
    assert same(by_hand, steps(composed, params))


def test_a_decay_may_follow_the_learning_rate(params):
    shape = optax.linear_schedule(1.0, 0.25, 2)
    rate, adamw = optax.linear_schedule(0.1, 0.025, 2), catalogue["adamw"]
    given = {"weight_decay": 0.1, "shape": shape}
    by_hand = steps(
        sx.adamw(
            rate,
            0.1,
            decay_mode="independent",
            weight_decay_schedule=shape,
            b2=0.95,
        ),
        params,
    )
    follows = adamw.optimizer(rate, sx.full_alignment, **given, decay_schedule="rate")
    assert same(by_hand, steps(follows, params))
    stays = adamw.optimizer(rate, sx.full_alignment, **given)
    assert not same(by_hand, steps(stays, params))
    with pytest.raises(ValueError, match="'coupled', which follows the learning rate by itself"):
        adamw.decay_options(weight_decay=0.1, decay_mode="coupled", decay_schedule="rate")
    with pytest.raises(ValueError, match="decay_schedule is given without a weight_decay"):
        catalogue["lion"].decay_options(decay_schedule="rate")


def test_another_number_is_seen_to_differ(params):
    by_hand = steps(MAKERS["adam"](0.1, sx.full_alignment), params)
    adam = catalogue["adam"]
    assert same(by_hand, steps(adam.optimizer(0.1, sx.full_alignment), params))
    assert not same(by_hand, steps(adam.optimizer(0.1, sx.full_alignment, b2=0.999), params))
    assert not same(
        by_hand,
        steps(catalogue["adamw"].optimizer(0.1, sx.full_alignment, weight_decay=1e-3), params),
    )


def test_a_bare_rule_of_two_parts_is_one_rule(params):
    """What is put around it stands before and behind both."""
    whole = optax.chain(catalogue["muon"].rule(), optax.scale(2.0))
    twice, _ = steps(whole, params)
    once, _ = steps(catalogue["muon"].rule(), params)
    assert same(twice, jax.tree.map(lambda x: 2.0 * x, once))


def test_a_budget_goes_to_those_that_take_it(params):
    budget = sx.Budget(sx.theory.malladi, batch=4, base_batch=1)
    found = steps(catalogue["adam"].optimizer(0.1, sx.global_rate, budget=budget), params)
    assert same(found, steps(MAKERS["adam"](0.1, sx.global_rate, budget=budget), params))
    with pytest.raises(ValueError, match="lion takes no budget"):
        catalogue["lion"].optimizer(0.1, sx.global_rate, budget=budget)


@pytest.mark.parametrize(
    ("name", "arguments", "canonical"),
    [
        ("adam", {"eps": 1e-12, "b2": 0.95}, {}),
        ("adam", {"eps": 0, "b2": 0.999}, {"b2": 0.999, "eps": 0.0}),
        ("sgd", {"momentum": None}, {"momentum": None}),
        ("sgd", {"nesterov": True}, {"nesterov": True}),
        ("adafactor", {"min_factored_size": 128}, {"min_factored_size": 128}),
        ("adamw", {"weight_decay": 0.1, "decay_mode": "coupled"}, None),
    ],
)
def test_what_is_as_it_would_be_is_left_out(name: str, arguments, canonical):
    found = catalogue[name].checked(arguments)
    assert found == (arguments if canonical is None else canonical)
    assert list(found) == sorted(found) and all(
        type(x) is not int or x == 128 for x in found.values()
    )


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("lion", {"eps": 1e-8}, "lion takes no 'eps'; it takes b1, b2, moment_dtype, weight_decay"),
        ("adam", {"eps": "small"}, "eps of adam is 'small'; expected a number$"),
        ("adam", {"eps_scaling": 1}, "expected 'gradient' or 'constant'"),
        ("adam", {"moment_dtype": "float16"}, "expected 'float32' or 'bfloat16' or 'int8' or None"),
        ("sgd", {"nesterov": 1}, "nesterov of sgd is 1; expected True or False"),
        ("sgd", {"momentum": True}, "momentum of sgd is True; expected a number or None"),
        ("learned", {"weights": "mine"}, "expected 'default' or a file, as 'mine.npz'"),
        ("muon", {"steps": 5.0}, "steps of muon is 5.0; expected a whole number"),
        ("adamw", {"weight_decay": 0}, "weight_decay of adamw is 0.0; expected more than 0"),
        ("adamw", {"weight_decay": 1e-4, "decay_mode": None}, "decay_mode of adamw is None"),
    ],
)
def test_what_is_not_taken_is_refused(name: str, arguments, message: str):
    with pytest.raises(ValueError, match=message):
        catalogue[name].checked(arguments)


def test_a_decay_is_asked_for_where_it_is_needed():
    with pytest.raises(ValueError, match=r"adamw needs a weight_decay; write adamw\(weight"):
        catalogue["adamw"].optimizer(0.1, sx.full_alignment)
    with pytest.raises(ValueError, match="decay_mode is given without a weight_decay"):
        catalogue["lion"].optimizer(0.1, sx.full_alignment, decay_mode="coupled")


def test_entries_are_told_apart_by_name():
    assert len(set(catalogue.values())) == len(catalogue)
    adam = catalogue["adam"]
    assert Entry("adam", adam.maker, adam.bare, "adam") == adam
