"""Sweeps over other sizes than the width: what is trained, and what is said of it."""

import dataclasses
import functools
import io
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import scalex_eqx as sx
from scalex_eqx.experiments import (
    Run,
    Setting,
    Sweep,
    UsageError,
    analyse,
    parse_recipe,
    report,
    sweep,
    transfer,
)
from scalex_eqx.experiments._axes import BATCH_SIZE, DEPTH, INVERSE_DENSITY, WIDTH
from scalex_eqx.experiments._batch_rules import UNCHANGED
from scalex_eqx.experiments._fits import to_json
from scalex_eqx.experiments._program import Program
from scalex_eqx.experiments._status import status
from scalex_eqx.experiments._train import _built
from scalex_eqx.experiments._transfer import Silent
from scalex_eqx.problems import Problem

STEPS = 3


def shrunk(layer, factor):
    return sx.map_weights(lambda weight: sx.Weight(factor * weight.value, weight.spec), layer)


class Net(eqx.Module):
    """Residual blocks in a list, drawn with a spread that falls with the depth, as GPT-2's."""

    first: eqx.nn.Linear
    blocks: list
    readout: eqx.nn.Linear

    def __init__(self, width, depth, key):
        keys = jax.random.split(key, depth + 2)
        self.first = eqx.nn.Linear(4, width, key=keys[0])
        self.blocks = [
            sx.nn.ends_branch(shrunk(sx.nn.Linear(width, width, key=key), depth**-0.5))
            for key in keys[2:]
        ]
        self.readout = eqx.nn.Linear(width, 2, key=keys[1])

    def __call__(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + block(jnp.tanh(x))
        return self.readout(x)


def loss(model, batch):
    x, y = batch
    return jnp.mean((jax.vmap(model)(x) - y) ** 2)


DATA = tuple(np.random.default_rng(0).standard_normal((2, 64, 4)).astype(np.float32))
DATA = DATA[0], DATA[1][:, :2]
PROBLEM = Problem(Net, loss, data=DATA, held_out=DATA, batch_size=4)
OVER_DEPTH = Setting(base_width=4, width=8, steps=STEPS, axis=DEPTH, base_depth=2)
OVER_BATCH = Setting(
    base_width=4, width=8, depth=2, steps=4 * STEPS, axis=BATCH_SIZE, base_batch_size=4
)


@functools.cache
def functions(signature, program: Program):
    return eqx.filter_jit(program.start), eqx.filter_jit(program.advance)


def trained(program, rate=0.05, seed=3):
    """The effective weights and losses of a run of the program."""
    start, advance = functions(program.signature, program)
    run = jax.tree.map(jnp.asarray, program.numbers(rate, seed))
    steps = jnp.arange(program.schedule.steps)
    state, losses = advance(start(run), run, program.problem.data, (steps, None))
    return [losses, *jax.tree.leaves(eqx.filter(program._plain(state.model, run), eqx.is_array))]


def compiled_in(program):
    """The same with the law and the rule compiled in: by the public functions alone."""
    plain = dataclasses.replace(program, units=None, at_batch=UNCHANGED)
    model = eqx.filter_eval_shape(plain.built, program.recipe.law, jax.random.key(0))
    return dataclasses.replace(plain, shapes=model)


def assert_same(one, other):
    for x, y in zip(one, other, strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6)


def test_a_traced_law_for_the_depth_trains_as_the_law_itself():
    program = _built(PROBLEM, OVER_DEPTH, 6, parse_recipe("mup.deep(3/4):adam(eps=0.01):full"))
    assert program.is_traced
    assert program.is_deep
    assert_same(trained(program), trained(compiled_in(program)))
    without = _built(PROBLEM, OVER_DEPTH, 6, parse_recipe("mup:adam(eps=0.01):full"))
    at_base = _built(PROBLEM, OVER_DEPTH, 2, program.recipe)
    assert not without.is_deep
    assert not at_base.is_deep


@pytest.mark.parametrize(
    "recipe",
    ["mup:adam(eps=0.01):full", "ntk:adafactor(min_factored_size=2):full", "mup:muon:full"],
)
def test_a_traced_law_for_the_density_trains_as_the_law_itself(recipe):
    over = Setting(base_width=4, width=16, depth=2, steps=STEPS, axis=INVERSE_DENSITY)
    program = _built(PROBLEM, over, 4, parse_recipe(recipe))
    assert program.is_traced is ("muon" not in recipe)
    weight = program.state.model.blocks[0].weight
    assert (type(weight), str(weight.spec.density)) == (sx.Masked, "1/4")
    assert_same(trained(program), trained(compiled_in(program)))
    # And it does something to the rates, but to Muon's.
    dense = _built(PROBLEM, over, 1, program.recipe)
    factors = program.law.rate / dense.law.rate
    if program.is_traced:
        assert factors.max() == pytest.approx(4 if "adam(" in recipe else 2)
        assert factors.min() == 1


@pytest.mark.parametrize("density", ["0", "2", "2/5", "half"])
def test_densities_that_are_no_inverses_are_refused(density):
    with pytest.raises(UsageError, match=f"--densities has {density}; expected 1, or 1 over"):
        sweep(
            PROBLEM,
            ["mup:adam:full"],
            densities=[1, density],
            learning_rates=[0.1, 0.2, 0.3],
            steps=1,
            width=8,
            folder="unused",
        )


RULES = [
    "mup:adam_parameter_scaling(eps=0.01,floor=1.0):none:malladi",
    "standard:adamw(eps=0.01,weight_decay=0.01):full:completed_p(decay='sdew')",
]


@pytest.mark.parametrize("recipe", RULES)
def test_a_traced_rule_for_the_batch_size_trains_as_the_rule_itself(recipe):
    program = _built(PROBLEM, OVER_BATCH, 8, parse_recipe(recipe))
    assert program.is_traced
    assert program.budget is not None
    assert program.schedule.steps == 2 * STEPS
    assert_same(trained(program), trained(compiled_in(program)))
    # And it does something.
    plain = _built(PROBLEM, OVER_BATCH, 8, dataclasses.replace(program.recipe, batch_rule=None))
    assert plain.numbers(0.05, 3).arguments == {}
    assert program.numbers(0.05, 3).learning_rate != plain.numbers(0.05, 3).learning_rate


def test_rules_share_a_program_and_leave_that_of_others_alone():
    def signature(size, rule):
        recipe = parse_recipe(f"standard:adam(eps=0.01):full{rule}")
        return _built(PROBLEM, OVER_BATCH, size, recipe).signature

    with_rule = signature(8, ":malladi")
    assert with_rule == signature(8, ":completed_p")
    assert with_rule != signature(8, "")
    # Only a factor of the learning rate; and nothing at all.
    assert signature(8, ":batch(learning_rate='1/2')") == signature(8, "")
    assert signature(4, ":malladi") == signature(4, "")


def test_a_decay_that_follows_the_width_is_compiled_in_and_not_forgotten():
    recipe = parse_recipe("standard:adamw(weight_decay=0.01):full:malladi(decay='fan')")
    over_width = dataclasses.replace(OVER_BATCH, axis=WIDTH, width=None, base_batch_size=None)
    program = _built(PROBLEM, over_width, 8, recipe)
    assert program.budget is not None
    assert not program.is_traced
    with pytest.raises(UsageError, match="doesn't say how weight decay follows the batch size"):
        _built(PROBLEM, OVER_BATCH, 8, recipe)
    long = dataclasses.replace(over_width, base_batch_size=4, base_steps=STEPS)
    with pytest.raises(UsageError, match="doesn't say how one_minus_b1 follows the training len"):
        _built(PROBLEM, long, 8, recipe)


class Sum(eqx.Module):
    """The sum of `depth` linear functions: its gradient descent at a rate is that of one function
    at `depth` times the rate."""

    blocks: list
    width: int = eqx.field(static=True)

    def __init__(self, width, depth, key):
        self.width = width
        one = sx.nn.Linear(width, width, key=key)
        self.blocks = [sx.nn.ends_branch(shrunk(one, 0.0)) for _ in range(depth)]

    def __call__(self, x):
        return sum(block(x[: self.width]) for block in self.blocks)


def squares(model, batch):
    x, y = batch
    found = jax.vmap(model)(x)
    return jnp.mean((found - y[:, : found.shape[1]]) ** 2)


@functools.cache
def noisy():
    """Linear functions under so much noise that a step is mostly that."""
    draw = np.random.default_rng(0)
    x = draw.standard_normal((4096, 8)).astype(np.float32)
    y = x @ draw.standard_normal((8, 8)).astype(np.float32)
    noise = 6 * draw.standard_normal(y.shape).astype(np.float32)
    return Problem(Sum, squares, data=(x, y + noise), held_out=(x, y), batch_size=4)


def verdicts(analyses):
    return {one.recipe: (one.verdict, round(one.drift.exponent, 1)) for one in analyses}


@pytest.fixture(scope="module")
def over_depths(tmp_path_factory):
    """A law for the depth, none, and one that is half there: without its learning rates."""
    folder = tmp_path_factory.mktemp("depths")
    quiet = Console(file=io.StringIO(), width=100)
    arguments = {
        "problem": noisy(),
        "recipes": ["mup.deep(1):sgd:full", "mup:sgd:full", "mup.deep(1):sgd:global"],
        "depths": (8, 2),
        "width": 4,
        "learning_rates": [2.0**k for k in range(-13, -2)],
        "seeds": (0, 1, 2),
        "steps": 40,
        "folder": folder,
        "console": quiet,
    }
    return arguments, sweep(**arguments)


def test_the_verdict_over_depths_knows_a_law_from_its_faults(over_depths):
    _, found = over_depths
    assert verdicts(found) == {
        "mup.deep(1):sgd:full": ("transfers", 0.0),
        "mup:sgd:full": ("drifts", -1.0),
        "mup.deep(1):sgd:global": ("drifts", 1.0),
    }


def test_the_report_speaks_of_the_axis(over_depths):
    arguments, _ = over_depths
    folder = arguments["folder"]
    printed = arguments["console"].file.getvalue()
    assert "depth   best learning rate" in printed
    assert "reusing the best learning rate of depth 2" in " ".join(printed.split())
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["facts"]["depths"] == "2, 8 (base 2)"
    assert "width 4" in results["facts"]["model"]
    (one, *_) = results["analyses"]
    assert [x["depth"] for x in one["depths"]] == [2, 8]
    assert (one["reuse"]["small_depth"], one["reuse"]["large_depth"]) == (2, 8)
    assert {run["depth"] for run in results["runs"]} == {2, 8}
    runs = [Run.from_json(run) for run in results["runs"]]
    assert [to_json(x) for x in analyse(runs, axis=DEPTH)] == results["analyses"]
    for text in (printed, json.dumps(results), (folder / "report.html").read_text("utf-8")):
        assert "widths" not in text.replace('class="widths"', "").replace(".widths td", "")
    page = (folder / "report.html").read_text("utf-8")
    assert "best learning rate ~ depth^p" in page
    assert "across depth?" in page
    store = status(folder / "runs.sqlite", print)
    assert store.axis == DEPTH
    assert all(group.finished == group.planned == 33 for group in store.groups.values())


def test_the_same_sweep_again_trains_nothing(over_depths):
    arguments, found = over_depths
    begun = []

    class Reporter(Silent):
        def begin(self, runs, stored, work, done):
            begun.append((runs, stored))

    assert sweep(**arguments, reporter=Reporter()) == found
    assert begun == [(198, 198)]


def test_a_search_over_depths_finds_the_verdicts_of_the_grid(over_depths):
    arguments, _ = over_depths
    chosen = Sweep(
        recipes=tuple(map(parse_recipe, arguments["recipes"][:2])),
        sizes=(2, 8),
        learning_rates=tuple(arguments["learning_rates"]),
        seeds=(0, 1, 2),
        setting=Setting(4, 40, axis=DEPTH, width=4, base_depth=2),
    )
    path = transfer(chosen, noisy(), arguments["folder"], until_decided=True)
    searched = report(path, arguments["console"])
    assert [one.verdict for one in searched] == ["transfers", "drifts"]
    assert all(one.searched is not None and one.axis == DEPTH for one in searched)


def test_the_verdict_over_batch_sizes_knows_a_rule_from_a_wrong_one(tmp_path):
    recipes = [
        "mup:sgd(momentum=None):full",
        "mup:sgd(momentum=None):full:malladi_sgd",
        "mup:sgd(momentum=None):full:batch(learning_rate='-1')",
    ]
    found = sweep(
        noisy(),
        recipes,
        batch_sizes=(2, 8),
        width=8,
        depth=1,
        learning_rates=[2.0**k for k in range(-9, 2)],
        seeds=(0, 1, 2),
        steps=640,
        folder=tmp_path,
        console=Console(file=io.StringIO()),
    )
    plain, ruled, wrong = found
    assert (ruled.verdict, plain.verdict, wrong.verdict) == ("transfers", "drifts", "drifts")
    assert plain.drift.exponent == pytest.approx(1, abs=0.25)
    assert wrong.drift.exponent == pytest.approx(2, abs=0.25)
    facts = json.loads((tmp_path / "results.json").read_text("utf-8"))["facts"]
    assert facts["batch sizes"] == "2, 8 (base 2)"
    assert facts["training"].startswith("640, 160 steps, as many examples at every batch size")
    assert facts["batch rule malladi_sgd"] == "learning rate batch^1 tokens^?"
