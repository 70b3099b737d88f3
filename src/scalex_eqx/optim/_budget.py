"""Hyperparameters at another batch size and training length, before a rule is made of them."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Literal, TypeGuard

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array

from .._spec import WeightSpec
from ..theory import Budget, LayerExponents, Role, as_family
from ..theory._budget import said_width
from ..theory._family import Families
from ._numbers import Scalar, ScalarOrSchedule, check_number, known_number

Eps = Scalar | Callable[[WeightSpec], float]

_NONE = LayerExponents(0, 0, 0)


def check_budget(budget: Budget | None, family: Families) -> None:
    """Refuses what is no budget, and one whose rule is for another kind of update."""
    if not _is_given(budget):
        return
    known = as_family(family)
    rule, degree = budget.rule, known.of_role(Role.hidden).gradient_degree
    if rule.gradient_degree != degree:
        kinds = ("of one size, as Adam's", "as large as the gradient, as SGD's")
        raise ValueError(
            f"budget rule {rule.name!r} is for updates {kinds[rule.gradient_degree]}; those of "
            f"this optimizer, of family {known.name}, are {kinds[int(degree)]}. Take "
            f"scalex_eqx.theory.{'malladi_sgd' if degree else 'malladi'} or a rule of your own "
            f"with gradient_degree={degree}"
        )


def budget_rate(budget: Budget | None, learning_rate: ScalarOrSchedule) -> ScalarOrSchedule:
    """The learning rate; a schedule's values, at the steps that it has."""
    if not _is_given(budget):
        return learning_rate
    factor = budget.factor("learning_rate")
    if not callable(learning_rate):
        check_number("learning_rate", learning_rate)
        return _times(factor, learning_rate)

    def schedule(step: Any) -> Array:
        return factor * jnp.asarray(learning_rate(step))

    return learning_rate if factor == 1 else schedule


def budget_eps(budget: Budget | None, eps: Eps) -> Eps:
    """Adam's epsilon at the base width: a number, or a function of the spec."""
    if not _is_given(budget):
        return eps
    factor = budget.factor("eps")
    if not callable(eps):
        check_number("eps", eps)
        return _times(factor, eps)

    def of_weight(spec: WeightSpec) -> float:
        return factor * eps(spec)

    return eps if factor == 1 else of_weight


def budget_betas(budget: Budget | None, b1: Scalar, b2: Scalar) -> tuple[Scalar, Scalar]:
    """The decay rates of both means."""
    return budget_beta(budget, "b1", b1), budget_beta(budget, "b2", b2)


def budget_beta(budget: Budget | None, name: Literal["b1", "b2"], beta: Scalar) -> Scalar:
    r"""$1 - k (1 - \beta)$; one of 0 has no memory that could get shorter, and stays."""
    if not _is_given(budget):
        return beta
    check_number(name, beta, below=1.0)
    factor = budget.factor("one_minus_b1" if name == "b1" else "one_minus_b2")
    if factor == 1:
        return beta
    if isinstance(beta, Tracer):
        scaled = 1 - factor * (1 - beta)
        # Only the step knows it. A negative one would average with signs that alternate.
        return jnp.where(beta == 0, beta, jnp.where(scaled < 0, math.nan, scaled))
    if beta == 0:
        return beta
    known = known_number(beta)
    scaled = 1 - factor * (1 - beta) if known is None else _nearer(known, factor)
    if not 0 <= scaled < 1:
        remedy = (
            f"nearer to 1, or a larger base_batch: {float(budget.batch):g} is too large a batch"
        )
        if scaled >= 1:
            remedy = "further from 1: the training is too long for it"
        raise ValueError(
            f"{name} is {beta:g} at the base, and budget rule {budget.rule.name!r} makes it "
            f"{float(scaled):.4g}, as 1 - {name} grows by {factor:.4g}; expected at least 0 and "
            f"less than 1. Take a base {name} {remedy} for this rule"
        )
    return scaled


def _nearer(beta: float, factor: float) -> float:
    r"""$1 - k (1 - \beta)$ of a number as it is written: four times 1 - 0.9 is 0.4."""
    return float(1 - Fraction(factor) * (1 - Fraction(repr(beta))))


def budget_decay(budget: Budget | None, decay: Scalar, *, coupled: bool) -> Scalar:
    """The coefficient of weight decay, the width left aside; one that is known to be 0 stays."""
    if not _is_given(budget) or known_number(decay) == 0:
        return decay
    rule = budget.rule.decay
    if coupled and rule is not None and rule.width is not None:
        raise ValueError(
            f"decay rule {rule.name!r} says how the share that a step takes away follows the width "
            f"({said_width(rule.width)}); coupled decay's follows each weight's learning rate. "
            "Use decay_mode='independent' and weight_decay times the learning rate, or a DecayRule "
            "without a width"
        )
    scaled = _times(budget.decay_factor(coupled=coupled), decay)
    if not coupled and not isinstance(scaled, jax.Array) and scaled > 1 >= decay:
        raise ValueError(
            f"weight_decay is {decay:g} at the base and {scaled:.4g} with the budget: a step would "
            "take away more than all of a weight. Take a smaller batch or a smaller weight_decay"
        )
    return scaled


def decay_width(budget: Budget | None) -> LayerExponents | None:
    """How independent decay grows with the width, by role; `None` if it doesn't."""
    rule = None if budget is None else budget.rule.decay
    return None if rule is None or rule.width == _NONE else rule.width


def _is_given(budget: Any) -> TypeGuard[Budget]:
    if budget is not None and not isinstance(budget, Budget):
        raise ValueError(
            f"budget is {budget!r}; expected a scalex_eqx.Budget(rule, batch=..., base_batch=...)"
        )
    return budget is not None


def _times(factor: float, x: Scalar) -> Scalar:
    """Bit for bit what it was where nothing grows."""
    return x if factor == 1 else factor * x
