"""Which parameterization an epsilon bites first, at what width, and which rules it leaves alone."""

import math
from collections.abc import Callable

import numpy as np
import pytest

import scalex_eqx as sx
from numerics.language_model import BASE_WIDTH
from numerics.width import epsilon, exponents, fit, headroom, rounding, strength
from numerics.width.gradients import (
    MATRICES,
    PARAMETERIZATIONS,
    ROLES,
    STEPS,
    Place,
    of_model,
    seen,
    trained,
)
from numerics.width.strength import ATAN2, CONSTANT, FOLLOWING, LOST
from numerics.width.survey import ALL
from scalex_eqx.diagnostics import Table

Measured = Callable[[str], dict[str, Table]]
STARTS = tuple(PARAMETERIZATIONS)

# Gradients' sizes scatter by 10 % from draw to draw, their means over four seeds by 5 %; muP's
# logits fade as the model widens, which shifts exponents by less than 0.01. A slope over two
# octaves then scatters by 0.05.
EXPONENT = 0.12
# A size that is off by 5 % shifts the part of an update by 0.05 part (1 - part), 0.01 at most.
PART = 0.02
# And the width at which a part is lost by 5 % / exponent, 10 % for the smallest.
CROSSING = 0.15


@pytest.fixture(scope="module")
def tables(measured: Measured) -> dict[str, Table]:
    return measured("width")


@pytest.fixture(scope="module")
def crossings(tables) -> dict[str, dict]:
    """At initialisation, by parameterization."""
    rows = tables[epsilon.CROSSINGS].rows
    return {row["parameterization"]: row for row in rows if row["steps"] == 0}


@pytest.fixture(scope="module")
def parts(tables) -> Callable[[str, str], list[float]]:
    """At initialisation, by width."""
    rows = [row for row in tables[epsilon.PARTS].rows if row["steps"] == 0]
    return lambda name, rule: [r[rule] for r in rows if r["parameterization"] == name]  # pyright: ignore


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", STARTS)
def test_gradients_fall_as_theory_has_it(tables, name, role):
    row = tables[exponents.NAME].by_key()[0, name, role, ALL]
    assert abs(row["exponent"] - row["theory"]) < EXPONENT
    # The negative control: the nearest other exponent is half a power away.
    assert abs(row["exponent"] - row["theory"] - 0.5) > 2 * EXPONENT


def test_the_order_in_which_a_constant_epsilon_bites(crossings):
    found = {name: crossings[name]["measured"] for name in STARTS}
    assert found["mean_field"] < min(found["ntk"], found["mup"])
    assert max(found["ntk"], found["mup"]) < found["standard"] < math.inf
    assert found["ntk"] == pytest.approx(found["mup"], rel=0.03)


@pytest.mark.parametrize("name", STARTS)
def test_the_width_at_which_it_bites_is_predicted(crossings, name):
    row = crossings[name]
    for predicted in epsilon.PREDICTIONS:
        assert row["measured"] == pytest.approx(row[predicted], rel=CROSSING)


def test_another_parameterizations_prediction_is_wrong(crossings):
    """The negative control: muP's width for the standard one, and the other way round."""
    for name, other in (("standard", "mup"), ("mup", "standard")):
        predicted = crossings[other][epsilon.PREDICTIONS[0]]
        assert crossings[name]["measured"] != pytest.approx(predicted, rel=CROSSING)


@pytest.mark.parametrize("name", STARTS)
def test_the_part_that_is_left_is_predicted(parts, name):
    """From the base model's gradients and theory's exponent."""
    assert parts(name, CONSTANT) == pytest.approx(parts(name, "predicted"), abs=PART)


def vanishes(found: list[float]) -> bool:
    """Whether the width doesn't matter."""
    return max(found) - min(found) < PART


@pytest.mark.parametrize("name", STARTS)
def test_it_vanishes_under_other_epsilons(parts, name):
    """With the width, and without; the negative control is the constant one."""
    assert vanishes(parts(name, FOLLOWING))
    assert parts(name, ATAN2) == [1.0] * len(parts(name, ATAN2))
    assert not vanishes(parts(name, CONSTANT))


def test_the_base_model_is_one_for_all(tables):
    rows = [row for row in tables[epsilon.PARTS].rows if row["width"] == BASE_WIDTH]
    for row in rows:
        # The rule itself against Adam's formula in float64, for the same gradients.
        assert row[CONSTANT] == pytest.approx(row["predicted"], rel=1e-4)
        assert row[CONSTANT] == row[FOLLOWING]


