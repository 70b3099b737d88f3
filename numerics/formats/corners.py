"""What the arc tangent of two arguments does where the quotient says nothing."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import scalex_eqx as sx
from numerics.formats.values import WIDE, exactly, info, of, shown, subnormal, tiny
from scalex_eqx.diagnostics import Table

NAME = "formats: corners of atan2"
FUNCTIONS: dict[str, Callable] = {"jnp.arctan2": jnp.arctan2, "sx.ops.atan2": sx.ops.atan2}


def corners(dtype: str) -> dict[str, tuple[float, float]]:
    """Pairs of arguments by how they are written."""
    small, least, most = subnormal(dtype), tiny(dtype), float(info(dtype).max)
    return {
        "0, 0": (0.0, 0.0),
        "-0, 0": (-0.0, 0.0),
        "0, -0": (0.0, -0.0),
        "-0, -0": (-0.0, -0.0),
        "inf, inf": (np.inf, np.inf),
        "-inf, inf": (-np.inf, np.inf),
        "inf, 1": (np.inf, 1.0),
        "1, inf": (1.0, np.inf),
        "NaN, 1": (np.nan, 1.0),
        "1, NaN": (1.0, np.nan),
        "subnormal, 0": (small, 0.0),
        "subnormal, subnormal": (small, small),
        "subnormal, 1": (small, 1.0),
        "1, subnormal": (1.0, small),
        "tiny, tiny": (least, least),
        "largest, largest": (most, most),
        "largest, tiny": (most, least),
        "tiny, largest": (least, most),
    }


def cases() -> list[tuple[str, str, str]]:
    """Function, format and pair, where the function is defined."""
    return [
        (function, dtype, pair)
        for function in FUNCTIONS
        for dtype in WIDE
        for pair in corners(dtype)
        if function == "jnp.arctan2" or not pair.endswith("-0")
    ]


def table() -> Table:
    """A row a pair, a column a function and format; ours is defined for x >= 0 alone."""
    columns = {
        f"{function} {dtype}": _angles(compute, dtype)
        for function, compute in FUNCTIONS.items()
        for dtype in WIDE
    }
    rows = []
    for pair in corners("float32"):
        row: dict[str, str | None] = {name: angles[pair] for name, angles in columns.items()}
        if pair.endswith("-0"):
            row |= {name: None for name in columns if name.startswith("sx.")}
        rows.append({"y, x": pair, **row})
    return Table(NAME, ("y, x",), ("y, x", *columns), rows)


def _angles(compute: Callable, dtype: str) -> dict[str, str]:
    pairs = corners(dtype)
    y, x = (of(dtype, *column) for column in zip(*pairs.values(), strict=True))
    result = exactly(jax.jit(compute)(y, x))
    return {pair: shown(float(angle)) for pair, angle in zip(pairs, result, strict=True)}
