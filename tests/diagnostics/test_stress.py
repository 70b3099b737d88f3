"""`stress` against rules whose behaviour is known in closed form, faulty ones among them."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.diagnostics import (
    Results,
    StressBand,
    compare,
    headroom,
    record,
    stress,
    stress_expectations,
    stress_figure,
    stress_rules,
    stress_table,
)
from scalex_eqx.diagnostics._stress._rules import NOT_STRESSED
from scalex_eqx.optim._catalogue import catalogue

# In float16 there are 40 scales, in float32 277.
QUICK = {"steps": 4, "gradient": "constant", "gradient_dtype": "float16"}


def entrywise(f):
    """A rule without memory."""
    return optax.stateless(lambda updates, _: jax.tree.map(f, updates))


def quick(tx, **options):
    return stress(tx, **(QUICK | options))


@pytest.fixture(scope="module")
def adam():
    return quick(sx.adam(0.5, eps=2.0**-10, eps_scaling="constant"))


def test_adam_loses_its_strength_to_epsilon_as_its_formula_says(adam):
    for scale in adam.scales[1:]:
        # The update of a constant gradient g is g / (g + eps); rounded to float16.
        at_unit = 1 / (1 + 2.0**-10)
        expected = 1 / (1 + 2.0 ** (-10 - scale.exponent)) / at_unit
        assert scale.strength == pytest.approx(expected, rel=2.0**-9), scale
        assert scale.deviation < 2.0**-9
    # 0.9 at 9 eps, which is 2^-6.83.
    assert adam.full == (-6, 15) and adam.safe == adam.full
    assert adam.formula == adam.sweep == (-24, 15)
    assert adam.degree == 0 and adam.infinity == "shown"
    # At 2^-10, epsilon itself, a little more than half of what there is at 1.
    assert adam.below == "fades: half lost at 2^-11"
    assert adam.above == "nothing, the dtype ends"
    assert adam.excess == pytest.approx(1 + 2.0**-10, rel=2.0**-9)


def test_a_linear_rule_is_exact_everywhere():
    result = quick(sx.sgd(0.25))
    assert result.degree == 1
    # The constant gradient is a power of two, and the update has the dtype of the weights, float32.
    assert result.formula == result.full == result.exact == (-24, 15)
    assert result.largest == 1


@pytest.mark.parametrize(
    "rule, below, above",
    [
        (lambda g: jnp.where(jnp.abs(g) < 2.0**-5, 3.0, 1.0), "saturates at 3 times", "nothing"),
        (
            lambda g: jnp.where(jnp.abs(g) < 2.0**-5, 2.0**-22 / g, 2.0**-22),
            "explodes to 1.7e+07 times the update at 2^-24",
            "nothing",
        ),
        (
            lambda g: jnp.where(jnp.abs(g) > 2.0**6, 0.0, 1.0),
            "nothing",
            "stalls: half lost at 2^7",
        ),
        (
            lambda g: jnp.where(jnp.abs(g) > 2.0**6, jnp.inf, 1.0),
            "nothing",
            "not finite from 2^7",
        ),
        (
            lambda g: jnp.where(jnp.abs(g) < 2.0**-3, jnp.nan, 1.0),
            "not finite from 2^-4",
            "nothing",
        ),
        (lambda g: jnp.where(jnp.abs(g) < 2.0**-3, 0.8, 1.0), "fades: 20% lost at", "nothing"),
        (
            lambda g: jnp.where(jnp.abs(g) > 2.0**8, jnp.inf, jnp.where(jnp.abs(g) > 4, 0.0, 1.0)),
            "nothing",
            "stalls: half lost at 2^3, not finite from 2^9",
        ),
    ],
)
def test_what_happens_outside_is_named(rule, below, above):
    result = quick(entrywise(lambda g: rule(g.astype(jnp.result_type(float)))))
    assert result.below.startswith(below) and result.above.startswith(above)


def test_a_rule_that_rounds_is_off_its_formula():
    # A third, rounded to two bits of mantissa: 0.3125.
    def coarse(g):
        third = g.astype(jnp.result_type(float)) / 3
        narrow = g.dtype != jnp.float64
        return jax.lax.reduce_precision(third, 8, 2) if narrow else third

    result = quick(entrywise(coarse))
    assert result.deviation == pytest.approx(1 / 16, rel=1e-3)
    assert result.safe is None and result.formula is None
    assert "nowhere safe: 0.062 off its formula" in str(result)
    assert result.full == result.exact


def test_an_inexact_constant_is_not_scale_invariant():
    result = quick(entrywise(lambda g: g + 2.0**-4))
    # 1 + 2^-4 at 1; the bias is 11 % at 2^-1 and 6.25 % at 1.
    assert result.exact == (0, 0) and result.degree == 1


@pytest.mark.parametrize(
    "tx, infinity",
    [
        (sx.lion(1.0), "shown"),
        (optax.lion(1.0), "hidden"),
        (sx.optim.skip_nonfinite(sx.adam(1.0)), "dropped"),
    ],
)
def test_a_single_infinity(tx, infinity):
    assert quick(tx).infinity == infinity


def test_gradients_of_other_kinds():
    """A rule that reports the gradient: its sizes are those of the kind."""
    noisy, sparse, dropping = (
        quick(entrywise(lambda g: g), gradient=kind) for kind in ("noisy", "sparse", "dropping")
    )
    # The largest of 16384 numbers from N(0.1, 1) is between 3.5 and 5.5 of their RMS; if fifteen
    # in sixteen of them are 0, the RMS is a quarter.
    assert 3.5 < noisy.largest < 5.5 and 12 < sparse.largest < 22
    # 256 times larger before the drop than at the end.
    assert dropping.largest == pytest.approx(256 * noisy.largest, rel=1e-3)
    assert noisy.safe is not None and noisy.safe.high == noisy.sweep.high


def test_a_rule_whose_state_cannot_be_widened_is_measured():
    # Optax accumulates in float32, in one branch of a condition.
    tx = optax.MultiSteps(optax.sgd(1.0), 2).gradient_transformation()
    assert quick(tx).safe == (-24, 15)


def test_the_weights_dtype_is_the_rules_own():
    # Optax keeps its second moment in the weights' dtype: (1 - b2) g^2 is 0 below 2^-7.
    result = quick(optax.adam(1.0), parameter_dtype="float16")
    assert result.full is not None and result.full.low >= -8


@pytest.mark.parametrize(
    "options, message",
    [
        ({"steps": 5}, "steps is 5; expected an even number"),
        ({"steps": 2}, "steps is 2"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(ValueError, match=message):
        quick(optax.sgd(1.0), **options)


def test_results_are_a_table_and_a_text(adam):
    table = stress_table([adam, dataclasses.replace(adam, name="another")])
    results = record([table, adam.table()], "x")
    assert compare(results, Results.from_json(results.to_json())) == ()
    (row, _) = table.rows
    assert (row["safe_low"], row["safe_high"], row["infinity"]) == (-6, 15, "shown")
    assert len(adam.table().rows) == 40
    text = str(adam)
    assert "safe from 2^-6 to 2^15, out of 2^-24 to 2^15" in text
    assert "constant gradients in float16, weights in float32, 4 steps" in text
    assert stress_table([]).rows == ()


def test_the_picture_has_a_curve_and_a_bar_for_each_rule(adam):
    figure = stress_figure([adam, dataclasses.replace(adam, name="another")])
    upper, lower = figure.axes
    assert len(upper.lines) == 2
    assert [label.get_text() for label in lower.get_yticklabels()] == ["update rule", "another"]
    # The line is the curve, down to the picture's edge.
    x, y = (np.asarray(values) for values in upper.lines[0].get_data())
    np.testing.assert_array_equal(x, range(-24, 16))
    assert y[list(x).index(0)] == 1 and y.min() == 2.0**-8


@pytest.fixture(scope="module")
def judged():
    """A named rule as it is, whose result other rules are then given."""
    return stress(stress_rules["adam-1e-8"].make(), gradient="constant", steps=4)


def failed(rule, result):
    return {e.quantity for e in stress_expectations(stress_rules[rule], result) if not e.holds}


def test_a_rule_does_what_is_expected_of_it(judged):
    assert failed("adam-1e-8", judged) == set()


def test_what_is_not_expected_is_found(judged):
    # The bands of epsilon 1e-8 are those of no other epsilon.
    assert failed("adam-1e-15", judged) == {"full_low"}
    # 1e-12 follows the width, but not at the base width.
    assert failed("adam", judged) == {"full_low"}
    # Its square overflows, which a rule without a square must not.
    assert failed("adam_atan2", judged) == {"full_low", "full_high"}
    assert failed("optax.lion", judged) >= {"infinity"}
    # It does not explode.
    assert failed("optax.adam-1e-30", judged) >= {"excess"}


def test_a_fault_in_the_rule_is_found(judged):
    def with_scale(k, **changes):
        scales = [s._replace(**changes) if s.exponent == k else s for s in judged.scales]
        return dataclasses.replace(judged, scales=tuple(scales))

    assert failed("adam-1e-8", with_scale(-40, largest=2.0)) == {"excess"}
    assert failed("adam-1e-8", with_scale(0, deviation=0.02)) == {"deviation"}
    assert failed("adam-1e-8", with_scale(0, strength=2.0)) == {"full_low", "full_high"}
    assert failed("adam-1e-8", with_scale(10, strength=0.8)) == {"full_high"}
    hidden = dataclasses.replace(judged, infinity="hidden")
    assert failed("adam-1e-8", hidden) == {"infinity"}


def hidden_weight():
    """A hidden weight's spec: its gradient is r^-1/2 in the standard parameterization."""
    layer = sx.parameterize(
        lambda width: {"w": sx.nn.Linear(width, width, key=jax.random.key(0))},
        width=32,
        base_width=16,
        parameterization=sx.standard,
    )
    return sx.weights_with_paths(layer)["w/weight"].spec


