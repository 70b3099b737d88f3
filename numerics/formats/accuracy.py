"""The largest error of elementary operations, in units of the last place."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import scalex_eqx as sx
from numerics.formats.values import WIDE, exactly, info, of, tiny, ulps
from scalex_eqx.diagnostics import Table

NAME = "formats: accuracy"
EXHAUSTIVE = "formats: accuracy, exhaustive"
COLUMNS = ("operation", "dtype", "largest error, ulp", "at", "arguments tried")
SAMPLES = 2**18


class Function(NamedTuple):
    """An operation of one or two arguments, and the same in NumPy's float64.

    Float64 has 29 bits more than float32, so its own errors are below 1e-8 ulp here.
    """

    compute: Callable
    exact: Callable
    arguments: int


FUNCTIONS = {
    "sqrt": Function(jnp.sqrt, np.sqrt, 1),
    "rsqrt": Function(jax.lax.rsqrt, lambda x: 1 / np.sqrt(x), 1),
    "reciprocal": Function(jax.lax.reciprocal, lambda x: 1 / x, 1),
    "log2": Function(jnp.log2, np.log2, 1),
    "exp": Function(jnp.exp, np.exp, 1),
    "divide": Function(jnp.divide, np.divide, 2),
    "jnp.arctan2": Function(jnp.arctan2, np.arctan2, 2),
    "sx.ops.atan2": Function(sx.ops.atan2, np.arctan2, 2),
}


def table() -> Table:
    """Every 16-bit number for one argument, random ones of all sizes otherwise."""
    rows = [measure(name, dtype, arguments(name, dtype)) for name in FUNCTIONS for dtype in WIDE]
    return Table(NAME, COLUMNS[:2], COLUMNS, rows)


@functools.cache
def exhaustive() -> Table:
    """All there is in 16 bits, and all mantissas in float32, but for powers of two in common."""
    unary = {name: _two_binades() for name in ("sqrt", "rsqrt", "reciprocal")}
    rows = [measure(name, "float32", (values,)) for name, values in unary.items()]
    binary = [name for name, function in FUNCTIONS.items() if function.arguments == 2]
    rows += [
        measure(name, dtype, every_quotient(dtype))
        for dtype in ("bfloat16", "float16")
        for name in binary
    ]
    return Table(EXHAUSTIVE, COLUMNS[:2], COLUMNS, rows)


def measure(name: str, dtype: str, values: tuple[np.ndarray, ...]) -> dict[str, str | int | float]:
    """The largest error of a function where arguments and result are normal numbers."""
    errors = errors_of(name, dtype, values)
    worst = int(np.argmax(errors))
    at = ", ".join(f"{float(x[worst]):.9g}" for x in values)
    cells = (name, dtype, float(errors[worst]), at, int(values[0].size))
    return dict(zip(COLUMNS, cells, strict=True))


def errors_of(name: str, dtype: str, values: tuple[np.ndarray, ...]) -> np.ndarray:
    """The error at each argument in ulp; 0 where the exact result is not a normal number."""
    function = FUNCTIONS[name]
    with np.errstate(all="ignore"):
        exact = function.exact(*map(exactly, values))
        rounded = exactly(exact.astype(jnp.dtype(dtype)))
        normal = np.isfinite(rounded)
        for x in (exact, *map(exactly, values)):
            normal &= np.abs(x) >= tiny(dtype)
        errors = ulps(jax.jit(function.compute)(*values), np.where(normal, exact, 1.0), dtype)
    # A NaN in place of a normal number is an error without limit.
    return np.where(normal, np.where(np.isnan(errors), np.inf, errors), 0.0)


def arguments(name: str, dtype: str) -> tuple[np.ndarray, ...]:
    """What a function is tried on."""
    if FUNCTIONS[name].arguments == 2:
        return _pairs(dtype)
    values = _every(dtype) if dtype != "float32" else _random(dtype, np.random.default_rng(0))
    return (np.abs(values) if name != "exp" else _of_moderate_size(values, dtype),)


def _every(dtype: str) -> np.ndarray:
    """Every positive normal number of a 16-bit format, and its negative."""
    values = np.arange(2**16, dtype=np.uint16).view(jnp.dtype(dtype))
    wide = exactly(values)
    return values[np.isfinite(wide) & (np.abs(wide) >= tiny(dtype))]


def _random(dtype: str, generator: np.random.Generator) -> np.ndarray:
    """Numbers of all sizes, some next to a power of two or equal to it."""
    limits = info(dtype)
    exponents = generator.integers(limits.minexp, limits.maxexp - 1, SAMPLES)
    mantissas = generator.uniform(1, 2, SAMPLES)
    ends = 1 + generator.integers(-3, 4, SAMPLES // 8) * float(limits.eps)
    mantissas[: SAMPLES // 8] = np.maximum(ends, 1.0)
    signs = generator.choice([-1.0, 1.0], SAMPLES)
    return of(dtype, *(signs * np.ldexp(mantissas, exponents)))


def _of_moderate_size(values: np.ndarray, dtype: str) -> np.ndarray:
    """Arguments for which exp is a normal number, all as likely."""
    if dtype != "float32":
        return values
    low, high = np.log(tiny(dtype)), np.log(float(info(dtype).max))
    drawn = np.random.default_rng(1).uniform(low, high, SAMPLES)
    # XLA's exponential is least accurate right below overflow.
    return of(dtype, *drawn, *np.linspace(high - 0.25, high, SAMPLES // 4))


def _pairs(dtype: str) -> tuple[np.ndarray, ...]:
    """Quotients around 1 and of all sizes; the second argument is positive, as atan2's here."""
    generator = np.random.default_rng(2)
    y, x = (_random(dtype, generator) for _ in range(2))
    near = exactly(x)[: SAMPLES // 2] * 2.0 ** generator.uniform(-6, 6, SAMPLES // 2)
    limit = float(info(dtype).max)
    y[: SAMPLES // 2] = of(dtype, *np.clip(near, -limit, limit))
    return y, np.abs(x)


def _two_binades() -> np.ndarray:
    """Every float32 in [1, 4)."""
    one, four = np.asarray([1, 4], np.float32).view(np.uint32)
    return np.arange(one, four, dtype=np.uint32).view(np.float32)


def every_quotient(dtype: str) -> tuple[np.ndarray, ...]:
    """Every pair of a 16-bit format but for a common power of two: x in [1, 2), y anything."""
    positive = np.abs(_every(dtype))
    y = np.unique(positive.view(np.uint16)).view(jnp.dtype(dtype))
    wide = exactly(y)
    x = y[(wide >= 1) & (wide < 2)]
    return tuple(grid.reshape(-1) for grid in np.meshgrid(y, x))
