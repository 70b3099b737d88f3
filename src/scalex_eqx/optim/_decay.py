from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ..theory import LayerExponents, Role
from ._checked import checked
from ._numbers import (
    Scalar,
    check_array,
    check_function,
    is_python_number,
    known_number,
    times,
)
from ._rule import Constant, Degree, Rule
from ._tree import map_values

DecayMode = Literal["independent", "coupled"]

DECAYED = (Role.embedding, Role.hidden, Role.readout)
"""The roles of weights that decay."""


class AddWeightDecayState(NamedTuple):
    """The step count that the schedule is asked with, and what the rule is."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    rule: PyTree


def add_weight_decay(
    coefficient: Scalar,
    schedule: optax.Schedule | None = None,
    *,
    width: LayerExponents | None = None,
) -> optax.GradientTransformation:
    r"""$u \leftarrow u + s_t\, \text{coefficient}\; w$ for every matrix; vectors are left alone.

    With `width` the coefficient grows as $r^x$, its exponents $x$ by role. A coefficient that is
    known to be zero adds no operation.
    """
    if isinstance(coefficient, jax.Array):
        check_array("weight_decay", coefficient)
    check_function("weight_decay_schedule", schedule)
    known = known_number(coefficient)
    is_zero = is_python_number(coefficient) and coefficient == 0
    # What is added to the update is the weight times the coefficient.
    constant = Constant(
        "weight_decay", known and abs(known), Degree(update=1, weight=-1), width=width
    )
    rule = Rule(
        "add_weight_decay", constants=(constant,), settings=(("is_schedule", schedule is not None),)
    )

    def init(params: optax.Params) -> AddWeightDecayState:
        return AddWeightDecayState(jnp.zeros((), jnp.int32), rule)

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("weight decay needs the weights: call tx.update(grads, state, params)")
        if is_zero and schedule is None:
            return updates, state
        factor = coefficient
        if schedule is not None:
            scale = jnp.asarray(schedule(state.count))
            check_array("weight_decay_schedule, as it returns it,", scale)
            factor = coefficient * scale.astype(float)

        def decay(spec, u, w):
            if spec.role not in DECAYED:
                return u
            scale = 1.0 if width is None else spec.scale(-width[spec.role])
            return u + times(factor if scale == 1 else factor * scale, w.astype(u.dtype))

        count = jnp.asarray(optax.safe_increment(state.count))
        moved = updates if is_zero else map_values(decay, updates, params)
        return moved, AddWeightDecayState(count, rule)

    return checked(rule, AddWeightDecayState, init, update, takes_complex=True)
