"""Exponents as people type them."""

from fractions import Fraction

from ..theory._rational import from_text

_LARGEST = 10

SIZES = "a number from -10 to 10 such as 0.9 or 9/10"


def parse_exponent(text: str) -> Fraction:
    """The exponent that `text` writes as a decimal or a quotient.

    No width is raised to a power beyond 10: the result would be neither large nor small but lost.

    **Raises:** `ValueError` for anything else, without a message.
    """
    number = from_text(text)
    if abs(number) > _LARGEST:
        raise ValueError
    return number


def parse_factor(text: str) -> Fraction:
    """The positive number that `text` writes as a decimal or a quotient.

    **Raises:** `ValueError` for anything else, without a message, and for what float32 can't hold.
    """
    number = from_text(text)
    if not Fraction(1, 10**30) < number < 10**30:
        raise ValueError
    return number
