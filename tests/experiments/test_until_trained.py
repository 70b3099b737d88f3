"""A search through the store, on a model whose best learning rate is known.

The loss is a sum of biases, so that Adam moves each by the learning rate at every step, whatever
its initial draw. What is judged is how far: 0.025 nats for each octave squared beside 2^-6, and a
seed's own share from its draw.
"""

import io
import sqlite3
from contextlib import closing

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from scalex_eqx.experiments import Setting, Sweep, parse_recipe, report, transfer
from scalex_eqx.experiments._config import Member
from scalex_eqx.experiments._train import packs
from scalex_eqx.experiments._transfer import STORE
from scalex_eqx.problems import Problem

STEPS = 4
# The rise is over the first step; the rest is a cosine to zero.
MOVED = sum(0.5 * (1 + np.cos(np.pi * (step - 1) / (STEPS - 1))) for step in range(1, STEPS + 1))
# A rate that falls with the width asks for a learning rate that grows with it.
FULL = parse_recipe("standard:adam:full")
FALLING = parse_recipe("standard:adam:embedding=0,hidden=1,readout=1,vector=1")
SWEEP = Sweep(
    recipes=(FULL, FALLING),
    sizes=(8, 32),
    learning_rates=(2.0**-9, 2.0**-8, 2.0**-7),
    seeds=(0, 1, 2),
    setting=Setting(base_width=8, steps=STEPS),
)


class Biased(eqx.Module):
    first: eqx.nn.Linear
    norm: eqx.nn.LayerNorm
    last: eqx.nn.Linear

    def __init__(self, width, key):
        self.first = eqx.nn.Linear(3, width, key=key)
        self.norm = eqx.nn.LayerNorm(width)
        self.last = eqx.nn.Linear(width, 1, use_bias=False, key=key)


def judged(model, held_out):
    far = -jnp.mean(model.norm.bias) / MOVED
    own = 0.05 * jnp.sign(model.first.bias[0])
    return 2.4 + held_out * (jnp.log2(far) + 6.0 + own) ** 2


PROBLEM = Problem(
    Biased,
    lambda model, batch: jnp.sum(model.norm.bias) + 0.0 * batch[0],
    data=np.zeros(2, np.float32),
    held_out=np.float32(0.025),
    batch_size=1,
    evaluate=judged,
)


class Told:
    def __init__(self):
        self.begun, self.groups, self.work = [], [], 0.0

    def begin(self, runs, stored, work, done):
        self.begun.append((runs, stored, work, done))

    def group(self, name, runs):
        self.groups.append((name, runs))

    def advance(self, work, loss):
        self.work += work

    def ended(self, runs, work): ...

    def say(self, line): ...


def searched(folder):
    told = Told()
    transfer(SWEEP, PROBLEM, folder, told, until_decided=True, budget=2.0)
    return told


def reported(folder):
    text = io.StringIO()
    return report(folder, Console(file=text, width=100)), text.getvalue()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    told = searched(folder)
    return folder, told, reported(folder)


def runs_in(folder):
    with closing(sqlite3.connect(folder / STORE)) as connection, connection:
        return connection.execute("SELECT count(*) FROM runs").fetchone()[0]


def test_both_verdicts_are_found(found):
    folder, told, (analyses, text) = found
    full, falling = analyses
    assert (full.verdict, falling.verdict) == ("transfers", "drifts")
    assert full.drift.exponent == pytest.approx(0.0, abs=0.06)
    assert falling.drift.exponent == pytest.approx(1.0, abs=0.06)
    assert sum(one.searched.runs for one in analyses) == runs_in(folder)
    assert "of the grid's work, 1 look" in text.replace("\n", " ")
    # The bar ends full: what was announced last is what was done.
    (*_, (runs, stored, work, done)) = told.begun
    assert runs == stored == runs_in(folder)
    assert work == pytest.approx(done) == pytest.approx(told.work)
    assert all(later[2] <= told.begun[0][2] for later in told.begun)


def test_the_same_command_again_trains_nothing(found):
    folder, _, (analyses, _) = found
    assert searched(folder).groups == []
    assert reported(folder)[0] == analyses


def test_a_search_that_was_stopped_goes_on_from_its_store(found, tmp_path):
    folder, _, (analyses, _) = found
    source, copy = (sqlite3.connect(place / STORE) for place in (folder, tmp_path))
    with closing(source), closing(copy), copy:
        source.backup(copy)
        copy.execute("DELETE FROM runs WHERE key IN (SELECT key FROM runs LIMIT 3)")
    unfinished, text = reported(tmp_path)
    assert "runs are missing" in text
    assert any("the same command goes on" in one.sentence for one in unfinished)
    assert sum(runs for _, runs in searched(tmp_path).groups) == 3
    assert reported(tmp_path)[0] == analyses


def test_at_the_base_width_recipes_with_one_rule_are_one_run():
    def pack(width):
        members = [Member(recipe, width, 0.01, seed) for recipe in SWEEP.recipes for seed in (0, 1)]
        (found,) = packs(PROBLEM, SWEEP.setting, members)
        return found

    assert pack(8).same == [[0, 2], [1, 3]]
    assert pack(32).same == [[0], [1], [2], [3]]
