"""Rules for the batch size in recipes: their text, and the numbers that they make of a rule's."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from .. import theory
from .._usage import UsageError
from ..optim._budget import budget_beta, budget_decay, budget_eps, decay_width
from ..optim._catalogue import Entry
from ..optim._decay import is_coupled
from ..theory import Budget, BudgetRule, Growth, Role, as_family
from ..theory._budget import QUANTITIES
from ._call import call_text, parse_call
from ._numbers import SIZES, parse_exponent

_OWN = "batch"
_TAKES = ("horizon", "decay")


def parse_batch_rule(text: str, entry: Any) -> BudgetRule:
    """The rule that a part of a recipe writes.

    It is a published one by name, `malladi`, or one of the user's own by its exponents,
    `batch(learning_rate='1/2')`. Both may say how the learning rate follows the training's length,
    `horizon='-1/2'`, and take a published rule for weight decay, `decay='power_lines'`.

    **Arguments:**

    - `entry`: the update rule, to whose family a rule of the user's own belongs.

    **Raises:** `UsageError` for anything else.
    """
    call = parse_call(text)
    own = QUANTITIES if call.name == _OWN else ()
    if call.name != _OWN and call.name not in theory.budget_rules:
        raise UsageError(
            f"{text!r} is no rule for the batch size; choose from "
            f"{', '.join(theory.budget_rules)}, or give exponents as batch(learning_rate='1/2')"
        )
    for name in call.named:
        if name not in (*own, *_TAKES):
            raise UsageError(f"{text!r} has {name!r}; it takes {', '.join((*own, *_TAKES))}")
    if call.positional:
        raise UsageError(f"{text!r} has an argument without a name; write it as name=value")
    growths = {
        name: Growth(_exponent(text, call.named[name])) for name in own if name in call.named
    }
    rule = _own(entry, growths) if call.name == _OWN else theory.budget_rules[call.name]
    if "horizon" in call.named:
        rule = rule.with_horizon(_exponent(text, call.named["horizon"]))
    decay = call.named.get("decay")
    if decay is not None and decay not in theory.decay_rules:
        raise UsageError(
            f"{text!r}: decay is {decay!r}; choose from {', '.join(theory.decay_rules)}"
        )
    return rule if decay is None else rule.with_decay(theory.decay_rules[decay])


def _own(entry: Any, growths: Mapping[str, Growth]) -> BudgetRule:
    family = as_family(entry.family).of_role(Role.hidden)
    every = {name: growths.get(name, Growth()) for name in QUANTITIES}
    unsaid = {name: Growth(growth.batch, None) for name, growth in every.items()}
    return dataclasses.replace(BudgetRule(_OWN, int(family.gradient_degree)), **unsaid)


def _exponent(text: str, value: Any) -> Any:
    try:
        return parse_exponent(str(value))
    except ValueError:
        raise UsageError(f"{text!r} has the exponent {value!r}; expected {SIZES}") from None


def batch_rule_text(rule: BudgetRule) -> str:
    """The text that `parse_batch_rule` reads.

    **Raises:** `UsageError` for a rule that has none.
    """
    named = {known.name: name for name, known in theory.budget_rules.items()}
    name = named.get(rule.name, rule.name)
    arguments: dict[str, Any] = {}
    known = theory.budget_rules.get(name)
    if name == _OWN:
        growths = {key: getattr(rule, key).batch for key in QUANTITIES}
        arguments |= {key: str(x) for key, x in growths.items() if x != 0}
        plain = {key: Growth(x, None) for key, x in growths.items()}
        known = dataclasses.replace(BudgetRule(_OWN, rule.gradient_degree), **plain)
    if known is not None and rule.learning_rate.tokens != known.learning_rate.tokens:
        horizon = rule.learning_rate.tokens
        known = known.with_horizon(horizon or 0)
        arguments["horizon"] = str(horizon)
    if known is not None and rule.decay != known.decay and rule.decay is not None:
        decays = {decay: name for name, decay in theory.decay_rules.items()}
        known = known.with_decay(rule.decay)
        arguments["decay"] = decays.get(rule.decay)
    if known != rule or None in arguments.values():
        raise UsageError(
            f"the rule {rule.name!r} for the batch size has no text form; recipes take "
            f"{', '.join(theory.budget_rules)}, with horizon and decay, and exponents as "
            "batch(learning_rate='1/2')"
        )
    return call_text(name, arguments)


@dataclasses.dataclass(frozen=True)
class AtBatch:
    """What a rule makes of an optimizer's numbers at a batch size.

    **Arguments:**

    - `rate`: the factor of the learning rate.
    - `arguments`: those of the update rule's arguments that change, by name.
    """

    rate: float = 1.0
    arguments: tuple[tuple[str, float], ...] = ()


UNCHANGED = AtBatch()


def at_batch(entry: Entry, arguments: Mapping[str, Any], budget: Budget) -> AtBatch | None:
    """The numbers of a recipe's update rule at a batch size and training length.

    **Returns:** `None` if they are no numbers for all weights: where decay follows the width.

    **Raises:** `ValueError` if the rule doesn't say what is asked of it, or a number would be none
    for the optimizer.
    """
    if decay_width(budget) is not None and arguments.get("weight_decay") is not None:
        return None
    known = {**entry.takes, **arguments}
    scaled: dict[str, Any] = {}
    for name in ("b1", "b2"):
        if name in known:
            scaled[name] = budget_beta(budget, name, known[name])
    if "eps" in known:
        scaled["eps"] = budget_eps(budget, known["eps"])
    if known.get("weight_decay") is not None:
        coupled = is_coupled(known["decay_mode"])
        scaled["weight_decay"] = budget_decay(budget, known["weight_decay"], coupled=coupled)
    changed = tuple((name, float(x)) for name, x in scaled.items() if x != known[name])
    return AtBatch(budget.factor("learning_rate"), changed)
