"""The parts of an optimizer in words."""

from collections.abc import Mapping
from typing import Any

from .._parts import Part
from ..optim import Rule
from ..optim._rates import GlobalRate
from ..theory import Alignment
from ._text import short


def describe(part: Part, name: str | None) -> str:
    """A line for a part of an optimizer, with the constants and settings of its rule."""
    if part.rule is None:
        known = name or type(part.state).__name__
        inside = f", and holds {', '.join(rule.name for rule in part.hidden)}" * bool(part.hidden)
        return (
            f"{part.name}  {known}: not this library's{inside}, so its effect is not in the table"
        )
    said = settings(part.rule)
    return f"{part.name}  {part.rule.name}" + (f": {said}" if said else "")


def settings(rule: Rule) -> str:
    """The constants and settings of a rule, in words."""
    said = [
        f"{c.name} {_setting(c.value)}" + (f" ({c.law})" if c.law else "") for c in rule.constants
    ]
    said += [
        f"{key} {_setting(value)}"
        for key, value in rule.settings
        # A budget has lines of its own.
        if value not in ({}, False) and key != "budget"
    ]
    if rule.family is not None:
        said = [f"family {rule.family.name}", f"rates {_rates(rule.rates)}", *said]
    return ", ".join(said)


def _rates(rates: Any) -> str:
    if isinstance(rates, GlobalRate):
        return "one for all weights"
    if isinstance(rates, Alignment):
        return f"alignment {rates.name}"
    return ", ".join(f"{role} {exponent}" for role, exponent in rates)


def _setting(value: Any) -> str:
    if value is None:
        return "?"
    if callable(value):
        return "by weight"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_setting(one)}" for key, one in value.items())
    return short(value) if isinstance(value, float) else str(value)
