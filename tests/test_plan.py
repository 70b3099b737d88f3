"""The plan says what the optimizer then does."""

import io
import json
import re
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rich.console

import scalex_eqx as sx
from scalex_eqx._parts import blank_state

RATE = 2.0**-7
ROW = "layers/1/weight"  # Hidden.


def make(width: int) -> eqx.nn.MLP:
    return eqx.nn.MLP(8, 4, width, depth=2, key=jax.random.key(0))


@pytest.fixture
def model() -> Any:
    return sx.parameterize(make, width=64, base_width=16, parameterization=sx.ntk)


def row(plan: sx.Plan, path: str = ROW) -> sx.PlanRow:
    return next(row for row in plan.rows if row.path == path)


def test_a_row_is_the_law_worked_out_by_hand(model):
    tx = sx.adamw(RATE, 0.25, decay_mode="independent", eps=1e-6, role_multipliers={"hidden": 3.0})
    found = row(sx.plan(model, tx))
    # NTK at r = 4: a = 1/2, and under Adam and full alignment c = 1/2 and g = 1.
    assert (found.role, found.shape, found.dtype) == ("hidden", (64, 64), "float32")
    assert found.width_ratio == 4
    assert found.multiplier == 0.5
    assert found.learning_rate_factor == 3 / 2
    assert found.learning_rate == RATE * 3 / 2
    assert found.eps == pytest.approx(1e-6 / 4)
    assert found.weight_decay == 0.25
    assert found.found_std == pytest.approx(
        np.std(np.asarray(model.layers[1].weight.value)), rel=1e-5
    )
    assert row(sx.plan(model, tx), "layers/1/bias").weight_decay == 0


@pytest.mark.parametrize(
    "tx",
    [
        sx.sgd(RATE),
        sx.sgd(RATE, sx.no_alignment),
        sx.sgd(RATE, sx.global_rate),
        sx.sgd(
            RATE, dict.fromkeys(("embedding", "hidden", "readout", "vector", "constant"), "1/3")
        ),
    ],
    ids=["full", "none", "global", "by hand"],
)
def test_learning_rates_are_those_that_are_used(model, tx):
    """A step of SGD on a gradient of ones is the learning rate itself."""
    params = eqx.filter(model, eqx.is_inexact_array)
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = tx.update(ones, tx.init(params), params)
    steps = {path: w.value for path, w in sx.weights_with_paths(updates).items()}
    for found in sx.plan(model, tx).rows:
        assert found.learning_rate is not None
        np.testing.assert_allclose(-steps[found.path], found.learning_rate, rtol=1e-6)


def test_coupled_decay_is_the_share_that_a_step_takes(model):
    tx = sx.adamw(RATE, 0.5, decay_mode="coupled")
    plan = sx.plan(model, tx)
    params = eqx.filter(model, eqx.is_inexact_array)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    steps = sx.weights_with_paths(updates)
    for path, weight in sx.weights_with_paths(params).items():
        np.testing.assert_allclose(
            -steps[path].value, row(plan, path).weight_decay * weight.value, rtol=1e-6
        )
    assert any("coupled weight decay" in warning for warning in plan.warnings)


def test_what_is_traced_or_scheduled_is_not_made_up(model):
    injected = optax.inject_hyperparams(sx.adam)(RATE, eps=1e-9)
    for tx in (injected, sx.adam(optax.constant_schedule(RATE))):
        found = row(sx.plan(model, tx))
        assert found.learning_rate is None and found.learning_rate_factor == 0.5
    assert row(sx.plan(model, injected)).eps is None
    assert row(sx.plan(model, injected)).weight_decay == 0
    assert row(sx.plan(model, injected)).eps_note == "traced"
    plan = jax.eval_shape(lambda rate: note(sx.plan(model, sx.adam(rate))), jnp.float32(RATE))
    assert plan.shape == ()


def note(plan: sx.Plan) -> Any:
    assert row(plan).learning_rate is None
    return jnp.zeros(())


def test_a_model_of_shapes_has_a_plan(model):
    shapes = eqx.filter_eval_shape(lambda: model)
    plan = sx.plan(shapes, sx.adam(RATE))
    assert row(plan).found_std is None
    assert row(plan).learning_rate == row(sx.plan(model, sx.adam(RATE))).learning_rate


