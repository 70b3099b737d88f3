"""Formats, their special values, and distances between numbers."""

from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np

WIDE = ("float32", "bfloat16", "float16")
FLOAT8 = (
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3",
    "float8_e3m4",
    "float8_e4m3b11fnuz",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
)


def info(dtype: str) -> Any:
    """The limits of a format."""
    return ml_dtypes.finfo(jnp.dtype(dtype))


def of(dtype: str, *values: float) -> np.ndarray:
    """The values rounded to a format by ml_dtypes, which no device takes part in."""
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float64).astype(jnp.dtype(dtype))


def tiny(dtype: str) -> float:
    """The smallest normal number."""
    return float(info(dtype).smallest_normal)


def subnormal(dtype: str) -> float:
    """Half the smallest normal number."""
    return tiny(dtype) / 2


def exactly(x) -> np.ndarray:
    """An array of any format in float64, which holds its values exactly."""
    with np.errstate(invalid="ignore"):  # of a NaN in eight bits
        return np.asarray(x).astype(np.float64)


def spacing(exact: np.ndarray, dtype: str) -> np.ndarray:
    """The distance between the numbers of a format around exact values (one ulp)."""
    limits = info(dtype)
    _, exponents = np.frexp(exact)
    return np.ldexp(1.0, np.maximum(exponents - 1, limits.minexp) - limits.nmant)


def ulps(result, exact: np.ndarray, dtype: str) -> np.ndarray:
    """The error of a result in units of the last place of the exact one."""
    return np.abs(exactly(result) - exact) / spacing(exact, dtype)


def shown(x: float) -> str:
    """A result in words that say which of the special values it is."""
    if np.isnan(x):
        return "NaN"
    sign = "-" if np.signbit(x) else ""
    # Wide enough for the angles of the coarsest 16-bit format.
    angles = {"π": np.pi, "π/2": np.pi / 2, "π/4": np.pi / 4, "3π/4": 3 * np.pi / 4}
    named = [name for name, value in angles.items() if abs(abs(x) / value - 1) < 2**-8]
    if named:
        return sign + named[0]
    return f"{x:.4g}" if abs(x) != np.inf else f"{sign}inf"
