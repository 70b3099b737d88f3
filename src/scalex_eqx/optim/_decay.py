from typing import Literal, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from .._weight import require_complete
from ..theory import Role
from ._rates import Scalar, times
from ._tree import map_values

DecayMode = Literal["independent", "coupled"]

_DECAYED = (Role.embedding, Role.hidden, Role.readout)


class AddWeightDecayState(NamedTuple):
    """The step count that the schedule is asked with."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]


def add_weight_decay(
    coefficient: Scalar, schedule: optax.Schedule | None = None
) -> optax.GradientTransformation:
    r"""$u \leftarrow u + s_t\, \text{coefficient}\; w$ for every matrix; vectors are left alone."""

    def init(params: optax.Params) -> AddWeightDecayState:
        require_complete(params)
        return AddWeightDecayState(jnp.zeros((), jnp.int32))

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("weight decay needs the weights: call tx.update(grads, state, params)")
        require_complete(updates)
        factor = coefficient
        if schedule is not None:
            factor = coefficient * jnp.asarray(schedule(state.count), float)

        def decay(spec, u, w):
            return u + times(factor, w.astype(u.dtype)) if spec.role in _DECAYED else u

        count = jnp.asarray(optax.safe_increment(state.count))
        return map_values(decay, updates, params), AddWeightDecayState(count)

    return optax.GradientTransformation(init, update)
