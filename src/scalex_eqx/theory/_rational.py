from fractions import Fraction
from typing import Any

Exponent = int | str | Fraction
"""What an exponent may be given as."""

type_names = "an int, a Fraction or a string such as '1/2'"


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
