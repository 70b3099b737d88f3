"""The gradients that an update rule is put through: one array, its entries moved about."""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np

GradientKind = Literal["constant", "noisy", "sparse", "heavy_tailed", "dropping"]
GRADIENT_KINDS: tuple[GradientKind, ...] = get_args(GradientKind)

# Adafactor factors the second moment of a matrix from this size on.
SHAPE = (128, 128)
# By how many octaves a dropping gradient drops.
DROP = 8


class Schedule(NamedTuple):
    """What the gradient is in each step: which of two arrays, and by how much it is rolled."""

    which: np.ndarray
    shifts: np.ndarray


def _sparse(random: np.random.Generator) -> np.ndarray:
    rows = random.permutation(SHAPE[0]) < SHAPE[0] // 16
    return np.where(rows[:, None], random.normal(size=SHAPE), 0.0)


_DRAWS: dict[GradientKind, Callable[[np.random.Generator], np.ndarray]] = {
    "constant": lambda _: np.ones(SHAPE),
    "noisy": lambda random: random.normal(0.1, 1.0, SHAPE),
    "sparse": _sparse,
    "heavy_tailed": lambda random: random.standard_t(2.0, SHAPE),
    "dropping": lambda random: random.normal(0.1, 1.0, SHAPE),
}


def unit_gradient(kind: GradientKind) -> np.ndarray:
    """The gradient at unit scale, in float64; the same in every call."""
    return _DRAWS[kind](np.random.default_rng(0))


def schedule(kind: GradientKind, steps: int) -> Schedule:
    """Each step sees the entries in another place, as if they had been drawn anew.

    A dropping gradient is the second array in the second half of the steps.
    """
    which = np.zeros(steps, np.int32)
    if kind == "dropping":
        which[steps // 2 :] = 1
    shifts = np.random.default_rng(1).integers(0, SHAPE, (steps, 2), np.int32)
    return Schedule(which, shifts)


def single_infinity(steps: int) -> Schedule:
    """The second array, which has the infinity, in the last step of the first half."""
    which = np.zeros(steps, np.int32)
    which[steps // 2 - 1] = 1
    return Schedule(which, schedule("noisy", steps).shifts)


def exponents(kind: GradientKind, dtype: str) -> range:
    """The k for which some entry of 2^k times the gradient is neither 0 nor infinite.

    They begin with the dtype's smallest subnormal number, and end before any entry overflows.
    """
    info = jnp.finfo(dtype)
    largest = np.abs(unit_gradient(kind)).max()
    return range(
        int(np.log2(float(info.smallest_subnormal))),
        int(np.floor(np.log2(float(info.max) / largest))) + 1,
    )


def scaled(kind: GradientKind, dtype: str, exponent: int) -> np.ndarray:
    """The two arrays at 2^exponent, rounded to the dtype.

    In NumPy, which keeps the subnormal numbers that a compiled product may flush.
    """
    gradient = np.ldexp(unit_gradient(kind), exponent)
    after = np.ldexp(gradient, -DROP) if kind == "dropping" else gradient
    return np.stack([gradient, after]).astype(jnp.dtype(dtype))


def with_infinity(dtype: str) -> np.ndarray:
    """A noisy gradient at unit scale, and the same with one infinity."""
    pair = scaled("noisy", dtype, 0)
    pair[1, 0, 0] = np.inf
    return pair
