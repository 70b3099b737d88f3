"""Rules for batch size, training length and decay against what is printed in their sources."""

import dataclasses
import math
import re
from fractions import Fraction
from typing import Any

import pytest
from jaxtyping import TypeCheckError

from scalex_eqx.theory import (
    Budget,
    BudgetRule,
    DecayRule,
    Growth,
    LayerExponents,
    budget_rules,
    completed_p,
    completed_p_decay,
    decay_rules,
    fan_decay,
    horizons,
    kosson_decay,
    malladi,
    malladi_sgd,
    power_lines_decay,
    sdew,
    sdew_decay,
)

F = Fraction
HALF = F(1, 2)


def test_square_root_rule_for_adam():
    """Learning rate sqrt(B), both 1 - beta times B, epsilon 1 / sqrt(B); of tokens it is silent."""
    assert (malladi.learning_rate.batch, malladi.eps.batch) == (HALF, -HALF)
    assert malladi.one_minus_b1.batch == malladi.one_minus_b2.batch == 1
    assert malladi.gradient_degree == 0 and malladi.decay is None
    growths = (malladi.learning_rate, malladi.one_minus_b1, malladi.one_minus_b2, malladi.eps)
    assert {growth.tokens for growth in growths} == {None}


def test_linear_rule_for_sgd():
    assert malladi_sgd.learning_rate == Growth(1, None)
    assert malladi_sgd.gradient_degree == 1


def test_completed_p_is_its_table():
    """sqrt(B / D), B / D and sqrt(D / B), at ratios whose roots are exact."""
    budget = Budget(completed_p, batch=4, base_batch=1, tokens=32, base_tokens=2)
    assert (budget.batch_ratio, budget.token_ratio) == (4, 16)
    assert budget.factor("learning_rate") == math.sqrt(4 / 16)
    assert budget.factor("eps") == math.sqrt(16 / 4)
    assert budget.factor("one_minus_b1") == budget.factor("one_minus_b2") == 4 / 16
    # Its coefficient is AdamW's, sqrt(B / D), beside a learning rate of sqrt(B / D).
    assert budget.decay_factor(coupled=True) == math.sqrt(4 / 16)
    assert budget.decay_factor(coupled=False) == 4 / 16
    assert completed_p.decay_growth(coupled=True) == Growth("1/2", "-1/2")


def test_sdew_is_its_code():
    """The rate stays; lambda, 1 - beta2 and epsilon go with the root of the batch."""
    assert sdew.learning_rate == sdew.one_minus_b1 == Growth(0, None)
    assert sdew.one_minus_b2 == Growth("1/2", None) and sdew.eps == Growth("-1/2", None)
    assert sdew.decay_growth(coupled=True) == Growth("1/2", None)


# Exponents of hidden's lambda and of its learning rate: width, batch, tokens.
PRINTED = [
    (completed_p_decay, (1, HALF, -HALF), (-1, HALF, -HALF)),
    (kosson_decay, (1, None, None), (-1, None, None)),
    (fan_decay, (HALF, None, None), (-1, None, None)),
    (sdew_decay, (None, HALF, None), (None, 0, None)),
    # tau = B / (omega D) as (D / N)^-0.527, at a fixed number N of parameters.
    (power_lines_decay, (None, 1, -1 + F("0.527")), (None, 0, 0)),
]


@pytest.mark.parametrize(("rule", "coefficient", "rate"), PRINTED, ids=lambda x: str(x)[:20])
def test_decay_of_a_step_is_the_product_of_rate_and_coefficient(rule, coefficient, rate):
    expected = [
        None if x is None or y is None else x + y for x, y in zip(coefficient, rate, strict=True)
    ]
    width = None if rule.width is None else rule.width.hidden
    assert [width, rule.batch, rule.tokens] == expected


def test_rules_that_mix_sizes_agree_once_they_are_apart():
    """nanochat's decay was found to fall as n^-1.97 where the tokens grow as n^2."""
    assert completed_p_decay.width is not None and completed_p_decay.tokens is not None
    assert completed_p_decay.width.hidden + 2 * completed_p_decay.tokens == -2


def test_published_horizons_span_what_is_in_use():
    assert min(horizons.values()) == -HALF and max(horizons.values()) == F("-0.28")
    assert horizons["bjorck"] == horizons["hyperp"] == F(-8, 25)


def test_names_find_the_rules():
    assert budget_rules["malladi"] is malladi and budget_rules["completed_p"] is completed_p
    assert decay_rules["fan"] is fan_decay and len(decay_rules) == 5
    with pytest.raises(TypeError):
        budget_rules["malladi"] = sdew  # pyright: ignore[reportIndexIssue]


def test_a_horizon_is_the_learning_rates_alone():
    rule = malladi.with_horizon("-0.32")
    assert rule.learning_rate == Growth("1/2", "-8/25")
    assert rule.eps == Growth("-1/2", 0) and rule.one_minus_b2 == Growth(1, 0)
    other = completed_p.with_horizon(horizons["bjorck"])
    assert other.learning_rate == Growth("1/2", "-8/25") and other.eps == completed_p.eps
    budget = Budget(rule, batch=2, base_batch=2, tokens=1e10, base_tokens=1e9)
    assert budget.factor("learning_rate") == pytest.approx(10**-0.32, rel=1e-15)