def test_partition_gives_each_weight_its_own_rule(model):
    tx = optax.partition(
        {"adam": sx.adam(RATE), "sgd": sx.sgd(1.0, momentum=0.9)},
        lambda params: sx.map_weights(
            lambda w: sx.Weight("sgd" if w.spec.role == "vector" else "adam", w.spec), params
        ),
    )
    plan = sx.plan(model, tx)
    assert row(plan).eps is not None
    assert row(plan, "layers/1/bias").eps is None
    # NTK under SGD: c = -A = -1/2 for vectors, hence a factor of 2.
    assert row(plan, "layers/1/bias").learning_rate == 2.0


def test_a_partition_whose_part_keeps_nothing_is_told_from_the_others(model):
    tx = optax.partition(
        {"adam": sx.adam(RATE), "sgd": sx.sgd(1.0)},
        lambda params: sx.map_weights(
            lambda w: sx.Weight("sgd" if w.spec.role == "vector" else "adam", w.spec), params
        ),
    )
    plan = sx.plan(model, tx)
    assert row(plan, "layers/1/bias").learning_rate == 2.0 and row(plan).learning_rate == RATE / 2
    assert plan.warnings == ()


def test_multi_steps_and_chains_are_looked_through(model):
    tx = optax.MultiSteps(optax.chain(sx.clip_by_effective_norm(1.0), sx.adam(RATE)), 4)
    plan = sx.plan(model, tx)
    assert row(plan).learning_rate == RATE / 2
    assert plan.warnings == ()


def test_other_libraries_are_listed_as_such(model):
    tx = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.scale_by_adam(),
        sx.scale_by_width("adam", sx.full_alignment),
        optax.scale(-RATE),
    )
    plan = sx.plan(model, tx)
    assert row(plan).learning_rate_factor == 0.5 and row(plan).learning_rate is None
    assert plan.optimizer[0].startswith("state[0]  clip_by_global_norm: not this library's")
    assert any("clip_by_effective_norm" in warning for warning in plan.warnings)


def test_an_optimizer_without_learning_rates_for_layers_is_seen(model):
    plan = sx.plan(model, optax.chain(sx.scale_by_adam(), optax.scale(-RATE)))
    assert any("scale_by_width" in warning for warning in plan.warnings)
    base = sx.parameterize(make, width=16, base_width=16, parameterization=sx.ntk)
    assert sx.plan(base, optax.chain(sx.scale_by_adam(), optax.scale(-RATE))).warnings == ()


@pytest.mark.parametrize(
    ("tx", "message"),
    [
        (lambda: sx.adam(RATE, sx.global_rate), "one learning rate at every width"),
        (
            lambda: optax.chain(
                sx.scale_by_adam(),
                sx.scale_by_width("sgd", sx.full_alignment),
                sx.optim.scale_by_learning_rate(RATE),
            ),
            r"family sgd, but the updates have degrees \(0, 0\)",
        ),
        (
            lambda: optax.chain(sx.scale_by_width("adam", sx.full_alignment), sx.adam(RATE)),
            "more than once",
        ),
    ],
    ids=["global", "wrong family", "twice"],
)
def test_wrong_learning_rates_are_seen(model, tx, message):
    found = sx.plan(model, tx()).warnings
    assert any(re.search(message, warning) for warning in found), found


@pytest.mark.parametrize(
    "wrap", [lambda tx: optax.MultiSteps(tx, 4), lambda tx: optax.apply_if_finite(tx, 3)]
)
def test_a_clip_inside_a_wrapper_is_seen(model, wrap):
    tx = wrap(optax.chain(optax.clip_by_global_norm(1.0), sx.adam(RATE)))
    assert any("clip_by_effective_norm" in warning for warning in sx.plan(model, tx).warnings)


def test_a_wrapper_of_the_users_own_is_listed(model):
    class Counted(NamedTuple):
        inner: Any
        count: Any

    def counted(tx):
        def update(updates, state, params=None):
            updates, inner = tx.update(updates, state.inner, params)
            return updates, Counted(inner, state.count + 1)

        return optax.GradientTransformation(
            lambda params: Counted(tx.init(params), jnp.zeros((), jnp.int32)), update
        )

    for inner in (sx.adam(RATE), optax.chain(optax.scale(1.0), sx.adam(RATE), optax.scale(1.0))):
        (line,) = sx.plan(model, counted(inner)).optimizer
        assert line.startswith("state  counted: not this library's")


