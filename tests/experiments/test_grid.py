import io
import itertools
import json
import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from scalex_eqx.experiments import Setting, Sweep, UsageError, parse_recipe, report
from scalex_eqx.experiments._engines import Local
from scalex_eqx.experiments._grid import PRESETS, Grid, further, gone_through, runs_of
from scalex_eqx.experiments._grid_report import grid_rows
from scalex_eqx.experiments._grid_train import foresee, train_grid
from scalex_eqx.experiments._judged import Answer, judge_claim
from scalex_eqx.experiments._published import CLAIMS
from scalex_eqx.experiments._status import status
from scalex_eqx.experiments._store import Store
from scalex_eqx.experiments._transfer import STORE
from scalex_eqx.problems import Problem

LIMITS = 2.0**-20, 2.0**4
TRUE_EXPONENT = {"global": -1.0, "full": 0.0, "none": -0.5}


class Synthetic:
    """Losses of runs by a rule, and how many were asked for."""

    def __init__(self, loss):
        self.loss = loss
        self.trained = {}

    def known(self, members):
        return {one: self.trained[one] for one in members if one in self.trained}

    def train(self, grid):
        while True:
            losses, missing = gone_through(grid, self.known)
            if not missing:
                return losses
            assert not set(missing) & set(self.trained)
            self.trained |= {one: self.loss(one) for one in missing}


def bowl(member):
    """A parabola whose minimum drifts as the theory says for the standard parameterization."""
    exponent = TRUE_EXPONENT[str(member.recipe).rsplit(":", 1)[1]]
    place = -6 + exponent * math.log2(member.size / 32) + 0.1 * (member.seed - 1)
    return 2.5 + 0.03 * (math.log2(member.learning_rate) - place) ** 2 - 0.01 * exponent


@pytest.fixture(scope="module")
def docs():
    """The grid of that name, and all its runs on bowls."""
    grid, synthetic = Grid.of(PRESETS["docs"], reach=6), Synthetic(bowl)
    synthetic.train(grid)
    return grid, synthetic.trained


def rows_of(grid, losses):
    runs = runs_of(losses)
    planned = {str(one): sum(run.recipe == str(one) for run in runs) for one in grid.sweep.recipes}
    return grid_rows(grid.sweep.recipes, runs, planned, max(grid.sweep.sizes))


def claims_of(rows):
    outcomes = {str(row.recipe): row.outcome for row in rows}
    return [judge_claim(claim, outcomes) for claim in CLAIMS]


@pytest.mark.parametrize(
    "losses, more",
    [
        ((1.0, 2.0, 3.0), [-12, -11]),
        ((3.0, 2.0, 1.0), [-7, -6]),
        ((None, None, None), [-12, -11]),
        ((2.0, 1.0, 2.0), [-9.5, -8.5]),
        ((2.0, 1.0, None), [-9.5, -8.5]),
    ],
)
def test_what_a_curve_needs(losses, more):
    rates = [2.0**-10, 2.0**-9, 2.0**-8]
    assert np.allclose(np.log2(further(rates, [losses], LIMITS)), more)
    # All seeds have the same rates, and none is added twice.
    assert further(rates, [losses, losses], LIMITS) == further(rates, [losses], LIMITS)
    assert further(rates, [losses], (rates[0], rates[-1])) == [
        rate for rate in further(rates, [losses], LIMITS) if rates[0] < rate < rates[-1]
    ]


def test_a_diverged_neighbour_is_come_near_to_a_quarter_of_an_octave():
    rates = [2.0**-10, 2.0**-9, 2.0**-8]
    curve = {-10.0: 2.0, -9.0: 1.0, -8.0: None}
    while more := further(rates, [[curve[round(math.log2(x), 6)] for x in rates]], LIMITS):
        rates = sorted([*rates, *more])
        new = {round(math.log2(x), 6) for x in more}
        # Lower than all so far below 2^-8.9, diverged above.
        curve |= {x: None if x > -8.9 else 1.0 + (x + 8.95) ** 2 for x in new}
    assert min(x for x, loss in curve.items() if loss is None) == -8.75
    assert set(curve) >= {-9.5, -9.0, -8.75, -8.5}


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_preset_has_every_parameterization_rule_and_rates(preset):
    grid = Grid.of(PRESETS[preset], reach=2)
    assert len(grid.sweep.recipes) == 12 * len(PRESETS[preset].rules)
    assert {one.optimizer for one in grid.sweep.recipes} == set(grid.first)
    assert Grid.from_json(json.loads(json.dumps({**grid.sweep.to_json(), "grid": grid.to_json()})))
    assert grid.sweep.setting.base_width == min(grid.sweep.sizes)


def test_minima_are_found_wherever_they_are_and_the_answers_follow(docs):
    rows = rows_of(*docs)
    for row in rows:
        true = TRUE_EXPONENT[str(row.recipe).rsplit(":", 1)[1]]
        assert row.analysis is not None
        assert row.analysis.drift.exponent == pytest.approx(true, abs=0.02)
    answers = {one.claim.text: one.answer for one in claims_of(rows)}
    transfers = "With layers' own learning rates, every parameterization transfers"
    assert answers[transfers] == Answer.HOLDS
    assert answers["In ntk and mup, no alignment ends lower than full"] == Answer.DENIED
    # What this preset doesn't have.
    assert list(answers.values()).count(Answer.CANNOT_TELL) == 6


def test_a_grid_goes_on_where_it_was(docs):
    grid, trained = docs
    again = Synthetic(bowl)
    again.trained = dict(itertools.islice(trained.items(), 100))
    again.train(grid)
    assert again.trained == trained


