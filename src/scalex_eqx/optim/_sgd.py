from collections.abc import Mapping
from typing import NamedTuple

import optax
from jaxtyping import PyTree

from ..ops._wide import wide
from ..theory import Budget, full_alignment
from ._checked import checked
from ._decay import DecayMode
from ._descent import descend
from ._moments import MomentDtype, finite_or_nan, moved, zeros_of
from ._numbers import Scalar, ScalarOrSchedule, as_dtype_of, check_number, known_number
from ._rates import Rates
from ._rule import Degree, Rule
from ._stateless import stateless
from ._tree import init_values, map_values
from ._unannotated import Unannotated


class ScaleByMomentumState(NamedTuple):
    """The decaying sum of the gradients, and what the rule is."""

    trace: PyTree
    rule: PyTree


def scale_by_momentum(
    momentum: Scalar = 0.9,
    *,
    nesterov: bool = False,
    moment_dtype: MomentDtype | None = None,
) -> optax.GradientTransformation:
    r"""The decaying sum of the gradients.

    $$m \leftarrow \mu\, m + g, \qquad u = \begin{cases} m & \\ \mu\, m + g & \text{Nesterov}
    \end{cases}$$

    **Arguments:**

    - `momentum`: $\mu$; a float or a traced scalar.
    - `nesterov`: whether the update looks one step ahead.
    - `moment_dtype`: what the sum is kept in: `"float32"`, `"bfloat16"`, `"float16"`, or
        `None` for the weights' dtype or float32, whichever is wider. It is computed in float32
        or wider.

    **Returns:** an `optax.GradientTransformation` over trees of weights. The updates have the
    gradients' dtype. A gradient that is not finite gives NaN.

    ??? cite "Source"

        Sutskever et al., *On the importance of initialization and momentum in deep learning*
        (2013), section 2.
    """
    check_number("momentum", momentum, below=1.0)
    rule = Rule(
        "scale_by_momentum",
        fields=(("trace", Degree(update=1)),),
        settings=(("momentum", known_number(momentum)), ("nesterov", nesterov)),
    )
    zeros = zeros_of(moment_dtype)

    def init(params: optax.Params) -> ScaleByMomentumState:
        return ScaleByMomentumState(init_values(zeros, params), rule)

    def accumulate(m, g):
        return as_dtype_of(m, momentum) * m + g

    def output(_, g, m):
        update = accumulate(wide(m), g.astype(wide(m).dtype)) if nesterov else m
        return finite_or_nan(update).astype(g.dtype)

    def update(updates, state, params=None):
        del params
        trace = map_values(lambda _, m, g: moved(accumulate, m, g), state.trace, updates)
        return map_values(output, updates, trace), ScaleByMomentumState(trace, rule)

    return checked(rule, ScaleByMomentumState, init, update, takes_complex=True)


def scale_by_gradient() -> optax.GradientTransformation:
    """The gradient itself, with NaN in place of an infinity."""
    rule = Rule("scale_by_gradient")

    def finite(updates, _):
        return map_values(lambda _, g: finite_or_nan(g), updates)

    return stateless(rule, finite, takes_complex=True)


def bare_sgd(
    momentum: Scalar | None = None,
    *,
    nesterov: bool = False,
    moment_dtype: MomentDtype | None = None,
) -> optax.GradientTransformation:
    """SGD's update without a learning rate: the gradient, or its momentum."""
    if momentum is None and moment_dtype is not None:
        raise ValueError(
            f"moment_dtype={moment_dtype!r} is that of the momentum; pass momentum, such as 0.9"
        )
    if nesterov and momentum is None:
        raise ValueError("nesterov=True looks ahead along the momentum; pass momentum, such as 0.9")
    if momentum is None:
        return scale_by_gradient()
    return scale_by_momentum(momentum, nesterov=nesterov, moment_dtype=moment_dtype)


def sgd(
    learning_rate: ScalarOrSchedule,
    rates: Rates = full_alignment,
    *,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    moment_dtype: MomentDtype | None = None,
    weight_decay: Scalar | None = None,
    decay_mode: DecayMode | None = None,
    weight_decay_schedule: optax.Schedule | None = None,
    role_multipliers: Mapping[str, Scalar] | None = None,
    budget: Budget | None = None,
    unannotated: Unannotated = "error",
) -> optax.GradientTransformation:
    r"""Stochastic gradient descent with per-layer learning rates, with or without momentum.

    $$w \leftarrow w - \eta_t\, \gamma_\text{role}\, r^{-c}\, u$$

    with $u = g$, or from [`scalex_eqx.optim.scale_by_momentum`][].

    **Arguments:**

    - `learning_rate`, `rates`, `role_multipliers`, `budget`, `unannotated`: as for
        [`scalex_eqx.adam`][].
    - `momentum`, `nesterov`, `moment_dtype`: as for
        [`scalex_eqx.optim.scale_by_momentum`][]; `None` for no momentum.
    - `weight_decay`, `decay_mode`, `weight_decay_schedule`: as for [`scalex_eqx.adamw`][]; `None`
        for no decay.

    **Returns:** an `optax.GradientTransformation` over trees of weights.
    """
    return descend(
        bare_sgd(momentum, nesterov=nesterov, moment_dtype=moment_dtype),
        family="sgd",
        learning_rate=learning_rate,
        rates=rates,
        role_multipliers=role_multipliers,
        budget=budget,
        weight_decay=weight_decay,
        decay_mode=decay_mode,
        weight_decay_schedule=weight_decay_schedule,
        unannotated=unannotated,
    )