def test_nothing_grows_at_the_base():
    """Exactly one, whatever the rule doesn't say."""
    for rule in budget_rules.values():
        budget = Budget(rule, batch=96, base_batch=96, tokens=7e9, base_tokens=7e9)
        assert {budget.factor(name) for name in ("learning_rate", "eps", "one_minus_b1")} == {1.0}
        assert budget.decay_factor(coupled=False) == budget.decay_factor(coupled=True) == 1.0


def test_ratios_are_exact():
    budget = Budget(malladi, batch=0.5, base_batch=F(1, 6), tokens=None)
    assert (budget.batch_ratio, budget.token_ratio) == (3, 1)
    assert budget == Budget(malladi, batch=0.5, base_batch=F(1, 6))
    assert len({budget, Budget(malladi, batch=0.5, base_batch=F(1, 6))}) == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"batch": 0}, "batch is 0; expected a positive, finite number"),
        ({"batch": math.inf}, "batch is inf"),
        ({"batch": 10**400}, "batch is 1000"),
        ({"base_batch": -1}, "base_batch is -1"),
        ({"base_batch": True}, "base_batch is True"),
        ({"tokens": math.nan, "base_tokens": 1}, "tokens is nan"),
        ({"tokens": 2}, "tokens is 2 and base_tokens None; give both, or neither"),
        (
            {"rule": completed_p},
            r"the training length \(learning_rate tokens\^-1/2, .*give",
        ),
        ({"rule": malladi.with_horizon("-1/2")}, r"\(learning_rate tokens\^-1/2\); give tokens"),
    ],
)
def test_a_budget_that_is_none_is_refused(more: dict[str, Any], message: str):
    given: dict[str, Any] = {"rule": malladi, "batch": 2, "base_batch": 1, **more}
    with pytest.raises(ValueError, match=message):
        Budget(**given)


def test_what_a_rule_does_not_say_is_an_error_where_it_matters():
    longer = Budget(malladi, batch=2, base_batch=1, tokens=10, base_tokens=1)
    with pytest.raises(ValueError, match=r"'malladi' doesn't say how eps follows the training "):
        longer.factor("eps")
    silent = dataclasses.replace(malladi, eps=Growth(None))
    with pytest.raises(ValueError, match=r"eps follows the batch size, which is 2 times .*Grow"):
        Budget(silent, batch=2, base_batch=1).factor("eps")
    for coupled in (False, True):
        with pytest.raises(ValueError, match=r"how weight decay follows the batch.*with_decay"):
            Budget(malladi, batch=2, base_batch=1).decay_factor(coupled=coupled)
        # The width's exponent is known, the batch's isn't.
        with pytest.raises(ValueError, match="how weight decay follows the batch size"):
            rule = malladi.with_decay(fan_decay)
            Budget(rule, batch=2, base_batch=1).decay_factor(coupled=coupled)
    with pytest.raises((ValueError, TypeCheckError)):
        longer.factor("lr")  # pyright: ignore[reportArgumentType]


def test_a_factor_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match=r"batch is 1e\+300 and base_batch 1e-300; expected"):
        Budget(malladi_sgd, batch=1e300, base_batch=1e-300)
    for exponent, factor in ((3, "1e+36"), (400, "inf"), (-400, "0")):
        steep = dataclasses.replace(malladi_sgd, learning_rate=Growth(exponent))
        message = (
            rf"batch size to the power {exponent} at the ratio 1e\+12 is {re.escape(factor)}; "
        )
        with pytest.raises(ValueError, match=message):
            Budget(steep, batch=1e12, base_batch=1).factor("learning_rate")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Growth(batch="0.5x"), "batch is '0.5x'"),
        (lambda: Growth(tokens="half"), "tokens is 'half'"),
        (lambda: DecayRule("mine", width="half"), "width is 'half'"),
        (lambda: DecayRule("mine", batch="half"), "batch is 'half'"),
        (lambda: malladi.with_horizon("third"), "tokens is 'third'"),
        (lambda: BudgetRule("mine", gradient_degree=2), "'mine' is 2; expected 0, as for Adam"),
    ],
)
def test_exponents_are_exact(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Growth(-0.32),  # pyright: ignore[reportArgumentType]
        lambda: malladi.with_horizon(-0.32),  # pyright: ignore[reportArgumentType]
        lambda: DecayRule("mine", width=0.5),  # pyright: ignore[reportArgumentType]
        lambda: Budget(malladi, batch=None, base_batch=1),  # pyright: ignore[reportArgumentType]
        lambda: Budget("malladi", batch=2, base_batch=1),  # pyright: ignore[reportArgumentType]
    ],
)
def test_other_types_are_refused(make):
    """Here by the runtime type checker, before the library's own error."""
    with pytest.raises((ValueError, TypeCheckError)):
        make()


def test_a_width_may_be_given_by_role():
    assert DecayRule("all", width="-1/2").width == LayerExponents("-1/2", "-1/2", "-1/2")
    assert fan_decay.width == LayerExponents(0, "-1/2", 0)
    mine = dataclasses.replace(fan_decay, batch=1, name="mine")
    assert mine == DecayRule("mine", width=LayerExponents(0, "-1/2", 0), batch=1)
