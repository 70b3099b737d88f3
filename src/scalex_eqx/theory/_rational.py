from fractions import Fraction

type_names = "an int, a Fraction or a string such as '1/2'"


def exact(value: int | str | Fraction, name: str) -> Fraction:
    """The exponent `value` as a Fraction. A float is refused: 0.1 is not one tenth."""
    if isinstance(value, bool) or not isinstance(value, int | str | Fraction):
        raise ValueError(
            f"{name} is {value!r}, of type {type(value).__name__}; exponents are exact: "
            f"write {type_names}"
        )
    try:
        return Fraction(value)
    except ValueError:
        raise ValueError(f"{name} is {value!r}; expected {type_names}") from None
