"""Batch size and training length on the command line."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from .. import theory
from ..experiments import UsageError
from ..experiments._numbers import SIZES, parse_exponent
from ..theory import Budget, BudgetRule, DecayRule, Growth, Role, as_family
from ..theory._budget import QUANTITIES
from ..theory._family import Families


@dataclasses.dataclass(frozen=True)
class BudgetOptions:
    """The options that make a budget; none unless a batch is given."""

    batch: float | None = None
    """The batch size, if it isn't the one at which the numbers were tuned."""
    base_batch: float | None = None
    """That one, in the same unit."""
    tokens: float | None = None
    """What all of training sees, if it isn't what it was when the numbers were tuned."""
    base_tokens: float | None = None
    """What it was, in the same unit."""
    budget_rule: str | None = None
    """How the numbers follow: malladi (malladi_sgd for sgd) by default, completed_p or sdew."""
    horizon: str | None = None
    """Exponent of the training length for the learning rate, as -0.32, or --horizon=-1/2."""
    decay_rule: str | None = None
    """How weight decay follows: kosson, fan, power_lines, completed_p or sdew."""

    def budget(self, family: Families, own: BudgetRule | None = None) -> Budget | None:
        """The budget that the options ask for, for updates of a family; `None` without any.

        **Arguments:**

        - `own`: the rule of the recipe, if it has one.

        **Raises:** `UsageError` for options that make none.
        """
        names = (field.name for field in dataclasses.fields(BudgetOptions))
        given = [name for name in names if getattr(self, name) is not None]
        if not given:
            return None
        if self.batch is None or self.base_batch is None:
            raise UsageError(f"{_option(given[0])} needs --batch and --base-batch; give both")
        degree = as_family(family).of_role(Role.hidden).gradient_degree
        default = "malladi_sgd" if degree else "malladi"
        rule = own or _named(self.budget_rule or default, theory.budget_rules, "--budget-rule")
        if own is not None and self.budget_rule is not None:
            raise UsageError(
                f"--budget-rule is {self.budget_rule}, and the recipe has the rule {own.name}; "
                "leave out one of them"
            )
        if self.horizon is not None:
            rule = rule.with_horizon(_exponent(self.horizon))
        if self.decay_rule is not None:
            rule = rule.with_decay(_named(self.decay_rule, theory.decay_rules, "--decay-rule"))
        try:
            return Budget(
                rule,
                batch=self.batch,
                base_batch=self.base_batch,
                tokens=self.tokens,
                base_tokens=self.base_tokens,
            )
        except ValueError as error:
            raise UsageError(str(error)) from None


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _named(name: str, choices: Mapping[str, Any], option: str) -> Any:
    if name not in choices:
        raise UsageError(f"{option} has {name!r}; choose from {', '.join(choices)}")
    return choices[name]


def _exponent(text: str) -> Any:
    try:
        return parse_exponent(text)
    except ValueError:
        raise UsageError(f"--horizon has {text!r}; expected {SIZES}") from None


def rule_tables() -> Iterator[tuple[list[str], list[list[str]]]]:
    """Headers and rows: the published rules, each number with its exponents."""
    yield (
        ["rule", "for", "rate", "1-b1", "1-b2", "eps"],
        [_row(name, rule) for name, rule in theory.budget_rules.items()],
    )
    yield (
        ["decay", "width embedding", "width hidden", "width readout", "batch", "tokens"],
        [_decay_row(name, rule) for name, rule in theory.decay_rules.items()],
    )


def _row(name: str, rule: BudgetRule) -> list[str]:
    growths = (getattr(rule, quantity) for quantity in QUANTITIES)
    return [name, "sgd" if rule.gradient_degree else "adam", *map(_known, growths)]


def _known(growth: Growth) -> str:
    """What the source says; that it stays, if it doesn't say more."""
    return str(Growth(growth.batch or 0, growth.tokens or 0)) or "-"


def _decay_row(name: str, rule: DecayRule) -> list[str]:
    roles = ("embedding", "hidden", "readout")
    width = [None if rule.width is None else getattr(rule.width, role) for role in roles]
    return [name, *("?" if x is None else str(x) for x in (*width, rule.batch, rule.tokens))]
