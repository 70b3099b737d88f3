import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

Scalar = float | int | np.floating | Float[Array, ""]
ScalarOrSchedule = Scalar | optax.Schedule


def times(factor: Scalar, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`factor * x` in the dtype of `x`, without an operation where the factor is exactly 1."""
    return x if is_python_number(factor) and factor == 1.0 else as_dtype_of(x, factor) * x


def is_python_number(x: Any) -> bool:
    """Whether `x` is a plain number, which takes the dtype of what it is multiplied with.

    NumPy's scalars don't, although some of them are instances of `float`.
    """
    return type(x) in (int, float)


def as_dtype_of(x: Float[Array, "*shape"], scalar: Scalar) -> Any:
    """`scalar` so that arithmetic with it stays in the dtype of `x`."""
    return scalar if is_python_number(scalar) else jnp.asarray(scalar, x.dtype)


def check_number(name: str, value: Any, *, below: float = math.inf) -> None:
    """Refuses what is no number, and a known one outside [0, below). Traced ones pass."""
    if isinstance(value, jax.Array):
        return
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating):
        raise ValueError(f"{name} is {value!r}; expected a number or a scalar array")
    if not 0 <= float(value) < below:
        limits = "at least 0" if below == math.inf else f"at least 0 and less than {below:g}"
        raise ValueError(f"{name} is {value!r}; expected a finite number, {limits}")


def known_number(value: Any) -> float | None:
    """The number, or `None` if it is traced or an array: static data must not hold those."""
    return float(value) if isinstance(value, int | float | np.floating) else None
