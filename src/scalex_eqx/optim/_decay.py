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

DecayMode = Literal["independent", "coupled", "cautious_independent", "cautious_coupled"]

DECAYED = (Role.embedding, Role.hidden, Role.readout)
"""The roles of weights that decay."""


def is_coupled(mode: DecayMode | None) -> bool:
    """Whether the decay follows the learning rate of each weight."""
    return mode in ("coupled", "cautious_coupled")


def is_cautious(mode: DecayMode | None) -> bool:
    """Whether an entry decays only where its update goes towards zero as well."""
    return mode in ("cautious_independent", "cautious_coupled")


class AddWeightDecayState(NamedTuple):
    """The step count that the schedule is asked with, and what the rule is."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    rule: PyTree


def add_weight_decay(
    coefficient: Scalar,
    schedule: optax.Schedule | None = None,
    *,
    width: LayerExponents | None = None,
    cautious: bool = False,
) -> optax.GradientTransformation:
    r"""$u \leftarrow u + s_t\, \text{coefficient}\; w$ for every matrix; vectors are left alone.

    With `width` the coefficient grows as $r^x$, its exponents $x$ by role. With `cautious` nothing
    is added to an entry whose update has the opposite sign of what would be,
    $u \cdot \text{coefficient} \cdot w < 0$. A coefficient that is known to be zero adds no
    operation.

    ??? cite "Source"

        Chen et al., *Cautious Weight Decay* (2025),
        [arXiv:2510.12402](https://arxiv.org/abs/2510.12402).
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
        "add_weight_decay",
        constants=(constant,),
        settings=(("is_schedule", schedule is not None), *((("cautious", True),) * cautious)),
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
            added = times(factor if scale == 1 else factor * scale, w.astype(u.dtype))
            if cautious:
                # By their signs: the product of small numbers is zero.
                added = jnp.where(jnp.sign(added) * jnp.sign(u) < 0, 0, added)
            return u + added

        count = jnp.asarray(optax.safe_increment(state.count))
        moved = updates if is_zero else map_values(decay, updates, params)
        return moved, AddWeightDecayState(count, rule)

    return checked(rule, AddWeightDecayState, init, update, takes_complex=not cautious)
