"""Recipes: their text, what it means, and what is refused."""

import pickle
from fractions import Fraction
from typing import Any

import equinox as eqx
import jax
import pytest

import scalex_eqx as sx
from scalex_eqx.experiments import Recipe, UsageError, parse_recipe
from scalex_eqx.experiments._recipe import check_on
from scalex_eqx.optim import LearnedRule, save_rule
from scalex_eqx.optim._catalogue import catalogue

from ._updates import assert_same, falling


@pytest.mark.parametrize(
    ("text", "by_hand"),
    [
        ("mup:adam:full", lambda: sx.adam(falling, b1=0.9, b2=0.95, eps=1e-12)),
        ("mup:adam(b2=0.999):none", lambda: sx.adam(falling, sx.no_alignment, b2=0.999)),
        (
            "mup:sgd(nesterov=True):global:readout=1/4,blocks/mlp/*=3",
            lambda: sx.sgd(
                falling,
                sx.global_rate,
                momentum=0.9,
                nesterov=True,
                role_multipliers={"readout": 0.25, "blocks/mlp/*": 3.0},
            ),
        ),
        (
            "mup:lion(decay_mode='coupled',weight_decay=0.5):hidden=1,embedding=0,vector=0,readout=.5",
            lambda: sx.lion(
                falling,
                {"embedding": 0, "hidden": 1, "readout": Fraction(1, 2), "vector": 0},
                weight_decay=0.5,
                decay_mode="coupled",
            ),
        ),
    ],
)
def test_a_recipe_is_the_public_maker_to_the_last_bit(text: str, by_hand, model):
    assert_same(parse_recipe(text).transformation(falling), by_hand(), model)


def test_other_arguments_move_otherwise(model):
    first, second = (parse_recipe(f"mup:adam{x}:full") for x in ("", "(b2=0.9)"))
    with pytest.raises(AssertionError):
        assert_same(first.transformation(falling), second.transformation(falling), model)


def written(value: Any) -> Any:
    """Another value of the same kind, for an argument that has this one."""
    others: dict[Any, Any] = {
        "gradient": "constant",
        "initial": "constant",
        "rms": "spectral",
        "newton_schulz": "minimax",
        "independent": "coupled",
        "square": "variance",
        "last": "mean",
        "constant": "rate",
        None: "bfloat16",
    }
    if isinstance(value, bool):
        return not value
    return others[value] if value in others else value / 2 if isinstance(value, float) else 3


DECAY = ("weight_decay", "decay_mode", "decay_schedule")


@pytest.mark.parametrize("name", catalogue)
def test_every_entry_goes_through_its_text(name: str):
    entry = catalogue[name]
    # Another learned rule would be a file.
    given = {key: written(value) for key, value in entry.takes.items() if value != "default"}
    if entry.decay:
        given |= {"weight_decay": 0.125, "decay_mode": "cautious_independent"}
    for arguments in ({}, given):
        recipe = Recipe(sx.ntk, entry, sx.full_alignment, arguments)
        assert dict(recipe.arguments) == arguments
        assert parse_recipe(str(recipe)) == recipe
    assert str(Recipe(sx.ntk, entry, sx.full_alignment)) == f"ntk:{name}:full"
    assert hash(parse_recipe(str(recipe))) == hash(recipe)
    # What is given as it would be leaves no trace.
    left_out = {key: value for key, value in entry.takes.items() if key not in DECAY}
    assert Recipe(sx.ntk, entry, sx.global_rate, left_out).arguments == ()


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (
            "standard:adam( eps_scaling = 'constant', eps=0.00000001 , b1=0.9):full",
            "standard:adam(eps=1e-08,eps_scaling='constant'):full",
        ),
        ("mup:adam():full", "mup:adam:full"),
        ("mup:adam:full:hidden=1", "mup:adam:full"),
        ("mup:adam:full:hidden=.5,a/b=2,embedding=4", "mup:adam:full:embedding=4,hidden=1/2,a/b=2"),
        ("mup.deep(0.5):sgd(momentum=None):none", "mup.deep(1/2):sgd(momentum=None):none"),
        (
            "ntk:adam:b=1,a=2,vector=0,hidden=0.9",
            "ntk:adam:hidden=9/10,vector=0,a=2,b=1",
        ),
        ("mup:adam:full:w[0:1]=2", "mup:adam:full:w[0:1]=2"),
        ("mup:adam:full:malladi()", "mup:adam:full:malladi"),
        (
            "mup:adam:full:a=2:completed_p(decay='kosson',horizon=-0.32)",
            "mup:adam:full:a=2:completed_p(horizon='-8/25',decay='kosson')",
        ),
        ("mup:adam:full:completed_p(horizon='-1/2')", "mup:adam:full:completed_p"),
        ("mup:sgd:full:batch(learning_rate=1.0)", "mup:sgd:full:batch(learning_rate='1')"),
        (
            "mup:adam:none:batch(eps='-1/2',learning_rate='1/2',horizon=0)",
            "mup:adam:none:batch(learning_rate='1/2',eps='-1/2',horizon='0')",
        ),
    ],
)
def test_the_text_is_canonical(text: str, canonical: str):
    recipe = parse_recipe(text)
    assert str(recipe) == canonical
    assert parse_recipe(canonical) == recipe


