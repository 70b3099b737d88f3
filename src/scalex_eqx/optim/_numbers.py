import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Inexact

from ..ops._wide import wide

Scalar = float | int | np.floating | Float[Array, ""]
ScalarOrSchedule = Scalar | optax.Schedule


def times(factor: Scalar, x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
    """`factor * x` in the dtype of `x`, without an operation where the factor is exactly 1.

    The factor is not rounded to a dtype narrower than float32: it would be off by up to 0.4 % in
    bfloat16, and small ones would be 0 in float16.
    """
    if is_python_number(factor) and factor == 1.0:
        return x
    exact = wide(x)
    return (as_dtype_of(exact, factor) * exact).astype(x.dtype)


def is_python_number(x: Any) -> bool:
    """Whether `x` is a plain number, which takes the dtype of what it is multiplied with.

    NumPy's scalars don't, although some of them are instances of `float`.
    """
    return type(x) in (int, float)


def as_dtype_of(x: Inexact[Array, "*shape"], scalar: Scalar) -> Any:
    """`scalar` so that arithmetic with it stays in the dtype of `x`."""
    return scalar if is_python_number(scalar) else jnp.asarray(scalar, x.dtype)


def check_number(name: str, value: Any, *, below: float = math.inf) -> None:
    """Refuses what is no number, and a known one outside [0, below). Traced ones pass."""
    if isinstance(value, jax.Array):
        check_array(name, value)
        return
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating):
        raise ValueError(f"{name} is {value!r}; expected a number or a scalar array")
    if not 0 <= float(value) < below:
        limits = "at least 0" if below == math.inf else f"at least 0 and less than {below:g}"
        raise ValueError(f"{name} is {value!r}; expected a finite number, {limits}")


def check_array(name: str, value: jax.Array) -> None:
    """Refuses an array that is no number, or in a dtype that is too short to say what it means."""
    dtype = value.dtype
    is_real = jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)
    if not is_real or value.shape != ():
        raise ValueError(
            f"{name} is an array {dtype}[{','.join(map(str, value.shape))}]; expected a number or "
            "a scalar array of floating-point numbers"
        )
    if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32:
        raise ValueError(
            f"{name} is an array of {dtype}, in which numbers are off by up to "
            f"{50 * float(jnp.finfo(dtype).eps):.2g} % and 0.9999 is 1; expected float32. "
            "optax.inject_hyperparams casts numbers to the weights' dtype: give it "
            "hyperparam_dtype=jnp.float32"
        )


def check_function(name: str, value: Any) -> None:
    """Refuses what stands in the place of a function of the step, or `None`."""
    if value is None or callable(value):
        return
    found = "an array" if isinstance(value, jax.Array) else repr(value)
    raise ValueError(
        f"{name} is {found}, no function of the step: give optax.inject_hyperparams "
        f"static_args=({name!r},), or it calls the function and passes what that returns"
    )


def known_number(value: Any) -> float | None:
    """The number, or `None` if it is traced or an array: static data must not hold those."""
    return float(value) if isinstance(value, int | float | np.floating) else None


@functools.lru_cache(maxsize=1024)
def vanishes(x: float, dtype: Any) -> bool:
    """Whether a positive number, as a factor of an update in `dtype`, leaves 0 or an infinity.

    Subnormal numbers of float32 and bfloat16 are flushed to zero; those of float16 are not.
    """
    info = jnp.finfo(dtype)
    exact = jnp.finfo(jnp.float32) if info.bits < 32 else info
    least = info.smallest_subnormal if info.nexp < exact.nexp else exact.tiny
    return not float(least) <= x <= float(exact.max)


def lost(x: float, dtype: Any) -> str:
    """What becomes of a number that `vanishes`."""
    return f"{'0' if x < 1 else 'infinite'} as a factor in {dtype}"