def test_a_converted_model_is_the_one_that_would_have_been_trained():
    """Trained as it is, its gradients are those of the conversion; the negative control: muP's."""
    place = Place("ntk", 128, 0, STEPS[1])
    own = of_model(trained(sx.ntk, place.width, place.seed, place.steps), place.seed)
    converted, other = seen(place), seen(place._replace(parameterization="mup"))
    for path, weight in own.items():
        size = np.linalg.norm(weight.gradients)
        # Both round differently in each of 40 steps, and text is chaotic only over many more.
        assert np.linalg.norm(converted[path].gradients - weight.gradients) < 0.02 * size
        assert np.linalg.norm(other[path].gradients - weight.gradients) > 0.1 * size


def test_predictions_beyond_follow_from_the_base_model(tables):
    """n0 (eps0 / eps)^(1 / gamma), and an interval that holds what theory's exponent gives."""
    for row in tables[epsilon.BEYOND].rows:
        if row["steps"] == 0 and row["role"] == epsilon.ROLE:
            gamma = exponents.theory(row["parameterization"], epsilon.ROLE)
            width = BASE_WIDTH * (row["epsilon at the base width"] / 1e-8) ** (1 / gamma)
            assert row["1e-08 low"] < width < row["1e-08 high"]


@pytest.mark.parametrize("role", MATRICES)
@pytest.mark.parametrize("name", STARTS)
def test_steps_in_bfloat16(tables, name, role):
    """Against the closed form. An entry contributes at most 8 units of its mean, 4 seeds have at
    least 20,000 entries with a gradient, 400,000 the hidden weights."""
    tolerance = 0.01 if role == "hidden" else 0.05
    for row in tables[headroom.ROUNDED].rows:
        if (row["parameterization"], row["role"]) == (name, role):
            assert row["measured"] == pytest.approx(row["predicted"], abs=tolerance)


def test_where_bfloat16_loses_a_tenth(tables):
    """Hidden weights of the standard parameterization, at a learning rate that is in reach."""
    rate = rounding.LEARNING_RATES[-1]
    rows = [
        row
        for row in tables[headroom.ROUNDED].rows
        if (row["parameterization"], row["role"], row["learning rate"])
        == ("standard", "hidden", rate)
    ]
    predicted = tables[headroom.ROUNDED_BEYOND].by_key()["standard", "hidden", "bfloat16"]
    width = predicted[f"learning rate 2^{math.log2(rate):.0f}"]
    for row in rows:
        assert (row["measured"] < LOST) == (row["width"] >= width)
    assert {row["measured"] < LOST for row in rows} == {True, False}


def test_the_closed_form_of_rounding():
    """Against as many roundings of drawn numbers, for steps that are no power of two."""
    own = [rounding.Drawn(1, 0.125, 0.5, 1.0)]
    random = np.random.default_rng(0)
    for rate in (2.0**-10, 3e-4, 1e-4):
        weights = (0.125 * random.normal(size=400_000)).astype("bfloat16")
        moved = (weights.astype(np.float32) + np.float32(rate)).astype("bfloat16")
        part = (moved.astype(np.float64) - weights.astype(np.float64)).mean() / rate
        # Between two powers of two all is exact; across them it is not, by up to 0.02.
        assert rounding.expected(own, rate, "bfloat16", 1.0) == pytest.approx(part, abs=0.02)
        assert rounding.expected(own, rate, "float32", 1.0) == pytest.approx(1, abs=0.01)


def test_fits_and_crossings():
    sizes = 3.0 * np.array([64.0, 128.0, 256.0])[:, None] ** -0.75 * np.ones(2)
    assert fit.falls((64, 128, 256), sizes).value == pytest.approx(0.75)
    # Lost to an epsilon that follows sigma / eps = 16 (n / 64)^-1: 10 % at 9.
    parts = [1 / (1 + n / 64 / 16) for n in (64, 128, 256)]
    assert fit.crossing((64, 128, 256), parts, 0.9) == pytest.approx(64 * 16 / 9)
    assert fit.crossing((64, 128), [0.99, 0.95], 0.9) == math.inf
    assert math.isnan(fit.crossing((64, 128), [0.5, 0.4], 0.9))


def test_the_epsilon_that_takes_a_tenth():
    """Of a constant gradient it is a ninth."""
    gradients = np.full((4, 3), 0.25, np.float32)
    found = strength.epsilon_that_takes_a_tenth(strength.moments(gradients))
    assert found == pytest.approx(0.25 / 9, rel=1e-5)
