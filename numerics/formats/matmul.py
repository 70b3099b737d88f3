"""The error of matrix products by precision setting, and what they accumulate in."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from numerics.formats.values import exactly, of
from scalex_eqx.diagnostics import Table

PRODUCTS = "formats: matrix products"
ACCUMULATION = "formats: accumulation"
COLUMNS = ("dtype", "precision", "error", "bits")
SIZE = 512
PRECISIONS = ("default", "high", "highest")
ALGORITHMS = (
    "BF16_BF16_F32",
    "BF16_BF16_F32_X3",
    "BF16_BF16_F32_X6",
    "TF32_TF32_F32",
    "F32_F32_F32",
)


NARROW = ("bfloat16", "float16", "float8_e4m3fn")
# The settings that something is expected of.
CASES = (*(("float32", name) for name in PRECISIONS), *((dtype, "default") for dtype in NARROW))


def table() -> Table:
    """A row a format and setting.

    The error of an entry is in units of the lengths of its row and column; the root mean square
    over all entries. `bits` is minus its binary logarithm.
    """
    rows = [_row("float32", name, _with(name)) for name in (*PRECISIONS, *ALGORITHMS)]
    rows += [_row("float32", f"operands with {m} bits", _emulated(m)) for m in (7, 10)]
    rows += [_row(d, "default", _into_float32) for d in NARROW]
    return Table(PRODUCTS, COLUMNS[:2], COLUMNS, rows)


def _with(precision: str) -> Callable:
    return lambda a, b: jnp.matmul(a, b, precision=precision)


def _emulated(mantissa_bits: int) -> Callable:
    """Operands rounded by hand: what a device computes with fewer bits, made on any device."""

    def product(a, b):
        a, b = (jax.lax.reduce_precision(x, 8, mantissa_bits) for x in (a, b))
        return jnp.matmul(a, b, precision="highest")

    return product


def _into_float32(a, b):
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def _row(dtype: str, precision: str, product: Callable) -> dict[str, str | float | None]:
    a, b = (of(dtype, *x.reshape(-1)).reshape(x.shape) for x in _matrices())
    try:
        result = exactly(jax.jit(product)(a, b))
    except (jax.errors.JaxRuntimeError, NotImplementedError, ValueError) as error:
        if not any(word in str(error) for word in ("not supported", "Unsupported", "lgorithm")):
            raise
        # A preset that the device doesn't have.
        return dict(zip(COLUMNS, (dtype, precision, None, None), strict=True))
    error = relative_error(result, exactly(a), exactly(b))
    cells = (dtype, precision, error, round(float(-np.log2(error)), 1))
    return dict(zip(COLUMNS, cells, strict=True))


def relative_error(result: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Of a product, against float64."""
    sizes = np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=0))
    return float(np.sqrt(np.mean(np.square((result - a @ b) / sizes))))


def _matrices() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, SIZE, SIZE)).astype(np.float32)


def accumulation() -> Table:
    """The sum of 4096 ones: a narrow accumulator stops at 2 to the number of its bits."""
    columns = ("dtype", "how", "sum of 4096 ones")
    rows = []
    for dtype in ("bfloat16", "float16"):
        ones = of(dtype, *np.ones(4096))
        for how, add in {"dot": jnp.dot, "loop": _loop}.items():
            total = float(exactly(jax.jit(add)(ones, ones)))
            rows.append(dict(zip(columns, (dtype, how, total), strict=True)))
    return Table(ACCUMULATION, columns[:2], columns, rows)


def _loop(a, b):
    def add(total, pair):
        return total + pair[0] * pair[1], None

    return jax.lax.scan(add, jnp.zeros((), a.dtype), (a, b))[0]
