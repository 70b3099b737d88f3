from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from .._weight import is_trainable
from ..theory import Budget
from ._budget import budget_rate
from ._checked import checked
from ._numbers import (
    Scalar,
    ScalarOrSchedule,
    check_array,
    check_number,
    known_number,
    lost,
    times,
    vanishes,
)
from ._rule import Rule
from ._tree import for_each


class ScaleByLearningRateState(NamedTuple):
    """The step count that a schedule is asked with (else `None`), and what the rule is."""

    count: PyTree  # pyright: ignore[reportIncompatibleMethodOverride]
    rule: PyTree


def scale_by_learning_rate(
    learning_rate: ScalarOrSchedule,
) -> optax.GradientTransformation:
    r"""$u \leftarrow -\eta_t\, u$ for a float, a traced scalar or a schedule $\eta$."""
    return scale_at_budget(learning_rate, None)


def scale_at_budget(
    learning_rate: ScalarOrSchedule, budget: Budget | None
) -> optax.GradientTransformation:
    """The same for the learning rate at the base of a budget, which the rule then names.

    Plans read there what has been done to the other numbers of the same optimizer too.
    """
    learning_rate = budget_rate(budget, learning_rate)
    if not callable(learning_rate):
        check_number("learning_rate", learning_rate)
    rule = Rule(
        "scale_by_learning_rate",
        settings=(
            ("learning_rate", None if callable(learning_rate) else known_number(learning_rate)),
            ("is_schedule", callable(learning_rate)),
            # What came later stays out of states and exports that lack it.
            *(() if budget is None else (("budget", budget),)),
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
            check_array("learning_rate, as the schedule returns it,", rate)
            count = jnp.asarray(optax.safe_increment(state.count))
            state = ScaleByLearningRateState(count, rule)
        else:
            rate = learning_rate
        leaves, treedef = jax.tree.flatten(updates)
        moved = [i for i, u in enumerate(leaves) if is_trainable(u)]
        scaled = for_each(
            lambda _, u: times(-rate, u), [None] * len(moved), [leaves[i] for i in moved]
        )
        for i, u in zip(moved, scaled, strict=True):
            leaves[i] = u
        return jax.tree.unflatten(treedef, leaves), state

    return checked(
        rule,
        ScaleByLearningRateState,
        init,
        update,
        check=lambda params: _check_size(learning_rate, params),
        takes_complex=True,
        takes_bare=True,
    )


def _check_size(learning_rate: ScalarOrSchedule, params: optax.Params) -> None:
    """Refuses a known learning rate that is no number in the dtype of a weight."""
    known = None if callable(learning_rate) else known_number(learning_rate)
    for dtype in {x.dtype for x in jax.tree.leaves(params) if is_trainable(x)}:
        if known and vanishes(known, dtype):
            raise ValueError(
                f"learning_rate is {known:g}, and {lost(known, dtype)}; give another, or keep the "
                "weights in a wider dtype"
            )
