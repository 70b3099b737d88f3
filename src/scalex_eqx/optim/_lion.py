from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from ..ops import towards
from ..ops._wide import wide
from ..theory import Budget, full_alignment
from ._checked import checked
from ._decay import DecayMode
from ._descent import descend
from ._moments import MomentDtype, ema, finite_or_nan, moved, zeros_of
from ._numbers import Scalar, ScalarOrSchedule, check_number, known_number
from ._rates import Rates
from ._rule import Degree, Rule
from ._stateless import stateless
from ._tree import init_values, map_values, move_values
from ._unannotated import Unannotated


class ScaleByLionState(NamedTuple):
    """The mean of the gradient, and what the rule is."""

    mean: PyTree
    rule: PyTree


def scale_by_lion(
    b1: Scalar = 0.9, b2: Scalar = 0.99, *, moment_dtype: MomentDtype | None = None
) -> optax.GradientTransformation:
    r"""The sign of a mean of the gradient.

    $$u = \operatorname{sign}(\beta_1 m + (1 - \beta_1) g), \qquad
    m \leftarrow \beta_2 m + (1 - \beta_2) g$$

    **Arguments:**

    - `b1`: the weight of the past in the update.
    - `b2`: the decay rate of the mean.
    - `moment_dtype`: what the mean is kept in: `"float32"`, `"bfloat16"`, `"float16"`, or
        `None` for the weights' dtype or float32, whichever is wider. It is computed in float32
        or wider.

    **Returns:** an `optax.GradientTransformation` over trees of weights. The updates have the
    gradients' dtype. A gradient that is not finite gives NaN, then and from there on.

    ??? cite "Source"

        Chen et al., *Symbolic Discovery of Optimization Algorithms* (2023),
        [arXiv:2302.06675](https://arxiv.org/abs/2302.06675), Algorithm 2.
    """
    check_number("b1", b1, below=1.0)
    check_number("b2", b2, below=1.0)
    rule = Rule(
        "scale_by_lion",
        fields=(("mean", Degree(update=1)),),
        output=Degree(),
        settings=(("b1", known_number(b1)), ("b2", known_number(b2))),
    )
    zeros = zeros_of(moment_dtype)

    def init(params: optax.Params) -> ScaleByLionState:
        return ScaleByLionState(init_values(zeros, params), rule)

    share = _share(known_number(b1), known_number(b2))

    def move(_, g, m):
        new = moved(lambda m, g: ema(b2, m, g), m, g)
        x = g.astype(wide(m).dtype)
        mixed = ema(b1, wide(m), x) if share is None else towards(wide(new), x, share)
        return jnp.sign(finite_or_nan(mixed)).astype(g.dtype), new

    def update(updates, state, params=None):
        del params
        new_updates, mean = move_values(move, updates, state.mean)
        return new_updates, ScaleByLionState(mean, rule)

    return checked(rule, ScaleByLionState, init, update)


def _share(b1: float | None, b2: float | None) -> float | None:
    r"""The share of the gradient beside the *new* mean that gives Lion's update.

    $$\beta_1 m + (1 - \beta_1) g = \frac{\beta_1}{\beta_2} m' + (1 - \frac{\beta_1}{\beta_2}) g$$

    So the mean is made in its place and read from there. With the old one XLA:CPU keeps a copy of
    it, on a single core. `None` if the rates are not known, or so far apart that the rounding of
    the new mean would be seen in the sum.
    """
    if b1 is None or b2 is None or b1 > 2 * b2 or b2 == 0:
        return None
    return 1 - b1 / b2


def scale_by_sign() -> optax.GradientTransformation:
    r"""$u = \operatorname{sign}(g)$; 0 for 0 and NaN for what is not finite."""
    rule = Rule("scale_by_sign", output=Degree())

    return stateless(
        rule, lambda updates, _: map_values(lambda _, g: jnp.sign(finite_or_nan(g)), updates)
    )


def lion(
    learning_rate: ScalarOrSchedule,
    rates: Rates = full_alignment,
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    moment_dtype: MomentDtype | None = None,
    weight_decay: Scalar | None = None,
    decay_mode: DecayMode | None = None,
    weight_decay_schedule: optax.Schedule | None = None,
    role_multipliers: Mapping[str, Scalar] | None = None,
    unannotated: Unannotated = "error",
) -> optax.GradientTransformation:
    r"""Lion with per-layer learning rates.

    $$w \leftarrow w - \eta_t\, \gamma_\text{role}\, r^{-c}\, u$$

    with $u$ from [`scalex_eqx.optim.scale_by_lion`][] and $c$ as for Adam.

    **Arguments:**

    - `learning_rate`, `rates`, `role_multipliers`, `unannotated`: as for [`scalex_eqx.adam`][].
    - `b1`, `b2`, `moment_dtype`: as for [`scalex_eqx.optim.scale_by_lion`][].
    - `weight_decay`, `decay_mode`, `weight_decay_schedule`: as for [`scalex_eqx.adamw`][]; `None`
        for no decay.

    **Returns:** an `optax.GradientTransformation` over trees of weights.
    """
    return descend(
        scale_by_lion(b1, b2, moment_dtype=moment_dtype),
        family="adam",
        learning_rate=learning_rate,
        rates=rates,
        role_multipliers=role_multipliers,
        weight_decay=weight_decay,
        decay_mode=decay_mode,
        weight_decay_schedule=weight_decay_schedule,
        unannotated=unannotated,
    )


def sign_sgd(
    learning_rate: ScalarOrSchedule,
    rates: Rates = full_alignment,
    *,
    weight_decay: Scalar | None = None,
    decay_mode: DecayMode | None = None,
    weight_decay_schedule: optax.Schedule | None = None,
    role_multipliers: Mapping[str, Scalar] | None = None,
    budget: Budget | None = None,
    unannotated: Unannotated = "error",
) -> optax.GradientTransformation:
    r"""Descent along the sign of the gradient, with per-layer learning rates.

    $$w \leftarrow w - \eta_t\, \gamma_\text{role}\, r^{-c} \operatorname{sign}(g)$$

    with $c$ as for Adam: the size of the update is the same whatever the gradient's.

    **Arguments:**

    - `learning_rate`, `rates`, `role_multipliers`, `budget`, `unannotated`: as for
        [`scalex_eqx.adam`][].
    - `weight_decay`, `decay_mode`, `weight_decay_schedule`: as for [`scalex_eqx.adamw`][]; `None`
        for no decay.

    **Returns:** an `optax.GradientTransformation` over trees of weights.

    ??? cite "Source"

        Bernstein et al., *signSGD* (2018), [arXiv:1802.04434](https://arxiv.org/abs/1802.04434).
    """
    return descend(
        scale_by_sign(),
        family="adam",
        learning_rate=learning_rate,
        rates=rates,
        role_multipliers=role_multipliers,
        budget=budget,
        weight_decay=weight_decay,
        decay_mode=decay_mode,
        weight_decay_schedule=weight_decay_schedule,
        unannotated=unannotated,
    )
