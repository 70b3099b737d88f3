"""What the plan says of batch size and training length, beside the width."""

from typing import Any

import equinox as eqx
import jax
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.theory import DecayRule, completed_p, malladi

RATE = 2.0**-7


@pytest.fixture(scope="module")
def model() -> Any:
    def make(width: int) -> eqx.nn.MLP:
        return eqx.nn.MLP(8, 4, width, depth=2, key=jax.random.key(0))

    return eqx.filter_eval_shape(
        lambda: sx.parameterize(make, width=64, base_width=16, parameterization=sx.ntk)
    )


def budget_of(plan: sx.Plan) -> list[str]:
    """The lines on the budget, and what each of them says."""
    start = next(i for i, line in enumerate(plan.optimizer) if "budget" in line)
    rest = [line.strip() for line in plan.optimizer[start:] if line.startswith("  ")]
    return [plan.optimizer[start].partition("  ")[2], *rest]


def test_every_number_with_each_size_by_itself(model):
    budget = sx.Budget(completed_p, batch=512, base_batch=128, tokens=16e9, base_tokens=1e9)
    tx = sx.adamw(RATE, 2.0**-9, decay_mode="independent", b1=0.9, b2=0.95, budget=budget)
    plan = sx.plan(model, tx)
    assert budget_of(plan) == [
        "budget Complete(d)P: batch 512, 4 x the base's 128; tokens 1.6e+10, 16 x the base's 1e+09",
        "learning rate: batch^1/2 = 2, tokens^-1/2 = 0.25",
        "1 - b1: batch^1 = 4, tokens^-1 = 0.0625",
        "1 - b2: batch^1 = 4, tokens^-1 = 0.0625",
        "eps: batch^-1/2 = 0.5, tokens^1/2 = 4",
        "weight decay of a step (Complete(d)P): width^0, batch^1 = 4, tokens^-1 = 0.0625",
    ]
    row = next(row for row in plan.rows if row.path == "layers/1/weight")
    # NTK at r = 4 under Adam and full alignment: c = 1/2, g = 1. The factor is the width's alone.
    assert row.learning_rate_factor == 0.5
    assert row.learning_rate == RATE / 2 * 0.5
    assert row.eps == pytest.approx(1e-12 * 2 / 4)
    assert row.weight_decay == 2.0**-11
    assert str(plan).count("batch^1/2 = 2, tokens^-1/2") == 1


def test_decay_that_follows_the_width_is_in_its_row(model):
    rule = DecayRule("mine", width=sx.LayerExponents(0, "-1/2", 1), batch=1)
    budget = sx.Budget(malladi.with_decay(rule), batch=4, base_batch=1)
    tx = sx.adamw(RATE, 2.0**-9, decay_mode="independent", b1=0.75, budget=budget)
    plan = sx.plan(model, tx)
    decay = {row.role: row.weight_decay for row in plan.rows}
    assert decay["embedding"] == 2.0**-7
    assert decay["hidden"] == 2.0**-7 / 2
    assert decay["readout"] == 2.0**-7 * 4
    said = "embedding width^0, hidden width^-1/2, readout width^1"
    assert budget_of(plan)[-1] == f"weight decay of a step (mine): {said}, batch^1 = 4, tokens^?"
    assert f"weight_decay 0.007812 (scales as {said})" in plan.optimizer[-1]


def test_coupled_decay_follows_the_rate_with_the_width(model):
    rule = malladi.with_decay(DecayRule("per example", batch=1))
    tx = sx.adamw(
        RATE, 0.25, decay_mode="coupled", b1=0.75, budget=sx.Budget(rule, batch=4, base_batch=1)
    )
    plan = sx.plan(model, tx)
    assert budget_of(plan)[-1] == (
        "weight decay of a step (per example): with the width as the learning rate, batch^1 = 4, "
        "tokens^?"
    )
    # lambda doubles and the rate doubles: a step takes four times as much.
    row = next(row for row in plan.rows if row.path == "layers/1/weight")
    assert row.weight_decay == 4 * RATE * 0.25 * 0.5


def test_what_an_optimizer_lacks_is_not_said(model):
    budget = sx.Budget(sx.theory.malladi_sgd, batch=4, base_batch=1)
    found = budget_of(sx.plan(model, sx.sgd(RATE, momentum=0.9, budget=budget)))
    assert found[1:] == ["learning rate: batch^1 = 4"]
    same = sx.Budget(malladi, batch=4, base_batch=4)
    plan = sx.plan(
        model, sx.adam_atan2(RATE, weight_decay=0.1, decay_mode="independent", budget=same)
    )
    assert budget_of(plan)[1:] == [
        "learning rate: batch^1/2 = 1",
        "1 - b1: batch^1 = 1",
        "1 - b2: batch^1 = 1",
        "weight decay: the rule has none, and nothing grows",
    ]


def test_each_part_of_a_partition_has_its_own(model):
    """Where the optimizers see other weights, each says what its own budget does to it."""
    one = sx.adam(RATE, b1=0.75, budget=sx.Budget(malladi, batch=4, base_batch=1))
    other = sx.sgd(RATE, budget=sx.Budget(sx.theory.malladi_sgd, batch=9, base_batch=1))

    def labels(params: Any) -> Any:
        return jax.tree.map(
            lambda w: "matrix" if w.value.ndim == 2 else "rest",
            params,
            is_leaf=lambda x: isinstance(x, sx.Weight),
        )

    plan = sx.plan(model, optax.partition({"matrix": one, "rest": other}, labels))
    text = "\n".join(plan.optimizer)
    assert text.count("budget ") == 2 and text.count("1 - b1") == 1
    assert "learning rate: batch^1/2 = 2" in text and "learning rate: batch^1 = 9" in text


def test_the_parts_of_another_optimizer_are_left_out(model):
    """A rule that stands in front was made without the budget, and has the numbers it was given."""
    budget = sx.Budget(sx.theory.malladi_sgd, batch=4, base_batch=1)
    tx = optax.chain(sx.scale_by_adam(0.9, 0.95), sx.sgd(RATE, budget=budget))
    assert budget_of(sx.plan(model, tx))[1:] == ["learning rate: batch^1 = 4"]


def test_without_a_budget_nothing_is_said(model):
    assert not any("budget" in line for line in sx.plan(model, sx.adam(RATE)).optimizer)