@pytest.mark.parametrize(
    "text, message",
    [
        ("standard:adam", "not parameterization:optimizer:rates"),
        ("a:b:c:d:e:f", "not parameterization:optimizer:rates"),
        ("nope:adam:full", "unknown parameterization 'nope'; .* standard, ntk, mup, mean_field"),
        ("mup.deep(2):adam:full", r"has 'mup.deep\(2\)'; expected an exponent from 1/2 to 1"),
        ("standard:nope:full", "unknown optimizer 'nope'; choose from adam, adamw, adam_atan2"),
        ("standard:adam:nope", "unknown rates 'nope'; choose from global, full, none"),
        ("mup:adam(eps=1e-8:full", "not parameterization:optimizer:rates"),
        ("mup:adam(eps=1e-8)x:full", r"'adam\(eps=1e-8\)x' is no name with arguments"),
        ("mup:adam(eps=2*1e-9):full", r"has the argument 2 \* 1e-09; .* nothing is evaluated"),
        ("mup:adam(eps=print('x')):full", "nothing is evaluated"),
        ("mup:adam(eps=1e999):full", "expected a finite number"),
        ("mup:adam(eps=[1]):full", "a tuple of them: nothing is evaluated"),
        (f"mup:adam(eps={'9' * 5000}):full", "is no name with arguments"),
        (f"mup:adam(eps={'9' * 400}):full", "too large"),
        (f"mup:adam(eps={'(' * 5000}{')' * 5000}):full", "is no name with arguments"),
        ("mup:adam(**{'eps': 1}):full", r"has arguments behind \*\*; give each argument once"),
        ("mup:adam(eps=1,eps=2):full", "has 'eps' twice; give each argument once"),
        ("mup:adam(0.9):full", "has an argument without a name; write it as name=value"),
        ("mup:lion(eps=1e-8):full", "'lion': lion takes no 'eps'; it takes b1, b2, moment_dtype"),
        ("mup:adam(b1=1.5):full", "b1 is 1.5; expected a finite number, at least 0 and less"),
        ("mup:sgd(momentum=None,nesterov=True):full", "looks ahead along the momentum"),
        ("mup:adam@adam:full", "adam has a family of its own; leave out @adam"),
        (
            "mup:adam:full:hidden=0",
            "multipliers 'hidden=0' has 'hidden=0'; expected a role or path",
        ),
        ("mup:adam:full:hidden=1,hidden=2", "has 'hidden' twice; give it once"),
        ("mup:adam:full:", "has ''; expected a role or path and its factor"),
        ("mup:adam:full:huge", "'huge' is no rule for the batch size; choose from malladi, mall"),
        ("mup:adam:full:malladi:sdew", "has 'malladi' and 'sdew'; behind the rates stand"),
        ("mup:adam:full:malladi:a=2", "has 'malladi' and 'a=2'; behind the rates stand"),
        ("mup:adam:full:malladi(eps=1)", "has 'eps'; it takes horizon, decay"),
        ("mup:adam:full:batch(eps=10**9)", "nothing is evaluated"),
        ("mup:adam:full:batch(eps='x')", "has the exponent 'x'; expected a number from -10 to 10"),
        ("mup:adam:full:batch(decay='x')", "decay is 'x'; choose from kosson, fan, power_lines"),
        ("mup:adam:full:batch(1)", "has an argument without a name"),
        ("mup:lion:full:malladi", "no rule for the batch size is known for lion; leave it out"),
        ("mup:sgd:full:malladi", "budget rule 'malladi' is for updates of one size, as Adam's"),
        ("mup:adam:hidden=x", "rates 'hidden=x' has 'hidden=x'; expected a role or path and its"),
        ("mup:adam:=1", "rates '=1' has '=1'; expected a role or path"),
    ],
)
def test_what_is_no_recipe_is_told_in_a_line(text: str, message: str):
    with pytest.raises(UsageError, match=message) as caught:
        parse_recipe(text)
    assert "\n" not in str(caught.value)


