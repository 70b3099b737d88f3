import dataclasses
import json

import jax
import pytest

import scalex_eqx as sx
from scalex_eqx.experiments import (
    Setting,
    Sweep,
    UsageError,
    parse_learning_rate,
    parse_recipe,
)
from scalex_eqx.experiments._rows import run_key

SETTING = Setting(
    base_width=32, depth=2, head_dimension=16, sequence_length=8, batch_size=2, steps=4
)
SWEEP = Sweep(
    recipes=(parse_recipe("standard:adam:full"),),
    widths=(64, 32),
    learning_rates=(0.25, 0.5, 1.0),
    seeds=(0, 1),
    setting=SETTING,
)


def test_a_sweep_lists_every_run_once_small_widths_first():
    members = SWEEP.members()
    assert len(set(members)) == len(members) == 12
    assert [width for _, width, _ in SWEEP.groups()] == [32, 64]


def test_a_sweep_survives_json():
    assert Sweep.from_json(json.loads(json.dumps(SWEEP.to_json()))) == SWEEP


def test_a_specification_tells_every_run_from_every_other():
    texts = {json.dumps(SWEEP.specification(m, "digest")) for m in SWEEP.members()}
    assert len(texts) == 12
    other_data = {json.dumps(SWEEP.specification(m, "other")) for m in SWEEP.members()}
    assert not texts & other_data


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Setting)])
def test_every_setting_tells_runs_apart(field):
    decayed = dataclasses.replace(SETTING, weight_decay=0.01)
    recipes = (parse_recipe("standard:adamw:full"),)
    sweep = dataclasses.replace(SWEEP, recipes=recipes, setting=decayed)
    value = getattr(decayed, field)
    other = dataclasses.replace(decayed, **{field: value * 2 if type(value) is int else value / 2})
    keys, others = sweep.keys("digest"), dataclasses.replace(sweep, setting=other).keys("digest")
    assert len({*keys.values(), *others.values()}) == 24


def test_a_specification_leaves_defaults_out():
    """Fixed for good: another default would lose every run that is stored."""
    setting = Setting(
        base_width=32, depth=2, head_dimension=16, sequence_length=64, batch_size=4, steps=9
    )
    sweep = dataclasses.replace(SWEEP, setting=setting)
    assert sweep.specification(sweep.members()[0], "digest") == {
        "problem": {"kind": "text", "data": "digest"},
        "sizes": {"width": 32, "depth": 2},
        "base": {"width": 32},
        "recipe": "standard:adam:full",
        "steps": 9,
        "learning_rate": 0.25,
        "seed": 0,
    }


def test_the_keys_of_a_sweep_are_those_of_its_specifications():
    assert SWEEP.keys("digest") == {
        member: run_key(SWEEP.specification(member, "digest")) for member in SWEEP.members()
    }


@pytest.mark.parametrize(
    "text, rate", [("0.25", 0.25), ("2^-8", 2.0**-8), ("2^-7.5", 2.0**-7.5), ("1e-3", 1e-3)]
)
def test_learning_rates_are_numbers_or_powers(text, rate):
    assert parse_learning_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["", "2^", "2^x", "-1", "0", "inf", "nan", "fast", "0^-1", "-2^0.5"]
)
def test_other_learning_rates_are_refused(text):
    with pytest.raises(UsageError, match=r"--learning-rates has .* such as 0.004 or 2\^-8"):
        parse_learning_rate(text)


@pytest.mark.parametrize(
    "text, message",
    [
        ("standard:adam", "not parameterization:optimizer:rates"),
        ("nope:adam:full", "unknown parameterization 'nope'; .* standard, ntk, mup, mean_field"),
        ("standard:nope:full", "unknown optimizer 'nope'; choose from adam, adamw, adam_atan2"),
        ("standard:adam:nope", "unknown rates 'nope'; choose from global, full, none"),
    ],
)
def test_an_unknown_part_of_a_recipe_lists_the_choices(text, message):
    with pytest.raises(UsageError, match=message):
        parse_recipe(text)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"recipes": ()}, "--recipes has 0 values"),
        ({"widths": (32,)}, "--widths has 1 value; give at least 2"),
        ({"widths": (32, 32)}, "--widths has 32 more than once"),
        ({"widths": (32, 40)}, "--widths has 40, which is not .* --head-dimension 16"),
        ({"learning_rates": (0.1, 0.2)}, "--learning-rates has 2 values; give at least 3"),
        ({"seeds": ()}, "--seeds has 0 values"),
        ({"seeds": (-1,)}, "--seeds has -1"),
        ({"setting": dataclasses.replace(SETTING, base_width=24)}, "--base-width has 24"),
        ({"setting": dataclasses.replace(SETTING, steps=0)}, "--steps is 0"),
        ({"setting": dataclasses.replace(SETTING, depth=-1)}, "--depth is -1"),
        ({"setting": dataclasses.replace(SETTING, head_dimension=0)}, "--head-dimension is 0"),
        ({"setting": dataclasses.replace(SETTING, weight_decay=0.1)}, "no recipe decays"),
        ({"recipes": (parse_recipe("mup:adamw:none"),)}, "positive --weight-decay"),
    ],
)
def test_what_cannot_be_judged_is_refused_by_option(change, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(SWEEP, **change)


def test_exponents_may_stand_in_a_recipe():
    rates = "embedding=0,hidden=9/10,readout=1,vector=0,blocks/mlp/up/weight=3/4"
    recipe = parse_recipe(f"standard:adam:{rates}")
    assert str(recipe) == f"standard:adam:{rates}"
    assert parse_recipe(str(recipe)) == recipe
    tx = recipe.transformation(1.0, b1=0.9, b2=0.95, eps=1e-12, decay=0.0)
    model = sx.parameterize(
        lambda width: sx.nn.Transformer(
            vocabulary_size=8,
            sequence_length=8,
            width=width,
            depth=2,
            head_dimension=16,
            key=jax.random.key(0),
        ),
        width=64,
        base_width=16,
        parameterization=recipe.law,
    )
    factors = {row.path: row.learning_rate_factor for row in sx.plan(model, tx).rows}
    assert factors["token_embedding/weight"] == 1
    assert factors["blocks/mlp/up/weight"] == pytest.approx(4**-0.75)
    assert factors["blocks/mlp/down/weight"] == pytest.approx(4**-0.9)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ("embedding=0,hidden=x,readout=1,vector=0", "has 'hidden=x'; expected a role and its"),
        ("embedding=0,hidden=1,vector=0", "has no exponent for readout; name it"),
        ("embedding=0,hidden=1,readout=1,vector=0,blocks/up=1", "an exponent for 'blocks/up'; th"),
    ],
)
def test_wrong_exponents_in_a_recipe_are_refused(rates: str, message: str):
    with pytest.raises(UsageError, match=message):
        parse_recipe(f"standard:adam:{rates}")
