"""Rules that claim not to see the gradient's scale have to train the same at any; others lose."""

from collections.abc import Callable

import numpy as np
import pytest

from numerics.training import runs
from numerics.training.measure import COLUMNS, GRADIENTS, LOSSES
from scalex_eqx.diagnostics import Table

Measured = Callable[[str], dict[str, Table]]

INVARIANT = ("adam_atan2", "adafactor, eps 0", "lion")
# What an epsilon of 1e-12 may cost at 2^-20: gradients, 1e-9 there even at the end, are 1,000
# times that, and updates changed by 1e-3. bfloat16, whose updates are rounded by up to 4e-3, ends
# within 0.03 of float32.
IN_BAND = 0.01
# Of the entries of a gradient, in a 16-bit format: at most one in its 2^8 numbers between two
# powers of two.
CANCELLED = 2.0**-8
WIDE = ("float32", "bfloat16", "bfloat16, moments too")


@pytest.fixture(scope="module")
def losses(measured: Measured, thorough: bool) -> Callable[[str, str], list[float]]:
    rows = measured("training")[LOSSES].by_key()
    steps = runs.MANY_STEPS if thorough else runs.STEPS

    def of(rule: str, form: str) -> list[float]:
        return [float(rows[rule, form, steps][name]) for name in COLUMNS.values()]  # pyright: ignore

    return of


@pytest.fixture(scope="module")
def same(measured: Measured) -> Callable[[str, str], list[str]]:
    rows = measured("training")[LOSSES].rows
    found = {(row["rule"], row["format"]): str(row["same to the bit"]).split(", ") for row in rows}
    return lambda rule, form: found[rule, form]


@pytest.mark.parametrize(("rule", "form"), runs.cases())
def test_every_rule_trains_in_every_format(losses, rule, form):
    """A guard: the entropy of the bytes alone is above 4.3 nats, before training it is 6.0."""
    assert losses(rule, form)[0] < 3.5


@pytest.mark.parametrize("form", WIDE)
@pytest.mark.parametrize("rule", INVARIANT)
def test_what_claims_invariance_loses_nothing(same, rule, form):
    if (rule, form) not in runs.cases():
        pytest.skip(f"the statistics of {rule} are kept in float32")
    assert same(rule, form) == [f"2^{e}" for e in runs.EXPONENTS[1:]]


@pytest.mark.parametrize("form", WIDE)
@pytest.mark.parametrize("rule", ["adam", "adam_parameter_scaling"])
def test_adam_loses_nothing_in_its_band(losses, rule, form):
    found = losses(rule, form)
    assert abs(found[1] - found[0]) < IN_BAND


@pytest.mark.parametrize("form", WIDE)
@pytest.mark.parametrize("rule", ["adam, eps 1e-8", "adam", "adam_parameter_scaling", "adafactor"])
def test_an_epsilon_loses_what_is_below_it(losses, same, rule, form):
    """The negative controls of the tests above: one epsilon that is met, and all at 2^-60."""
    if (rule, form) not in runs.cases():
        pytest.skip(f"the statistics of {rule} are kept in float32")
    found = losses(rule, form)
    assert found[3] > found[0] + 2
    assert "2^-60" not in same(rule, form)
    if rule == "adam, eps 1e-8":
        assert found[2] > found[0] + 2
        assert found[1] > found[0] + 10 * IN_BAND


@pytest.mark.parametrize("rule", runs.RULES)
def test_float16_loses_whatever_the_rule(losses, rule):
    """Without a loss scale nothing arrives of a loss that is 2^-20 times as large."""
    found = losses(rule, "float16")
    # Not a number counts as lost.
    assert not found[1] < found[0] + 2


@pytest.mark.parametrize("trained", [False, True])
def test_it_is_the_backward_pass_that_loses_it(measured, thorough, trained):
    steps = (runs.MANY_STEPS if thorough else runs.STEPS) * trained
    rows = measured("training")[GRADIENTS].by_key()
    for dtype in ("float32", "bfloat16"):
        for exponent in runs.EXPONENTS:
            row = rows[dtype, steps, exponent]
            # Differences of numbers with fewer digits are zero more often, at every scale as often.
            assert row["became zero"] == rows[dtype, steps, 0]["became zero"] < CANCELLED
            assert row["below the normal numbers"] == 0
    assert rows["float16", steps, -20]["became zero"] == 1
    # A loss scale moves the range by as much, and no further.
    zero = [rows["float16", steps, exponent]["became zero"] for exponent in (10, 0, -10)]
    assert zero[0] < CANCELLED and zero[0] <= zero[1] < zero[2] < 1


@pytest.mark.parametrize("rule", INVARIANT)
def test_a_loss_scale_need_not_be_divided_out(rule):
    """Where the rule doesn't see it: float16 with a loss 2^10 times as large, left as it is."""
    divided = runs.trained(rule, "float16, loss scale 2^10", 0)
    left = runs.trained(rule, "float16", 10)
    assert all(map(np.array_equal, divided.weights, left.weights))
    without = runs.trained(rule, "float16", 0)
    assert not all(map(np.array_equal, without.weights, left.weights))
