"""The operations of unit scaling: what size both passes leave, and how exact they are.

Inputs, weights and output gradients are normal, of size one, and rounded to the format; oracles in
NumPy's float64 are handed the rounded numbers. In float8 a product's operands are cast, e4m3 on the
way forwards and e5m2 on the way back, as `scalex_eqx.diagnostics.u_mup_fp8` does it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import scalex_eqx as sx
from numerics.formats.values import exactly, of
from scalex_eqx.diagnostics import Table
from scalex_eqx.ops import scaled

NAME = "formats: scaled operations"
COLUMNS = ("operation", "dtype", "array", "size", "error")
DTYPES = ("float32", "bfloat16", "float8")
TOKENS, SIZE = 512, 256
# The factor of silu at mult 1 and of a gate: half of the way from 2 to sqrt(2), in logarithms.
GATE = 2**0.75

Arrays = Mapping[str, np.ndarray]


class Operation(NamedTuple):
    """An operation and its oracle, by the names of their arrays.

    `exact` is given the inputs and the output's gradient, and returns output and gradients, each
    with its own factor.
    """

    compute: Callable[..., Any]
    exact: Callable[[Arrays, np.ndarray], Arrays]
    inputs: Mapping[str, tuple[int, ...]]


def _linear(given: Arrays, back: np.ndarray) -> Arrays:
    x, w = given["x"], given["w"]
    root = SIZE**-0.5
    return {
        "output": root * x @ w.T,
        "gradient of x": root * back @ w,
        "gradient of w": TOKENS**-0.5 * back.T @ x,
    }


def _gated(given: Arrays, back: np.ndarray) -> Arrays:
    x, gate = given["x"], given["gate"]
    open_ = 1 / (1 + np.exp(-gate))
    slope = open_ + gate * open_ * (1 - open_)
    return {
        "output": GATE * x * gate * open_,
        "gradient of x": GATE * back * gate * open_,
        "gradient of gate": GATE * back * x * slope,
    }


def _norm(given: Arrays, back: np.ndarray) -> Arrays:
    x = given["x"]
    size = np.sqrt(np.mean(x**2, axis=1, keepdims=True) + 1e-6)
    y = x / size
    return {
        "output": y,
        "gradient of x": (back - y * np.mean(back * y, axis=1, keepdims=True)) / size,
    }


def _softmax(given: Arrays, back: np.ndarray) -> Arrays:
    """At mult 1/4, where the factors are nearly those of a flat one."""
    x, m = given["x"], 0.25
    share = 1 / (1 + 4 / m**2)
    factor = SIZE ** (1 - share / 2)
    p = np.exp(m * x)
    p /= p.sum(axis=1, keepdims=True)
    grad = m * p * (back - np.sum(back * p, axis=1, keepdims=True))
    return {"output": factor * p, "gradient of x": factor * grad}


ROWS, FEATURES = (TOKENS, SIZE), (SIZE, SIZE)
OPERATIONS = {
    "linear": Operation(
        lambda x, w: scaled.linear(x, w, mapped=1), _linear, {"x": ROWS, "w": FEATURES}
    ),
    "gated_silu": Operation(scaled.gated_silu, _gated, {"x": ROWS, "gate": ROWS}),
    "rms_norm": Operation(lambda x: scaled.rms_norm(x, mapped=1), _norm, {"x": ROWS}),
    "softmax": Operation(lambda x: scaled.softmax(x, 0.25), _softmax, {"x": ROWS}),
}


def table() -> Table:
    """A row an array that an operation puts out in either pass; error of the size of the exact."""
    rows = []
    for name, operation in OPERATIONS.items():
        for dtype in DTYPES if name == "linear" else DTYPES[:2]:
            rows += _rows(name, operation, dtype)
    return Table(NAME, COLUMNS[:3], COLUMNS, rows)


def _rows(name: str, operation: Operation, dtype: str) -> list[dict[str, Any]]:
    found, exact = results(operation, dtype)
    rows = []
    for array, expected in exact.items():
        size = _size(exactly(found[array]))
        error = _size(exactly(found[array]) - expected) / _size(expected)
        rows.append(dict(zip(COLUMNS, (name, dtype, array, size, error), strict=True)))
    return rows


def results(operation: Operation, dtype: str) -> tuple[Mapping[str, Any], Arrays]:
    """What the device computes, and what is exact."""
    rng = np.random.default_rng(0)
    stored = "float32" if dtype == "float8" else dtype
    given = {
        name: of(stored, *rng.normal(size=math.prod(shape))).reshape(shape)
        for name, shape in operation.inputs.items()
    }
    back = of(stored, *rng.normal(size=math.prod(ROWS))).reshape(ROWS)
    compute = _narrow_linear if dtype == "float8" else operation.compute

    def both(given: Mapping[str, Any], back: Any) -> dict[str, Any]:
        y, pull = jax.vjp(lambda given: compute(**given), given)
        (gradients,) = pull(back)
        return {"output": y, **{f"gradient of {name}": x for name, x in gradients.items()}}

    found = jax.jit(both)(jax.tree.map(jnp.asarray, given), jnp.asarray(back))
    exact = operation.exact({name: exactly(x) for name, x in given.items()}, exactly(back))
    return found, exact


def _narrow_linear(x: Any, w: Any) -> Any:
    """The layer of `nn.unit` with its products narrowed: it has a role, by which recipes choose."""
    layer = sx.parameterize(
        lambda width: sx.nn.unit.Linear(width, width, key=jax.random.key(0)),
        width=SIZE,
        parameterization=sx.u_mup,
    )

    def through(layer: Any, x: Any) -> Any:
        return layer(x, mapped=1)

    held = jax.tree.map(lambda _: w, layer)
    return sx.diagnostics.with_narrow_products(through, sx.diagnostics.hidden_fp8)(held, x)


def _size(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))
