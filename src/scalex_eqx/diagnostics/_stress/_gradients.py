"""The gradients that an update rule is put through: one array, its entries moved about."""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np

GradientKind = Literal["constant", "noisy", "sparse", "heavy_tailed", "dropping"]
GRADIENT_KINDS: tuple[GradientKind, ...] = get_args(GradientKind)

Shape = tuple[int, int]

# Adafactor factors the second moment of a matrix from this size on.
SHAPE: Shape = (128, 128)
# By how many octaves a dropping gradient drops.
DROP = 8


class Schedule(NamedTuple):
    """What the gradient is in each step: which of two arrays, and by how much it is rolled."""

    which: np.ndarray
    shifts: np.ndarray


def _sparse(random: np.random.Generator, shape: Shape) -> np.ndarray:
    rows = random.permutation(shape[0]) < shape[0] // 16
    return np.where(rows[:, None], random.normal(size=shape), 0.0)


_DRAWS: dict[GradientKind, Callable[[np.random.Generator, Shape], np.ndarray]] = {
    "constant": lambda _, shape: np.ones(shape),
    "noisy": lambda random, shape: random.normal(0.1, 1.0, shape),
    "sparse": _sparse,
    "heavy_tailed": lambda random, shape: random.standard_t(2.0, shape),
    "dropping": lambda random, shape: random.normal(0.1, 1.0, shape),
}


def unit_gradient(kind: GradientKind, shape: Shape) -> np.ndarray:
    """The gradient at unit scale, in float64; the same in every call."""
    return _DRAWS[kind](np.random.default_rng(0), shape)


def schedule(kind: GradientKind, steps: int, shape: Shape) -> Schedule:
    """Each step sees the entries in another place, as if they had been drawn anew.

    A dropping gradient is the second array in the second half of the steps.
    """
    which = np.zeros(steps, np.int32)
    if kind == "dropping":
        which[steps // 2 :] = 1
    shifts = np.random.default_rng(1).integers(0, shape, (steps, 2), np.int32)
    return Schedule(which, shifts)


def single_infinity(steps: int, shape: Shape) -> Schedule:
    """The second array, which has the infinity, in the last step of the first half."""
    which = np.zeros(steps, np.int32)
    which[steps // 2 - 1] = 1
    return Schedule(which, schedule("noisy", steps, shape).shifts)


def exponents(kind: GradientKind, dtype: str, shape: Shape) -> range:
    """The k for which some entry of 2^k times the gradient is neither 0 nor infinite.

    They begin with the dtype's smallest subnormal number, and end before any entry overflows.
    """
    info = jnp.finfo(dtype)
    largest = np.abs(unit_gradient(kind, shape)).max()
    return range(
        int(np.log2(float(info.smallest_subnormal))),
        int(np.floor(np.log2(float(info.max) / largest))) + 1,
    )


def scaled(kind: GradientKind, dtype: str, exponent: int, shape: Shape) -> np.ndarray:
    """The two arrays at 2^exponent, rounded to the dtype.

    In NumPy, which keeps the subnormal numbers that a compiled product may flush.
    """
    gradient = np.ldexp(unit_gradient(kind, shape), exponent)
    after = np.ldexp(gradient, -DROP) if kind == "dropping" else gradient
    return np.stack([gradient, after]).astype(jnp.dtype(dtype))


def with_infinity(dtype: str, shape: Shape) -> np.ndarray:
    """A noisy gradient at unit scale, and the same with one infinity."""
    pair = scaled("noisy", dtype, 0, shape)
    pair[1, 0, 0] = np.inf
    return pair
