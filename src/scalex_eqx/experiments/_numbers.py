"""Exponents as people type them."""

import re
from fractions import Fraction

# 1e999999999 would be a number of a billion digits before it could be refused for its size.
_EXPONENT = re.compile(
    r"[+-]?((\d{1,20}(\.\d{0,40})?|\.\d{1,40})(e[+-]?\d{1,2})?|\d{1,160}(/\d{1,160})?)",
    re.ASCII | re.IGNORECASE,
)
_LARGEST = 10

SIZES = "a number from -10 to 10 such as 0.9 or 9/10"


def parse_exponent(text: str) -> Fraction:
    """The exponent that `text` writes as a decimal or a quotient.

    No width is raised to a power beyond 10: the result would be neither large nor small but lost.

    **Raises:** `ValueError` for anything else, without a message.
    """
    number = _parsed(text)
    if abs(number) > _LARGEST:
        raise ValueError
    return number


def parse_factor(text: str) -> Fraction:
    """The positive number that `text` writes as a decimal or a quotient.

    **Raises:** `ValueError` for anything else, without a message, and for what float32 can't hold.
    """
    number = _parsed(text)
    if not Fraction(1, 10**30) < number < 10**30:
        raise ValueError
    return number


def _parsed(text: str) -> Fraction:
    if not _EXPONENT.fullmatch(text.strip(" ")):
        raise ValueError
    try:
        return Fraction(text.strip(" "))
    except ZeroDivisionError:
        raise ValueError from None
