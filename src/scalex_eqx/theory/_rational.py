import math
import re
from fractions import Fraction
from typing import Any

Exponent = int | str | Fraction
"""What an exponent may be given as where it has to be exact."""

Number = int | float | str | Fraction
"""What an exponent may be given as where a float is rounded to a nearby fraction."""

type_names = "an int, a Fraction or a string such as '1/2'"

# 1e999999999 would be a number of a billion digits before it could be refused for its size.
_TEXT = re.compile(
    r"[+-]?((\d{1,20}(\.\d{0,40})?|\.\d{1,40})(e[+-]?\d{1,2})?|\d{1,160}(/\d{1,160})?)",
    re.ASCII | re.IGNORECASE,
)

# A float has a denominator of up to 2^1074, and exponents are not known to that precision.
_LARGEST_DENOMINATOR = 1000


def exact(value: Any, name: str) -> Fraction:
    """The exponent `value` as a Fraction. A float is refused: 0.1 is not one tenth."""
    if isinstance(value, bool) or not isinstance(value, Exponent):
        raise ValueError(
            f"{name} is {value!r}, of type {type(value).__name__}; exponents are exact: "
            f"write {type_names}"
        )
    try:
        return Fraction(value)
    except ValueError:
        raise ValueError(f"{name} is {value!r}; expected {type_names}") from None


def from_text(text: str) -> Fraction:
    """The number that `text` writes as a decimal or a quotient.

    **Raises:** `ValueError` for anything else, without a message.
    """
    if not _TEXT.fullmatch(text.strip(" ")):
        raise ValueError
    try:
        return Fraction(text.strip(" "))
    except ZeroDivisionError:
        raise ValueError from None


def rounded(value: Any, name: str) -> tuple[Fraction, tuple[str, ...]]:
    """The exponent `value` as a Fraction, and a note where a float was rounded to be one."""
    if not isinstance(value, float):
        return exact(value, name), ()
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}; expected a finite float, {type_names}")
    fraction = Fraction(value).limit_denominator(_LARGEST_DENOMINATOR)
    return fraction, () if fraction == value else (f"{name}: {value!r} read as {fraction}",)


def set_rounded(target: Any, values: dict[str, Any]) -> None:
    """Sets the fields of a frozen dataclass to exponents, and its field `notes`."""
    notes = ()
    for field, value in values.items():
        fraction, note = rounded(value, field)
        object.__setattr__(target, field, fraction)
        notes += note
    object.__setattr__(target, "notes", notes)
