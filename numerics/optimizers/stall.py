"""What a second moment in low precision makes of a gradient that suddenly shrinks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

import scalex_eqx as sx
from numerics.optimizers.oracles import SPEC
from numerics.reference.update_rules import B1, moments
from scalex_eqx.diagnostics import Table

NAME = "optimizers: second moment after a drop"
SHAPE, BEFORE, AFTER, DROP = (48, 48), 1000, 3000, 8


def table() -> Table:
    """For each rule, the second moment and the update after the drop, relative to float64's."""
    rows = [_row(name, *case) for name, case in _cases().items()]
    columns = ("rule", "b2", "second moment", "update")
    return Table(NAME, columns[:2], columns, rows)


def _cases() -> dict[str, tuple]:
    return {
        "adam": (sx.adam(1.0), "nu", 0.999, "float32"),
        "adam-bfloat16": (sx.adam(1.0, moment_dtype="bfloat16"), "nu", 0.999, "float32"),
        "adam-bfloat16, b2 0.95": (
            sx.adam(1.0, b2=0.95, moment_dtype="bfloat16"),
            "nu",
            0.95,
            "float32",
        ),
        "adam_atan2": (sx.adam_atan2(1.0), "root", 0.999, "float32"),
        "adam_atan2-bfloat16": (
            sx.adam_atan2(1.0, moment_dtype="bfloat16"),
            "root",
            0.999,
            "float32",
        ),
        "optax.adam, bfloat16 weights": (optax.adam(1.0), "nu", 0.999, "bfloat16"),
    }


def _row(name: str, tx, field: str, b2: float, dtype: str) -> dict:
    square, update = (np.asarray(x, np.float64) for x in _run(tx, field, dtype))
    inner = moments(B1, b2)
    next(inner)
    mean, ideal = np.empty(0), np.empty(0)
    for t in range(BEFORE + AFTER):
        mean, ideal = inner.send(_gradient(t).astype(np.float64))
    expected = mean / np.sqrt(ideal)
    if field == "root":
        # Kept is the root, corrected for its start at zero.
        square, expected = square**2, 4 / np.pi * np.arctan2(mean, np.sqrt(ideal))
    else:
        square /= 1 - b2 ** (BEFORE + AFTER)
    return {
        "rule": name,
        "b2": b2,
        "second moment": float(square.mean() / ideal.mean()),
        "update": float(np.sqrt(np.mean(update**2) / np.mean(expected**2))),
    }


_BASE = np.random.default_rng(4).normal(0.1, 1.0, SHAPE).astype(np.float32)
_SHIFTS = np.random.default_rng(5).integers(0, _BASE.size, BEFORE + AFTER)


def _gradient(t: int) -> np.ndarray:
    """The entries, moved about, and smaller after the drop; exact in every dtype of the run."""
    scale = 1.0 if t < BEFORE else 2.0**-DROP
    return scale * np.roll(_BASE.ravel(), _SHIFTS[t]).reshape(SHAPE)


def _run(tx: optax.GradientTransformation, field: str, dtype: str) -> tuple[Array, Array]:
    """The second moment's field of the state, and the update, after the last step."""
    params: Any = {"weight": sx.Weight(jnp.zeros(SHAPE, dtype), SPEC)}

    def step(carry, x):
        shift, scale = x
        gradient = scale * jnp.roll(jnp.asarray(_BASE).ravel(), shift).reshape(SHAPE)
        tree: Any = {"weight": sx.Weight(gradient.astype(dtype), SPEC)}
        updates, state = tx.update(tree, carry[1], params)
        return (jax.tree.leaves(updates)[0], state), None

    scales = np.where(np.arange(BEFORE + AFTER) < BEFORE, 1.0, 2.0**-DROP).astype(np.float32)
    start = (jnp.zeros(SHAPE, dtype), tx.init(params))
    run = jax.jit(lambda start, shifts, scales: jax.lax.scan(step, start, (shifts, scales))[0])
    update, state = run(start, jnp.asarray(_SHIFTS, jnp.int32), jnp.asarray(scales))
    return jax.tree.leaves(optax.tree_utils.tree_get(state, field))[0], update