def test_a_parameterization_without_a_text_is_refused():
    own = sx.Parameterization("mine", sx.LayerExponents(0, 0, 0), sx.LayerExponents(0, 0, 0))
    with pytest.raises(UsageError, match="'mine' has no text form; recipes take standard, ntk"):
        Recipe(own, catalogue["adam"], sx.full_alignment)


def test_what_a_rule_lacks_is_told_when_it_is_made(model):
    with pytest.raises(UsageError, match="recipe mup:adamw:full: adamw needs a weight_decay"):
        parse_recipe("mup:adamw:full").transformation(0.1)
    budget = sx.Budget(sx.theory.malladi, batch=4, base_batch=1)
    with pytest.raises(UsageError, match="recipe mup:lion:full: lion takes no budget; leave out"):
        parse_recipe("mup:lion:full").transformation(0.1, budget=budget)
    shapes = eqx.filter_eval_shape(lambda: model)
    check_on(parse_recipe("mup:adam:full:blocks/mlp/*=2"), shapes)
    with pytest.raises(UsageError, match=r"blocks/up'\] is no role and matches no weight"):
        check_on(parse_recipe("mup:adam:full:blocks/up=2"), shapes)


def test_exponents_by_path_go_before_those_by_role(model):
    rates = "embedding=0,hidden=9/10,readout=1,vector=0,blocks/mlp/up/weight=3/4"
    recipe = parse_recipe(f"mup:adam:{rates}:readout=3")
    assert str(recipe) == f"mup:adam:{rates}:readout=3"
    rows = sx.plan(model, recipe.transformation(1.0)).rows
    factors = {row.path: row.learning_rate_factor for row in rows}
    assert factors["token_embedding/weight"] == 1
    assert factors["blocks/mlp/up/weight"] == pytest.approx(4**-0.75)
    assert factors["blocks/mlp/down/weight"] == pytest.approx(4**-0.9)
    assert factors["readout/weight"] == pytest.approx(3 / 4)


def test_a_recipe_that_was_sent_is_the_same_key_in_another_process():
    recipe = parse_recipe("mup:adam(b1=0.8):full:hidden=1/2")
    other = parse_recipe("mup:adam(b1=0.8):full:hidden=1/2")
    assert hash(recipe) == hash(other) and recipe == other
    # Python's texts have another hash in each process, and so the hash isn't sent.
    assert "_hash" in vars(recipe)
    sent = pickle.loads(pickle.dumps(recipe))
    assert "_hash" not in vars(sent) and sent == recipe


def test_a_learned_rule_of_another_file_is_another_recipe(tmp_path, model):
    """Under one path too: runs are found by the text."""
    path = tmp_path / "rule.npz"
    texts = []
    for seed in (0, 1):
        save_rule(LearnedRule(4, key=jax.random.key(seed)), path)
        texts.append(str(parse_recipe(f"mup:learned(weights={str(path)!r}):full")))
    first, second = map(parse_recipe, texts)
    assert str(first) == texts[0] != texts[1]
    assert_same(second.transformation(falling), sx.learned(falling, weights=path), model)
    # What was found with the first can be read, and not be trained on with the second.
    with pytest.raises(UsageError, match="have changed since"):
        first.transformation(falling)
    path.unlink()
    assert parse_recipe(texts[1]) == second
    assert str(parse_recipe("mup:learned:full")) == "mup:learned:full"
