"""What part of a first step arrives in weights that are rounded to nearest, by role."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import scalex_eqx as sx
from numerics.width.gradients import MATRICES, Seen
from numerics.width.strength import Role, as_weight

# At the base width.
LEARNING_RATES = (2.0**-10, 2.0**-11)
# Digits of the significand, the leading one among them.
DIGITS = {"bfloat16": 8, "float16": 11, "float32": 24}


def arriving(roles: dict[str, Role], dtype: str) -> dict[tuple[str, float], float]:
    """By role and learning rate, the movement along Adam's first step relative to the step."""
    matrices = {name: role for name, role in roles.items() if name in MATRICES}
    model = {name: as_weight(role, role.values.astype(dtype)) for name, role in matrices.items()}
    gradient = {name: as_weight(role, role.gradients[0]) for name, role in matrices.items()}
    # Compiled together with the sum, the movement would not be rounded: XLA on the CPU leaves a
    # cast to bfloat16 and back out of what it sums up, a barrier between them or not.
    steps, after = jax.device_get(_first_step(model, gradient))
    found = {}
    for name, weight in model.items():
        before = np.asarray(weight.value).astype(np.float32)
        moved = after[name].value.astype(np.float32) - before
        step = steps[name].value.astype(np.float32)
        along = np.mean(moved * step, axis=(1, 2)) / np.mean(step * step, axis=(1, 2))
        found |= {(name, rate): float(x) for rate, x in zip(LEARNING_RATES, along, strict=True)}
    return found


@jax.jit
def _first_step(model: Any, gradient: Any) -> Any:
    """The update and the weights after it, axes learning rate and the weight's."""

    def at(rate):
        tx = sx.adam(rate)
        updates, _ = tx.update(gradient, tx.init(model), model)
        return updates, optax.apply_updates(model, updates)

    return jax.vmap(at)(jnp.asarray(LEARNING_RATES, jnp.float32))


@dataclasses.dataclass(frozen=True)
class Drawn:
    r"""So many entries of standard deviation $\sigma r^{-b}$, moved by $\eta r^{-c}$ each."""

    count: int
    std: float
    b: float
    c: float


def drawn(weights: dict[str, Seen], role: str) -> list[Drawn]:
    """The weights of a role at initialisation, those entries that have a gradient."""
    return [_drawn(weight) for weight in weights.values() if weight.spec.role == role]


def _drawn(weight: Seen) -> Drawn:
    spec = weight.spec
    assert spec.std is not None and spec.parameterization is not None and spec.role is not None
    c = sx.theory.learning_rate_exponents(spec.parameterization, "adam", sx.full_alignment)
    count = int(np.count_nonzero(weight.gradients[0]))
    return Drawn(count, spec.std, float(spec.spread_exponent), float(c[spec.role]))


def expected(own: list[Drawn], rate: float, dtype: str, ratio: float) -> float:
    """The part that arrives of steps of one size in normal weights, from their distribution.

    A weight lies on multiples of its unit in the last place, which is the same between two powers
    of two, and the step is rounded to one of them. A tie goes to the even one, every other time.
    """
    total = sum(one.count for one in own)
    return sum(one.count / total * _expected(one, rate, dtype, ratio) for one in own)


def _expected(one: Drawn, rate: float, dtype: str, ratio: float) -> float:
    std = one.std * ratio**-one.b
    step = rate * ratio**-one.c
    found, top = 0.0, math.ceil(math.log2(8 * std))
    for exponent in range(top, top - 40, -1):
        within = _below(2.0**exponent / std) - _below(2.0 ** (exponent - 1) / std)
        units = step / 2.0 ** (exponent - DIGITS[dtype])
        found += within * _rounded(units) / units
    return found + _below(2.0 ** (top - 40) / std)


def lost_at(own: list[Drawn], rate: float, dtype: str, level: float) -> float:
    """The ratio of widths from which less than `level` arrives; infinite if none up to 2^80."""
    for eighths in range(8 * 80):
        if expected(own, rate, dtype, 2.0 ** (eighths / 8)) < level:
            return 2.0 ** (eighths / 8)
    return math.inf


def _rounded(units: float) -> float:
    tie = units % 1 == 0.5
    return units if tie else round(units)


def _below(size: float) -> float:
    """The probability that a standard normal number has a size below this one."""
    return math.erf(size / math.sqrt(2))
