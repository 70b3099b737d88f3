from typing import Literal, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from .._weight import require_complete
from ..theory import Role
from ._numbers import Scalar, known_number, times
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
    coefficient: Scalar, schedule: optax.Schedule | None = None
) -> optax.GradientTransformation:
    r"""$u \leftarrow u + s_t\, \text{coefficient}\; w$ for every matrix; vectors are left alone."""
    known = known_number(coefficient)
    # What is added to the update is the weight times the coefficient.
    constant = Constant("weight_decay", known and abs(known), Degree(update=1, weight=-1))
    rule = Rule(
        "add_weight_decay", constants=(constant,), settings=(("is_schedule", schedule is not None),)
    )

    def init(params: optax.Params) -> AddWeightDecayState:
        require_complete(params)
        return AddWeightDecayState(jnp.zeros((), jnp.int32), rule)

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("weight decay needs the weights: call tx.update(grads, state, params)")
        require_complete(updates)
        factor = coefficient
        if schedule is not None:
            factor = coefficient * jnp.asarray(schedule(state.count), float)

        def decay(spec, u, w):
            return u + times(factor, w.astype(u.dtype)) if spec.role in DECAYED else u

        count = jnp.asarray(optax.safe_increment(state.count))
        return map_values(decay, updates, params), AddWeightDecayState(count, rule)

    return optax.GradientTransformation(init, update)
