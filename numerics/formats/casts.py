"""What casts do at the ends of a format, and whether they agree with ml_dtypes."""

import jax
import jax.numpy as jnp
import numpy as np

from numerics.formats.values import FLOAT8, exactly, info, of, shown
from scalex_eqx.diagnostics import Table

NAME = "formats: casts"
COLUMNS = (
    "source",
    "dtype",
    "largest",
    "just above",
    "far above",
    "inf",
    "-inf",
    "NaN",
    "differ from ml_dtypes",
    "subnormals that reduce_precision changes",
)
SAMPLES = 2**17
PAIRS = (
    ("float32", "bfloat16"),
    ("float32", "float16"),
    *(("float32", target) for target in FLOAT8),
    *(("bfloat16", target) for target in FLOAT8),
)


def table() -> Table:
    """A row a pair of formats; `differ from ml_dtypes` counts among `SAMPLES` random numbers.

    The last column is the fraction of the target's subnormal numbers that
    `jax.lax.reduce_precision` to as many bits does not give.
    """
    rows = [_row(source, target) for source, target in PAIRS]
    return Table(NAME, ("source", "dtype"), COLUMNS, rows)


def _row(source: str, target: str) -> dict[str, str | int | float]:
    values = np.concatenate([_ends(source, target), samples(source, target)])
    # A cast that is itself the result can't be left out.
    cast = jax.jit(lambda x: x.astype(jnp.dtype(target)))
    result, expected = exactly(cast(values)), exactly(of(target, *exactly(values)))
    ends = [float(x) for x in result[:6]]
    names = COLUMNS[3:8]
    different = ~((result == expected) | (np.isnan(result) & np.isnan(expected)))
    return {
        "source": source,
        "dtype": target,
        "largest": ends[0],
        **{name: shown(end) for name, end in zip(names, ends[1:], strict=True)},
        "differ from ml_dtypes": int(different[6:].sum()),
        "subnormals that reduce_precision changes": _changed(values[6:], expected[6:], target),
    }


def _ends(source: str, target: str) -> np.ndarray:
    """The largest number, the next that could stand above it, far above, infinities and NaN."""
    limits = info(target)
    largest = float(limits.max)
    step = 2.0 ** (np.floor(np.log2(largest)) - limits.nmant)
    return of(source, largest, largest + step, 16 * largest, np.inf, -np.inf, np.nan)


def _changed(values: np.ndarray, expected: np.ndarray, target: str) -> float:
    limits = info(target)
    reduce = jax.jit(lambda x: jax.lax.reduce_precision(x, limits.iexp, limits.nmant))
    subnormal = (expected != 0) & (np.abs(expected) < float(limits.smallest_normal))
    return float(np.mean(exactly(reduce(values))[subnormal] != expected[subnormal]))


def samples(source: str, target: str) -> np.ndarray:
    """Numbers of all sizes around the target's range, and halfway between its neighbours."""
    generator = np.random.default_rng(0)
    limits = info(target)
    low = np.log2(float(limits.smallest_subnormal)) - 2
    high = np.log2(float(limits.max)) + 1
    signs = generator.choice([-1.0, 1.0], SAMPLES)
    x = signs * 2.0 ** generator.uniform(low, high, SAMPLES)
    halves = SAMPLES // 4
    kept = exactly(of(target, *x[:halves]))
    x[:halves] = np.where(np.isfinite(kept), kept * (1 + 2.0 ** -(limits.nmant + 2)), x[:halves])
    return of(source, *x)
