from collections.abc import Mapping
from typing import Any, get_args

import jax
import optax

from .._pages import Section, see
from ..theory import Budget
from ..theory._family import Families
from ._budget import budget_decay, check_budget, decay_width
from ._checked import state_name
from ._decay import DecayMode, add_weight_decay, is_cautious, is_coupled
from ._flat import taken_apart
from ._learning_rate import scale_at_budget
from ._numbers import Scalar, ScalarOrSchedule, check_function, check_number, is_python_number
from ._rates import Rates, scale_by_width
from ._unannotated import Unannotated, with_unannotated


class Together(optax.GradientTransformation):
    """Rules one behind the other as one; see `together`."""

    parts: tuple[optax.GradientTransformation, ...]


def together(*parts: optax.GradientTransformation) -> Together:
    """`optax.chain` of a rule's parts, each of which has its own place in what `descend` makes."""
    one = Together(*optax.chain(*parts))
    one.parts = parts
    return one


def descend(
    *update: optax.GradientTransformation,
    family: Families,
    learning_rate: ScalarOrSchedule,
    rates: Rates,
    role_multipliers: Mapping[str, Scalar] | None,
    weight_decay: Scalar | None = None,
    decay_mode: DecayMode | None = None,
    weight_decay_schedule: optax.Schedule | None = None,
    budget: Budget | None = None,
    unannotated: Unannotated = "error",
) -> optax.GradientTransformationExtraArgs:
    r"""$w \leftarrow w - \eta_t \gamma r^{-c} u$ with weight decay, $u$ from `update`.

    Without a weight decay nothing is added to the chain. One of zero has its place in the state,
    which is then the same as where the number is traced, and adds no operation. Of a budget the
    numbers of `update` know already; learning rate and decay are those at the base.
    """
    _check_decay(learning_rate, weight_decay, decay_mode, weight_decay_schedule)
    update = tuple(part for one in update for part in getattr(one, "parts", (one,)))
    check_budget(budget, family)
    step = (
        scale_by_width(family, rates, role_multipliers=role_multipliers),
        scale_at_budget(learning_rate, budget),
    )
    if weight_decay is None:
        parts = (*update, *step)
    elif is_coupled(decay_mode):
        coefficient = budget_decay(budget, weight_decay, coupled=True)
        parts = (*update, add_weight_decay(coefficient, cautious=is_cautious(decay_mode)), *step)
    else:
        coefficient = budget_decay(budget, weight_decay, coupled=False)
        width = decay_width(budget)
        decay = add_weight_decay(
            -coefficient, weight_decay_schedule, width=width, cautious=is_cautious(decay_mode)
        )
        parts = (*update, *step, decay)
    return optax.with_extra_args_support(with_unannotated(_chain(*parts), unannotated))


def _chain(*parts: optax.GradientTransformation) -> optax.GradientTransformation:
    """`optax.chain`, which says whose state it was given in place of its own."""
    chain = taken_apart(optax.chain(*parts))

    def update(updates, state, params=None, **extra):
        if type(state) is not tuple or len(state) != len(parts):
            states = state if type(state) is tuple else (state,)
            raise ValueError(
                f"the state is {', '.join(map(state_name, states)) or 'empty'}; expected the "
                f"{len(parts)} states that tx.init(params) of this optimizer returns"
                f"{see(Section.mismatch)}"
            )
        return chain.update(updates, state, params, **extra)

    return type(chain)(chain.init, update)


def _check_decay(
    learning_rate: ScalarOrSchedule,
    weight_decay: Scalar | None,
    decay_mode: DecayMode | None,
    weight_decay_schedule: optax.Schedule | None,
) -> None:
    if decay_mode not in (*get_args(DecayMode), None):
        expected = ", ".join(map(repr, get_args(DecayMode)))
        raise ValueError(f"decay_mode is {decay_mode!r}; expected one of {expected}")
    check_function("weight_decay_schedule", weight_decay_schedule)
    if weight_decay is None:
        if weight_decay_schedule is not None:
            raise ValueError("weight_decay_schedule is given without a weight_decay; pass one too")
        return
    check_number("weight_decay", weight_decay)
    is_zero = is_python_number(weight_decay) and weight_decay == 0
    if decay_mode is None and not is_zero:
        raise ValueError(decay_mode_missing(weight_decay, learning_rate))
    if is_coupled(decay_mode) and weight_decay_schedule is not None:
        raise ValueError(
            "weight_decay_schedule is for independent decay; coupled decay follows the "
            "learning rate. Leave it out, or use decay_mode='independent'"
        )
    is_independent = decay_mode is not None and not is_coupled(decay_mode)
    if is_independent and not is_zero and weight_decay_schedule is None:
        _check_constant_rate(learning_rate)


def decay_mode_missing(weight_decay: Any, learning_rate: Any) -> str:
    """The message where a weight decay doesn't say what it is a share of."""
    numbers = is_python_number(weight_decay) and is_python_number(learning_rate)
    example = (
        f" (optax's {weight_decay:g} at a learning rate of {learning_rate:g} takes away "
        f"{weight_decay * learning_rate:g} a step)"
        if numbers
        else ""
    )
    return (
        "weight_decay needs a decay_mode, which says what a step takes away from a weight w with "
        "the learning rate lr and the update u:\n"
        "  decay_mode='coupled':      w <- w - lr * (u + weight_decay * w)      as optax.adamw\n"
        "  decay_mode='independent':  w <- w - lr * u - weight_decay * w\n"
        "For what Optax does pass decay_mode='coupled'. To keep the decay that it has at the base "
        "width at every width, pass decay_mode='independent' and weight_decay times the learning "
        f"rate{example}{see(Section.decay_mode)}"
    )


def _check_constant_rate(learning_rate: ScalarOrSchedule) -> None:
    """Refuses a learning rate that changes, or may, beside a decay that doesn't say how it does."""
    if not callable(learning_rate) and not isinstance(learning_rate, jax.Array):
        return
    what, also = "a schedule", ""
    if not callable(learning_rate):
        what = "an array, which may change from step to step"
        also = (
            ". Under optax.inject_hyperparams, where a schedule arrives as an array, name it in "
            "static_args=('weight_decay_schedule',)"
        )
    raise ValueError(
        f"learning_rate is {what}, so weight_decay_schedule must say how independent decay goes "
        "with it: pass the schedule divided by its peak, or optax.constant_schedule(1.0) to keep "
        f"the decay constant{also}{see(Section.decay_schedule)}"
    )
