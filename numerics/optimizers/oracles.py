"""The library's rules against NumPy oracles, at scales all over the dtype's range."""

import functools
import zlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

import scalex_eqx as sx
from numerics.reference.update_rules import ORACLES, last_update
from scalex_eqx.diagnostics import Table, stress_rules

SHAPE, STEPS, AT_ONCE = (128, 128), 20, 8
# Every eighth octave of float32, from the smallest subnormal number on.
EXPONENTS = tuple(range(-144, 125, 8))
NAME = "optimizers: deviation from NumPy"
KINDS = ("noisy", "dropping")
SPEC = sx.WeightSpec(
    (-1,),
    (-2,),
    std=0.02,
    role=sx.Role.hidden,
    parameterization=sx.standard,
    width_ratio=Fraction(1),
)


def table(kinds: tuple[str, ...]) -> Table:
    """For each kind of gradient and scale, how far each rule's last update is from the oracle's.

    Less than 1e-6, the rounding errors of float32, is reported as 1e-6.
    """
    runs = {name: _runner(stress_rules[name].make()) for name in ORACLES}
    rows = []
    for kind in kinds:
        found = {name: _deviations(name, kind, run) for name, run in runs.items()}
        rows += [
            {"gradient": kind, "exponent": k, **{name: found[name][k] for name in ORACLES}}
            for k in EXPONENTS
        ]
    keys = ("gradient", "exponent")
    return Table(NAME, keys, (*keys, *ORACLES), rows, tolerance=0.5)


def _deviations(name: str, kind: str, run: Callable[..., Array]) -> dict[int, float]:
    """By exponent."""
    found = {}
    for start in range(0, len(EXPONENTS), AT_ONCE):
        ks = EXPONENTS[start : start + AT_ONCE]
        padded = (*ks, *ks[-1:] * (AT_ONCE - len(ks)))
        updates = run(jnp.asarray(np.stack([gradients(kind, k) for k in padded])), weights())
        for k, update in zip(ks, np.asarray(updates, np.float64), strict=False):
            oracle = ORACLES[name](weights().astype(np.float64))
            deviation = relative(update, -last_update(oracle, gradients(kind, k)))
            found[k] = deviation if np.isnan(deviation) else max(deviation, 1e-6)
    return found


def relative(found: np.ndarray, ideal: np.ndarray) -> float:
    """The root mean square of the error, over that of the ideal; 0 if both are 0."""
    error, unit = np.abs(found - ideal).max(), np.abs(ideal).max()
    if error == 0:
        return 0.0
    scale = max(error, unit)
    with np.errstate(all="ignore"):
        error = np.sqrt(np.mean(np.square((found - ideal) / scale)))
        return float(error / np.sqrt(np.mean(np.square(ideal / scale))))


@functools.cache
def weights() -> np.ndarray:
    return (0.02 * np.random.default_rng(3).normal(size=SHAPE)).astype(np.float32)


@functools.cache
def _drawn(kind: str) -> np.ndarray:
    """Gradients at unit scale; half of the dropping ones are 2^-8 times smaller."""
    random = np.random.default_rng(zlib.crc32(kind.encode()))
    drawn = random.normal(0.1, 1.0, (STEPS, *SHAPE))
    if kind == "dropping":
        drawn[STEPS // 2 :] *= 2.0**-8
    return drawn


def gradients(kind: str, exponent: int) -> np.ndarray:
    return np.ldexp(_drawn(kind), exponent).astype(np.float32)


def _runner(tx: optax.GradientTransformation) -> Callable[..., Array]:
    """A compiled function from gradients, axes scale and step first, to the last update."""

    def run(gradients, params):
        tree: Any = {"weight": sx.Weight(params, SPEC)}

        def step(carry, gradient):
            gradients: Any = {"weight": sx.Weight(gradient, SPEC)}
            updates, state = tx.update(gradients, carry[1], tree)
            return (jax.tree.leaves(updates)[0], state), None

        start = (jnp.zeros_like(params), tx.init(tree))
        (update, _), _ = jax.lax.scan(step, start, gradients)
        return update

    return jax.jit(jax.vmap(run, in_axes=(0, None)))
