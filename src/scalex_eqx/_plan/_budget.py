"""What the batch size and the training length do to an optimizer's numbers, in words."""

from collections.abc import Iterator, Sequence
from fractions import Fraction

from .._parts import Part
from ..optim import Rule
from ..theory import Budget, Growth
from ..theory._budget import said_ratio, said_width
from ._text import short

Number = int | float | Fraction


def budget_lines(part: Part, chain: Sequence[Part]) -> Iterator[str]:
    """The budget that a part was made with, and what it does to each number of its optimizer."""
    rule = part.rule
    budget = None if rule is None else dict(rule.settings).get("budget")
    if not isinstance(budget, Budget):
        return
    yield f"{part.name}  budget {budget.rule.name}: {'; '.join(_sizes(budget))}"
    yield _line("learning rate", budget.rule.learning_rate, budget)
    is_behind = False
    for other in chain:
        is_behind |= other is part
        if other.rule is not None and _owner(other) == _owner(part):
            yield from _numbers(other.rule, budget, coupled=not is_behind)


def _owner(part: Part) -> str:
    """The optimizer whose part it is: another one in the same chain may have other numbers."""
    return part.name.rpartition("[")[0]


def _numbers(rule: Rule, budget: Budget, *, coupled: bool) -> Iterator[str]:
    """What becomes of the numbers of a part, in front of the learning rate or behind it."""
    names = [name for name, _ in rule.settings]
    if "b1" in names:
        yield _line("1 - b1", budget.rule.one_minus_b1, budget)
    if "b2" in names:
        yield _line("1 - b2", budget.rule.one_minus_b2, budget)
    for constant in rule.constants:
        if constant.name == "eps":
            yield _line("eps", budget.rule.eps, budget)
        if constant.name == "weight_decay" and constant.value != 0:
            yield _decay(budget, coupled=coupled)


def _sizes(budget: Budget) -> Iterator[str]:
    yield _size("batch", budget.batch, budget.base_batch, budget.batch_ratio)
    if budget.tokens is not None and budget.base_tokens is not None:
        yield _size("tokens", budget.tokens, budget.base_tokens, budget.token_ratio)


def _size(name: str, value: Number, base: Number, ratio: Fraction) -> str:
    return f"{name} {float(value):g}, {said_ratio(ratio)} x the base's {float(base):g}"


def _line(name: str, growth: Growth, budget: Budget) -> str:
    return f"  {name}: {_said(growth, budget) or 'stays'}"


def _decay(budget: Budget, *, coupled: bool) -> str:
    """All three exponents of the share that a step takes away, apart."""
    rule = budget.rule.decay
    if rule is None:
        return "  weight decay: the rule has none, and nothing grows"
    width = "width^0" if rule.width is None else said_width(rule.width)
    if coupled:
        width = "with the width as the learning rate"
    powers = [_power(*size) for size in _exponents(rule.growth, budget)]
    return f"  weight decay of a step ({rule.name}): {', '.join((width, *powers))}"


def _said(growth: Growth, budget: Budget) -> str:
    return ", ".join(_power(*size) for size in _exponents(growth, budget) if size[1])


def _exponents(growth: Growth, budget: Budget) -> tuple[tuple[str, Fraction | None, Fraction], ...]:
    return (
        ("batch", growth.batch, budget.batch_ratio),
        ("tokens", growth.tokens, budget.token_ratio),
    )


def _power(size: str, exponent: Fraction | None, ratio: Fraction) -> str:
    """One that isn't said is only let through where nothing grows."""
    if exponent is None:
        return f"{size}^?"
    return f"{size}^{exponent} = {short(float(ratio) ** float(exponent))}"
