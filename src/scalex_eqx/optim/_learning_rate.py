from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from ._numbers import Scalar, ScalarOrSchedule, check_number, known_number, times
from ._rule import Rule
from ._tree import traced_once


class ScaleByLearningRateState(NamedTuple):
    """The step count that a schedule is asked with (else `None`), and what the rule is."""

    count: PyTree  # pyright: ignore[reportIncompatibleMethodOverride]
    rule: PyTree


def scale_by_learning_rate(
    learning_rate: ScalarOrSchedule,
) -> optax.GradientTransformation:
    r"""$u \leftarrow -\eta_t\, u$ for a float, a traced scalar or a schedule $\eta$."""
    if not callable(learning_rate):
        check_number("learning_rate", learning_rate)
    rule = Rule(
        "scale_by_learning_rate",
        settings=(
            ("learning_rate", None if callable(learning_rate) else known_number(learning_rate)),
            ("is_schedule", callable(learning_rate)),
        ),
    )

    def init(params: optax.Params) -> ScaleByLearningRateState:
        del params
        count = jnp.zeros((), jnp.int32) if callable(learning_rate) else None
        return ScaleByLearningRateState(count, rule)

    def update(updates, state, params=None):
        del params
        if callable(learning_rate):
            rate: Scalar = jnp.asarray(learning_rate(state.count))
            count = jnp.asarray(optax.safe_increment(state.count))
            state = ScaleByLearningRateState(count, rule)
        else:
            rate = learning_rate
        scaled = traced_once(lambda _, u: times(-rate, u))
        return jax.tree.map(
            lambda u: scaled(None, u) if eqx.is_inexact_array(u) else u, updates
        ), state

    return optax.GradientTransformation(init, update)
