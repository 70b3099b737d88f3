"""Which operations keep subnormal numbers, and what becomes of them otherwise."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numerics.formats.values import FLOAT8, WIDE, exactly, info, of, shown, subnormal, tiny
from scalex_eqx.diagnostics import Table

NAME = "formats: subnormal numbers"


class Operation(NamedTuple):
    """An operation on a format's arguments, and the exact result in float64."""

    name: str
    compute: Callable
    arguments: Callable[[str], tuple[float, ...]]
    exact: Callable


def _first(dtype: str) -> tuple[float, ...]:
    return (subnormal(dtype),)


def _with(other: float) -> Callable[[str], tuple[float, ...]]:
    return lambda dtype: (subnormal(dtype), other)


def _below_the_least(dtype: str) -> tuple[float, ...]:
    return tiny(dtype), 0.5


def _dot(x, y):
    return jnp.dot(x[None], y[None])


def _log_of_least(dtype: str) -> tuple[float, ...]:
    return (float(np.log(subnormal(dtype))),)


# "->": normal numbers whose result is subnormal. All others have a subnormal argument.
OPERATIONS = (
    Operation("x + 0", jnp.add, _with(0.0), np.add),
    Operation("a - b -> subnormal", jnp.subtract, lambda d: (1.5 * tiny(d), tiny(d)), np.subtract),
    Operation("x * 1", jnp.multiply, _with(1.0), np.multiply),
    Operation("a * b -> subnormal", jnp.multiply, _below_the_least, np.multiply),
    Operation("x / 1", jnp.divide, _with(1.0), np.divide),
    Operation("a / b -> subnormal", jnp.divide, lambda d: (tiny(d), 2.0), np.divide),
    Operation("x / x", jnp.divide, lambda d: _first(d) * 2, np.divide),
    Operation("1 / x", jnp.divide, lambda d: (1.0, subnormal(d)), np.divide),
    Operation("sqrt(x)", jnp.sqrt, _first, np.sqrt),
    Operation("rsqrt(x)", jax.lax.rsqrt, _first, lambda x: 1 / np.sqrt(x)),
    Operation("log(x)", jnp.log, _first, np.log),
    Operation("exp(a) -> subnormal", jnp.exp, _log_of_least, np.exp),
    Operation("dot(x, 1)", _dot, _with(1.0), np.multiply),
    Operation("dot -> subnormal", _dot, _below_the_least, np.multiply),
    Operation("x > 0", lambda x: (x > 0).astype(x.dtype), _first, lambda x: np.float64(x > 0)),
    Operation("x != 0", lambda x: (x != 0).astype(x.dtype), _first, lambda x: np.float64(x != 0)),
    Operation("max(x, 0)", jnp.maximum, _with(0.0), np.maximum),
    Operation("sign(x)", jnp.sign, _first, np.sign),
    Operation("-x", jnp.negative, _first, np.negative),
    Operation("abs(x)", jnp.abs, _first, np.abs),
    Operation("cast to float32", lambda x: x.astype(jnp.float32), _first, np.positive),
)


def table() -> Table:
    """A row an operation, a column a format: `kept`, or what comes out instead."""
    formats = (*WIDE, *FLOAT8)
    found = {dtype: _results(dtype) for dtype in formats}
    rows = [
        {"operation": operation.name, **{dtype: found[dtype][operation.name] for dtype in formats}}
        for operation in OPERATIONS
    ]
    return Table(NAME, ("operation",), ("operation", *formats), rows)


def _results(dtype: str) -> dict[str, str]:
    arguments = [of(dtype, *operation.arguments(dtype)) for operation in OPERATIONS]

    # One program a format, and the values are its arguments: constants would be folded by the
    # compiler, which flushes nothing.
    @jax.jit
    def run(arguments):
        return [
            operation.compute(*tuple(values))
            for operation, values in zip(OPERATIONS, arguments, strict=True)
        ]

    found = {}
    for operation, values, result in zip(OPERATIONS, arguments, run(arguments), strict=True):
        with np.errstate(divide="ignore"):
            exact = operation.exact(*exactly(values))
        # The dtype's own rounding of the exact result: a format may have no infinity, say.
        target = str(np.asarray(result).dtype)
        found[operation.name] = _verdict(
            float(exactly(result)), float(exactly(of(target, float(exact)))[0]), dtype
        )
    return found


def _verdict(result: float, exact: float, dtype: str) -> str:
    if not np.isfinite(exact):
        return shown(result)
    # exp of a rounded logarithm: the argument's rounding error comes out multiplied by it.
    wide = abs(np.log(tiny(dtype))) * float(info(dtype).eps)
    close = abs(result - exact) <= max(wide, 0.01) * abs(exact)
    return "kept" if close and result != 0 else shown(result)