def test_frozen_weights_and_a_foreign_decay():
    model = sx.parameterize(
        make, width=64, base_width=16, parameterization=sx.ntk, frozen=["layers/0/*"]
    )
    tx = optax.chain(sx.adam(RATE), optax.add_decayed_weights(-0.1))
    (warning,) = sx.plan(model, tx).warnings
    assert "layers/0/weight, layers/0/bias are frozen, which add_decayed_weights" in warning


def test_a_model_that_ignores_its_width_is_seen():
    model = sx.parameterize(lambda _: make(16), width=64, base_width=16, parameterization=sx.ntk)
    assert any("no weight grows" in warning for warning in sx.plan(model, sx.adam(RATE)).warnings)


def test_entries_that_are_not_finite_are_seen(model):
    broken = eqx.tree_at(lambda m: m.layers[1].bias.value, model, jnp.full(64, jnp.nan))
    plan = sx.plan(broken, sx.adam(RATE))
    assert plan.warnings == ("layers/1/bias has entries that are not finite",)
    assert "NaN" not in plan.to_json()


def test_a_model_with_state_has_a_plan():
    class Model(eqx.Module):
        linear: eqx.nn.Linear
        norm: eqx.nn.BatchNorm

        def __init__(self, width):
            self.linear = eqx.nn.Linear(3, width, key=jax.random.key(0))
            self.norm = eqx.nn.BatchNorm(width, "batch", mode="batch")

    both = sx.parameterize(
        lambda width: eqx.nn.make_with_state(Model)(width),
        width=64,
        base_width=16,
        parameterization=sx.ntk,
    )
    assert len(sx.plan(both, sx.adam(RATE)).rows) == 4


def test_a_constant_epsilon_is_seen(model):
    tx = sx.adam(RATE, eps=1e-8, eps_scaling="constant")
    (warning,) = sx.plan(model, tx).warnings
    # NTK's hidden gradients fall as 1/r, and r is 4.
    assert "layers/1/weight" in warning and "weighs 4 times" in warning
    assert sx.plan(model, sx.adam(RATE, eps=1e-8)).warnings == ()


def test_a_clamped_epsilon_is_shown_as_such(model):
    # sqrt(tiny / (1 - b2)) in float32 at b2 = 0.999.
    plan = sx.plan(model, sx.adam(RATE, eps=1e-20))
    assert row(plan).eps_note == "clamped" and row(plan).eps == pytest.approx(3.428e-18, rel=1e-3)
    assert "clamped 3.429e-18" in str(plan)
    assert row(sx.plan(model, sx.adam(RATE))).eps_note == ""


def test_an_epsilon_of_each_weights_own_is_shown(model):
    def eps(spec: sx.WeightSpec) -> float:
        return 1e-6 if spec.role == "hidden" else 1e-9

    plan = sx.plan(model, sx.adam(RATE, eps=eps, eps_scaling="constant"))
    assert (row(plan).eps, row(plan, "layers/1/bias").eps) == (1e-6, 1e-9)


def test_an_epsilon_above_the_gradient_is_seen(model):
    params = eqx.filter(model, eqx.is_inexact_array)
    gradients = jax.tree.map(lambda x: jnp.full_like(x, 1e-7), params)
    tx = sx.adam(RATE, eps=1e-6)
    warnings = sx.plan(model, tx, gradients=gradients).warnings
    assert len(warnings) == len(sx.plan(model, tx).rows)
    assert sx.plan(model, sx.adam(RATE, eps=1e-9), gradients=gradients).warnings == ()
    # Adafactor's stands beside the square.
    assert sx.plan(model, sx.adafactor(RATE, eps=1e-9), gradients=gradients).warnings
    assert sx.plan(model, sx.adafactor(RATE, eps=1e-16), gradients=gradients).warnings == ()


def test_a_wrong_spread_is_seen():
    def declares(std: float) -> sx.Plan:
        def make(width):
            value = 0.5 * jax.random.normal(jax.random.key(0), (width, width))
            return {"w": sx.Weight(value, sx.WeightSpec((-1,), (-2,), std=std))}

        model = sx.parameterize(make, width=32, base_width=16, parameterization=sx.ntk)
        return sx.plan(model, sx.adam(RATE))

    assert declares(0.5).warnings == ()
    (warning,) = declares(0.6).warnings
    assert warning.startswith("w has a spread")