def test_headroom_of_a_constant_epsilon(judged):
    # From 2^-10 by half an octave an octave of width to the edge at 2^-23: 26 octaves.
    gradients = {"near": (hidden_weight(), 2.0**-10), "far": (hidden_weight(), 2.0**-2)}
    assert judged.full == StressBand(-23, 63)
    found = headroom(stress_rules["adam-1e-8"], judged, gradients, width=64 * 2**8, base_width=64)
    assert found is not None and found.weight == "near"
    assert found.gradient == -14 and found.edge == -23 and found.octaves == 9
    assert found.lost_at == pytest.approx(64 * 2.0**26)


def test_headroom_of_an_epsilon_that_follows_the_width(judged):
    gradients = {"w": (hidden_weight(), 2.0**-10)}
    rule = dataclasses.replace(stress_rules["adam-1e-8"], epsilon=stress_rules["adam"].epsilon)
    near, far = (
        headroom(rule, judged, gradients, width=64 * 2**k, base_width=64) for k in (8, 300)
    )
    assert near is not None and far is not None
    # The edge falls as the gradient does: 13 octaves at every width,
    assert near.edge == -27 and near.octaves == 13
    # until (1 - b1) g underflows, 2^-126 / 0.1 = 2^-122.7, at 225 octaves of width.
    assert far.edge == pytest.approx(-126 - math.log2(0.1)) and far.octaves < 0
    assert math.log2(far.lost_at / 64) == pytest.approx(2 * (126 - 10 + math.log2(0.1)))


def test_headroom_of_what_never_shrinks_or_has_no_edge(judged):
    fixed = dataclasses.replace(hidden_weight(), role=sx.Role.constant)
    gradients = {"w": (fixed, 2.0**-10), "without a gradient": (fixed, 0.0)}
    found = headroom(stress_rules["adam-1e-8"], judged, gradients, width=2**20, base_width=64)
    assert found is not None and found.octaves == 13 and math.isinf(found.lost_at)
    lost = dataclasses.replace(
        judged, scales=tuple(s._replace(strength=0.5) for s in judged.scales)
    )
    rule = stress_rules["adam-1e-8"]
    assert headroom(rule, lost, gradients, width=64, base_width=64) is None


def test_every_rule_of_the_catalogue_has_limits_or_is_named_as_having_none():
    """Each rule of the library by its name, and made with its own defaults."""
    own = {name for name in stress_rules if not name.startswith("optax.")}
    assert {name.split("-")[0] for name in own} | set(NOT_STRESSED) == set(catalogue)
    assert not own & set(NOT_STRESSED)
    for name in own:
        state: Any = jax.eval_shape(stress_rules[name].make().init, {})
        assert dict(state[0].rule.settings).get("b2") in (None, 0.99, 0.999)
