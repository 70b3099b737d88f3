import dataclasses
import json
import pickle
from typing import Any

import numpy as np
import pytest

from scalex_eqx.experiments import (
    Member,
    Setting,
    Sweep,
    UsageError,
    parse_learning_rate,
    parse_recipe,
)
from scalex_eqx.experiments._axes import BATCH_SIZE, DEPTH
from scalex_eqx.experiments._config import given_weight_decay
from scalex_eqx.experiments._rows import run_key
from scalex_eqx.experiments._train import packs
from scalex_eqx.problems import text
from scalex_eqx.problems._corpus import corpus_of_tokens

SETTING = Setting(base_width=32, depth=2, steps=4)
CORPUS = corpus_of_tokens(np.tile(np.arange(8, dtype=np.uint8), 100), vocabulary_size=8, name="x")
TEXT = text(CORPUS, sequence_length=8, batch_size=2)
PROBLEM = {"kind": "text", "data": "digest"}
SWEEP = Sweep(
    recipes=(parse_recipe("standard:adam:full"),),
    sizes=(64, 32),
    learning_rates=(0.25, 0.5, 1.0),
    seeds=(0, 1),
    setting=SETTING,
)


def test_a_sweep_lists_every_run_once_small_widths_first():
    members = SWEEP.members()
    assert len(set(members)) == len(members) == 12
    assert [member.size for member in members] == 6 * [32] + 6 * [64]


def test_a_sweep_survives_json():
    assert Sweep.from_json(json.loads(json.dumps(SWEEP.to_json()))) == SWEEP


def test_a_specification_tells_every_run_from_every_other():
    texts = {json.dumps(SWEEP.specification(m, PROBLEM)) for m in SWEEP.members()}
    assert len(texts) == 12
    other_data = {
        json.dumps(SWEEP.specification(m, {**PROBLEM, "data": "other"})) for m in SWEEP.members()
    }
    assert not texts & other_data


DEEP = Setting(base_width=32, steps=4, axis=DEPTH, width=64, base_depth=2)
LARGE_BATCH = Setting(
    base_width=32, steps=4, depth=2, axis=BATCH_SIZE, width=64, base_batch_size=32
)
LONG = Setting(base_width=32, steps=4, base_batch_size=8, base_steps=2)
APART = {
    **dict.fromkeys(("base_width", "steps", "depth", "warmup"), SETTING),
    **dict.fromkeys(("width", "base_depth"), DEEP),
    **dict.fromkeys(("base_batch_size", "same_steps"), LARGE_BATCH),
    "base_steps": LONG,
    "schedule": SETTING,
    "decay": dataclasses.replace(SETTING, schedule="wsd"),
}


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Setting) if f.name != "axis"])
def test_every_setting_tells_runs_apart(field):
    setting = APART[field]
    sweep = dataclasses.replace(
        SWEEP, recipes=(parse_recipe("mup.deep(1):adam:full:malladi"),), setting=setting
    )
    facts = {"by_batch_size": {"32": {"n": 32}, "64": {"n": 64}}} if setting is LARGE_BATCH else {}
    value = getattr(setting, field)
    changed: Any = "linear" if type(value) is str else value / 2
    if type(value) in (bool, int):
        changed = not value if type(value) is bool else value * 2
    other = dataclasses.replace(setting, **{field: changed})
    others = dataclasses.replace(sweep, setting=other).keys(facts)
    assert len({*sweep.keys(facts).values(), *others.values()}) == 24


@pytest.mark.parametrize("setting", [DEEP, LARGE_BATCH])
def test_a_sweep_over_another_size_survives_json_and_its_way_to_a_worker(setting):
    sweep = dataclasses.replace(SWEEP, setting=setting)
    assert sweep.axis.names in sweep.to_json()
    for found in (Sweep.from_json(json.loads(json.dumps(sweep.to_json()))), copied(sweep)):
        assert found == sweep
        assert found.setting.steps_at(64) == setting.steps_at(64)
        assert found.setting.sizes(8) == setting.sizes(8)


def copied(sweep):
    return pickle.loads(pickle.dumps(sweep))


def test_a_base_that_a_recipe_knows_nothing_of_is_not_in_its_runs():
    """So a sweep over depths has the runs of one over widths, and the reverse."""
    plain = SWEEP.specification(Member(SWEEP.recipes[0], 64, 0.5, 0), PROBLEM)
    for setting, size in ((DEEP, 2), (dataclasses.replace(SETTING, base_batch_size=1), 64)):
        sweep = dataclasses.replace(SWEEP, setting=setting)
        assert sweep.specification(Member(SWEEP.recipes[0], size, 0.5, 0), PROBLEM) == plain
    facts = LARGE_BATCH.facts(TEXT, (2, 32))
    assert facts["by_batch_size"]["2"] == TEXT.facts
    setting = dataclasses.replace(LARGE_BATCH, base_batch_size=2)
    sweep = dataclasses.replace(SWEEP, sizes=(2, 4), setting=setting)
    found = sweep.specification(Member(SWEEP.recipes[0], 2, 0.5, 0), facts)
    assert found == {**plain, "problem": TEXT.facts}