def test_the_base_model_tells_the_intended_spread_of_foreign_arrays(model):
    assert row(sx.plan(model, sx.adam(RATE))).intended_std is None
    found = row(sx.plan(model, sx.adam(RATE), base=make(16)))
    # NTK's b is 0; entries have hardly a mean, so that spread and root mean square agree.
    assert found.intended_std == pytest.approx(np.std(np.asarray(make(16).layers[1].weight)))
    assert found.found_std == pytest.approx(found.intended_std, rel=0.02)
    at_base = sx.parameterize(make, width=16, base_width=16, parameterization=sx.ntk)
    assert row(sx.plan(model, sx.adam(RATE), base=at_base)) == found
    standard = sx.parameterize(make, width=64, base_width=16, parameterization=sx.standard)
    halved = row(sx.plan(standard, sx.adam(RATE), base=make(16)))
    assert found.intended_std is not None and halved.intended_std is not None
    assert halved.intended_std == pytest.approx(found.intended_std / 2)
    assert halved.found_std == pytest.approx(halved.intended_std, rel=0.02)


def test_a_frozen_weight_has_no_learning_rate():
    model = sx.parameterize(
        make, width=64, base_width=16, parameterization=sx.ntk, frozen=["layers/0/*"]
    )
    plan = sx.plan(model, sx.adamw(RATE, 0.1, decay_mode="independent"))
    assert row(plan, "layers/0/weight").role == "embedding"
    assert not row(plan, "layers/0/weight").is_trained
    line = next(line for line in str(plan).splitlines() if line.startswith("layers/0/weight"))
    assert "embedding, frozen" in line and line.split()[-4:] == ["-", "-", "-", "-"]


def test_the_text_has_a_line_for_each_weight(model):
    plan = sx.plan(model, sx.adamw(RATE, 0.25, decay_mode="independent"))
    lines = str(plan).splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(plan.rows)]] == [
        row.path for row in plan.rows
    ]
    assert lines[-1] == f"fingerprint {sx.fingerprint(model)}"


@pytest.mark.parametrize(("width", "lines_a_row"), [(140, 1), (80, 2)])
def test_rich_prints_it_on_screens_of_any_width(model, width, lines_a_row):
    plan = sx.plan(model, sx.adamw(RATE, 0.25, decay_mode="independent"))
    console = rich.console.Console(width=width, record=True, file=io.StringIO())
    console.print(plan)
    drawn = console.export_text()
    table, _, notes = drawn.partition("\n\n")
    assert len(table.splitlines()) == lines_a_row * (1 + len(plan.rows))
    assert max(map(len, table.splitlines())) <= width
    assert all(row.path in table for row in plan.rows) and plan.fingerprint in notes


def test_json_holds_the_rows(model):
    plan = sx.plan(model, sx.adam(RATE))
    read = json.loads(plan.to_json())
    assert [r["path"] for r in read["rows"]] == [r.path for r in plan.rows]
    assert read["rows"][2]["width_ratio"] == "4"
    assert read["fingerprint"] == plan.fingerprint


def test_diff_lists_what_differs(model):
    tx = sx.adam(RATE)
    plan = sx.plan(model, tx)
    assert plan.diff(plan) == ""
    standard = sx.parameterize(make, width=64, base_width=16, parameterization=sx.standard)
    lines = plan.diff(sx.plan(standard, tx)).splitlines()
    assert f"{ROW}: multiplier is 0.5 here, 1 there" in lines
    assert not any("width_ratio" in line for line in lines)
    (line,) = [
        x for x in plan.diff(sx.plan(model, sx.adam(RATE, eps=1e-9))).splitlines() if ROW in x
    ]
    assert "eps" in line


def test_arrays_without_a_law_are_refused():
    with pytest.raises(ValueError, match="layers/0/weight"):
        sx.plan(make(16), sx.adam(RATE))


def test_what_is_of_another_model_is_refused(model):
    other: Any = {"another": jnp.ones(3)}
    with pytest.raises(ValueError, match="base has the width ratio 4; expected the model at the"):
        sx.plan(model, sx.adam(RATE), base=model)
    for options in ({"base": other}, {"gradients": other}):
        with pytest.raises(ValueError, match="has none of the model's weights, which are "):
            sx.plan(model, sx.adam(RATE), **options)


def test_a_function_that_makes_an_optimizer_is_refused(model):
    with pytest.raises(ValueError, match="tx is adam, which has no init and no update; expected"):
        blank_state(sx.adam, model)