@pytest.mark.parametrize("slope", [-1.0, 1.0])
def test_minima_at_the_edge_are_never_a_verdict(slope):
    """Also where all seeds and widths agree, and the rates can be extended no further."""
    grid = Grid.of(PRESETS["docs"], reach=2)
    losses = Synthetic(lambda one: 3 + slope * 0.1 * math.log2(one.learning_rate)).train(grid)
    rates = {one.learning_rate for one in losses}
    assert (min(rates), max(rates)) == ((2.0**-10, 2.0**-4) if slope > 0 else (2.0**-8, 2.0**-2))
    rows = rows_of(grid, losses)
    for row in rows:
        assert row.analysis is not None and row.analysis.verdict == "cannot tell"
        assert not row.outcome.exponents and not row.outcome.losses
        assert "edge" in row.outcome.no_exponents and "edge" in row.outcome.no_losses
    assert {one.answer for one in claims_of(rows)} == {Answer.CANNOT_TELL}


def test_a_recipe_that_lacks_runs_has_neither_exponent_nor_loss(docs):
    grid, trained = docs
    runs = runs_of(trained)
    planned = {str(one): sum(run.recipe == str(one) for run in runs) for one in grid.sweep.recipes}
    first, *others = grid_rows(grid.sweep.recipes, runs[1:], planned, 128)
    assert str(first.recipe) == runs[0].recipe
    assert not first.outcome.losses and not first.outcome.exponents
    assert all(row.outcome.losses for row in others)


class Biased(eqx.Module):
    """Adam moves its biases by the learning rate, so that how far they come is known."""

    first: eqx.nn.Linear
    norm: eqx.nn.LayerNorm
    last: eqx.nn.Linear

    def __init__(self, width, key):
        self.first = eqx.nn.Linear(3, width, key=key)
        self.norm = eqx.nn.LayerNorm(width)
        self.last = eqx.nn.Linear(width, 1, use_bias=False, key=key)


def judged(model, held_out):
    far = -jnp.mean(model.norm.bias)
    return 2.4 + held_out * (jnp.log2(far) + 5.0 + 0.05 * jnp.sign(model.first.bias[0])) ** 2


BIASED = Problem(
    Biased,
    lambda model, batch: jnp.sum(model.norm.bias) + 0.0 * batch[0],
    data=np.zeros(2, np.float32),
    held_out=np.float32(0.025),
    batch_size=1,
    evaluate=judged,
    name="biased",
)
GLOBAL, FULL = "standard:adam:global", "standard:adam:full"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    sweep = Sweep(
        tuple(map(parse_recipe, (GLOBAL, FULL))),
        sizes=(4, 16),
        learning_rates=(2.0**-9, 2.0**-8, 2.0**-7),
        seeds=(0, 1, 2),
        setting=Setting(base_width=4, steps=3),
    )
    grid = Grid(sweep, {"adam": sweep.learning_rates}, reach=6)
    told = Told()
    train_grid(grid, BIASED, folder, told, engine=Local())
    return grid, folder, told


class Told:
    def __init__(self):
        self.begun, self.groups = [], []

    def begin(self, runs, stored, work, done):
        self.begun.append((runs, stored))

    def group(self, name, runs):
        self.groups.append(name)

    def advance(self, work, loss): ...

    def ended(self, runs, work): ...

    def say(self, line): ...


def test_a_trained_grid_extends_itself_and_its_report_is_rebuilt(trained):
    _, folder, told = trained
    assert len(told.begun) > 2 and told.begun[-1][0] == told.begun[-1][1]
    output = io.StringIO()
    # The biases of a norm have the same learning rate at all widths.
    for one in report(folder, Console(file=output, width=100)):
        assert one.drift.exponent == pytest.approx(0, abs=0.02)
    assert "can't be told: ntk:adam:full is not in this grid" in output.getvalue()
    for name in ("grid.html", "grid.png", "grid.json"):
        assert (folder / name).stat().st_size > 1000
    written = json.loads((folder / "grid.json").read_text(encoding="utf-8"))
    assert [row["recipe"] for row in written["recipes"]] == [GLOBAL, FULL]
    assert len(written["runs"]) == told.begun[-1][0]
    assert "arXiv:2407.05872" in (folder / "grid.html").read_text(encoding="utf-8")


def test_a_finished_grid_trains_nothing(trained):
    grid, folder, _ = trained
    told = Told()
    train_grid(grid, BIASED, folder, told, engine=Local())
    assert len(told.begun) == 1 and not told.groups


def test_the_status_counts_what_was_added(trained):
    _, folder, told = trained
    groups = status(folder / STORE, pytest.fail).groups
    assert {(one.planned, one.finished) for one in groups.values()} <= {(x, x) for x in range(99)}
    assert sum(one.planned for one in groups.values()) == told.begun[-1][0]


def test_what_is_foreseen_is_stored_nowhere(trained):
    grid, folder, _ = trained
    with Store.open(folder / STORE, create=False) as store:
        before = len(list(store.read()))
    small, large = foresee(grid, BIASED, at_once=None)
    # At the base width, both recipes are the same training.
    assert (small.runs, small.trainings) == (18, 9)
    assert (large.runs, large.trainings) == (18, 18)
    assert large.seconds > 0 and large.total >= 18 * large.seconds
    with Store.open(folder / STORE, create=False) as store:
        assert len(list(store.read())) == before


def test_octaves_cannot_be_negative():
    with pytest.raises(UsageError, match="--reach is -1"):
        Grid.of(PRESETS["docs"], reach=-1)
