from collections.abc import Mapping

import optax

from .._pages import Section, see
from ._decay import DecayMode, add_weight_decay
from ._learning_rate import scale_by_learning_rate
from ._numbers import Scalar, ScalarOrSchedule, check_number, is_python_number
from ._rates import Rates, scale_by_width
from ._unannotated import Unannotated, with_unannotated


def descend(
    *update: optax.GradientTransformation,
    family: str,
    learning_rate: ScalarOrSchedule,
    rates: Rates,
    role_multipliers: Mapping[str, Scalar] | None,
    weight_decay: Scalar = 0.0,
    decay_mode: DecayMode = "independent",
    weight_decay_schedule: optax.Schedule | None = None,
    unannotated: Unannotated = "error",
) -> optax.GradientTransformation:
    r"""$w \leftarrow w - \eta_t \gamma r^{-c} u$ with weight decay, $u$ from `update`.

    A weight decay that is known to be zero adds nothing to the chain.
    """
    _check_decay(learning_rate, weight_decay, decay_mode, weight_decay_schedule)
    step = (
        scale_by_width(family, rates, role_multipliers=role_multipliers),
        scale_by_learning_rate(learning_rate),
    )
    if is_python_number(weight_decay) and weight_decay == 0:
        chain = optax.chain(*update, *step)
    elif decay_mode == "coupled":
        chain = optax.chain(*update, add_weight_decay(weight_decay), *step)
    else:
        decay = add_weight_decay(-weight_decay, weight_decay_schedule)
        chain = optax.chain(*update, *step, decay)
    return with_unannotated(chain, unannotated)


def _check_decay(
    learning_rate: ScalarOrSchedule,
    weight_decay: Scalar,
    decay_mode: DecayMode,
    weight_decay_schedule: optax.Schedule | None,
) -> None:
    check_number("weight_decay", weight_decay)
    if decay_mode not in ("independent", "coupled"):
        raise ValueError(f"decay_mode is {decay_mode!r}; expected 'independent' or 'coupled'")
    if decay_mode == "coupled" and weight_decay_schedule is not None:
        raise ValueError(
            "weight_decay_schedule is for independent decay; coupled decay follows the "
            "learning rate. Leave it out, or use decay_mode='independent'"
        )
    decays = not (is_python_number(weight_decay) and weight_decay == 0)
    needs_schedule = callable(learning_rate) and decays and decay_mode == "independent"
    if needs_schedule and weight_decay_schedule is None:
        raise ValueError(
            "learning_rate is a schedule, so weight_decay_schedule must say how independent "
            "decay goes with it: pass the schedule divided by its peak, or "
            f"optax.constant_schedule(1.0) to keep the decay constant{see(Section.decay_schedule)}"
        )