def test_a_specification_leaves_defaults_out():
    """Fixed for good: another default would lose every run that is stored."""
    assert SWEEP.specification(SWEEP.members()[0], PROBLEM) == {
        "problem": PROBLEM,
        "sizes": {"width": 32, "depth": 2},
        "base": {"width": 32},
        "recipe": "standard:adam:full",
        "steps": 4,
        "learning_rate": 0.25,
        "seed": 0,
    }
    other = dataclasses.replace(SETTING, schedule="wsd", decay=0.25)
    found = dataclasses.replace(SWEEP, setting=other)
    assert found.specification(SWEEP.members()[0], PROBLEM) == {
        **SWEEP.specification(SWEEP.members()[0], PROBLEM),
        "schedule": "wsd",
        "decay": 0.25,
    }
    assert TEXT.facts == {
        "kind": "text",
        "data": CORPUS.digest,
        "sequence_length": 8,
        "batch_size": 2,
    }
    assert text(CORPUS).facts == {"kind": "text", "data": CORPUS.digest}


def test_the_keys_of_a_sweep_are_those_of_its_specifications():
    assert SWEEP.keys(PROBLEM) == {
        member: run_key(SWEEP.specification(member, PROBLEM)) for member in SWEEP.members()
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
    "change, message",
    [
        ({"recipes": ()}, "--recipes has 0 values"),
        ({"sizes": (32,)}, "--widths has 1 value; give at least 2"),
        ({"sizes": (32, 32)}, "--widths has 32 more than once"),
        ({"sizes": (32, -4)}, "--widths has -4; expected at least 1"),
        ({"learning_rates": (0.1, 0.2)}, "--learning-rates has 2 values; give at least 3"),
        ({"seeds": ()}, "--seeds has 0 values"),
        ({"seeds": (-1,)}, "--seeds has -1"),
        ({"setting": dataclasses.replace(SETTING, base_width=0)}, "--base-width has 0"),
        ({"setting": dataclasses.replace(SETTING, steps=0)}, "--steps is 0"),
        ({"setting": dataclasses.replace(SETTING, depth=-1)}, "--depth is -1"),
        ({"recipes": (parse_recipe("mup:adamw:none"),)}, "positive --weight-decay"),
    ],
)
def test_what_cannot_be_judged_is_refused_by_option(change, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(SWEEP, **change)


def test_the_weight_decay_of_a_command_goes_to_recipes_that_lack_one():
    recipes = [parse_recipe(f"mup:{rule}:full") for rule in ("adam", "adamw", "lion")]
    own = parse_recipe("mup:adamw(weight_decay=0.5):full")
    found = given_weight_decay(0.25, [*recipes, own])
    assert [str(one) for one in found] == [
        "mup:adam:full",
        "mup:adamw(weight_decay=0.25):full",
        "mup:lion:full",
        "mup:adamw(weight_decay=0.5):full",
    ]
    assert given_weight_decay(0.0, [own]) == (own,)


@pytest.mark.parametrize(
    ("weight_decay", "recipe", "message"),
    [
        (0.1, "mup:adam:full", "--weight-decay is 0.1, but no recipe decays without one of its"),
        (0.1, "mup:adamw(weight_decay=0.5):full", "but no recipe decays without one of its own"),
        (0.0, "mup:adamw:full", "a recipe uses adamw; give a positive --weight-decay, or use adam"),
        (1.5, "mup:adamw:full", "--weight-decay is 1.5; expected at least 0 and less than 1"),
    ],
)
def test_a_weight_decay_for_nobody_and_one_that_lacks_are_refused(weight_decay, recipe, message):
    with pytest.raises(UsageError, match=message):
        given_weight_decay(weight_decay, [parse_recipe(recipe)])


RATES = "embedding=0,hidden=9/10,readout=1,vector=0"


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        (
            "embedding=0,hidden=1,vector=0",
            "rates has no exponent for readout/weight, whose role is",
        ),
        (f"{RATES},blocks/up=1", r"rates\['blocks/up'\] is no role and matches no weight; there a"),
        ("full:blocks/up=2", r"role_multipliers\['blocks/up'\] is no role and matches no weight"),
        (
            f"{RATES},blocks/*=1,*/up/weight=2",
            "rates has several exponents for blocks/mlp/up/weight",
        ),
    ],
)
def test_weights_that_the_model_lacks_are_refused_before_training(rest: str, message: str):
    with pytest.raises(UsageError, match=f"recipe standard:adam:.*: {message}"):
        packed(f"standard:adam:{rest}")


def test_weights_that_the_model_has_are_found_by_pattern():
    (pack,) = packed(f"standard:adam:{RATES},blocks/mlp/*=3/4:blocks/attention/*=2")
    assert pack.program.is_traced


def packed(recipe: str):
    return packs(TEXT, SETTING, [Member(parse_recipe(recipe), 64, 0.25, 0)])
