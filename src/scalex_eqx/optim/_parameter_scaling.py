from collections.abc import Mapping
from typing import Literal

import jax.numpy as jnp
import optax

from .._spec import WeightSpec
from ..ops._wide import wide
from ..theory import Budget, no_alignment
from ._adam import scale_by_adam
from ._adam_rule import EpsScaling
from ._budget import Eps, budget_betas, budget_eps
from ._decay import DecayMode
from ._descent import descend, together
from ._numbers import Scalar, ScalarOrSchedule, as_dtype_of, check_number, known_number
from ._rates import Rates
from ._rule import Constant, Degree, Rule
from ._sizes import kept_root_mean_square, own_axes
from ._stateless import stateless
from ._tree import map_values
from ._unannotated import Unannotated

FloorScaling = Literal["initial", "constant"]


def scale_by_parameter_rms(
    floor: Scalar = 1e-3, *, floor_scaling: FloorScaling = "initial"
) -> optax.GradientTransformation:
    r"""Multiplies each weight's update by the size of the weight.

    $$u \leftarrow \max(\operatorname{RMS}(w),\, \phi\, r^{-b})\, u$$

    The floor $\phi$ lets a weight that starts at zero move at all. Weights that are stacked
    along leading axes each have a size of their own.

    **Arguments:**

    - `floor`: $\phi$ at the base width; a float or a traced scalar.
    - `floor_scaling`: `"initial"` for the factor $r^{-b}$, by which the initial weights shrink
        with the width; `"constant"` for none, as in Optax.

    **Returns:** an `optax.GradientTransformation` over trees of weights; its `update` needs the
    weights.

    ??? cite "Source"

        Shazeer and Stern, *Adafactor* (2018), section 8,
        [arXiv:1804.04235](https://arxiv.org/abs/1804.04235).
    """
    if floor_scaling not in ("initial", "constant"):
        raise ValueError(f"floor_scaling is {floor_scaling!r}; expected 'initial' or 'constant'")
    check_number("floor", floor)
    scaling = (0, 1) if floor_scaling == "initial" else (0, 0)
    rule = Rule(
        "scale_by_parameter_rms",
        output=Degree(update=1, weight=1),
        constants=(Constant("floor", known_number(floor), Degree(weight=1), scaling),),
    )

    def scale(spec: WeightSpec, u, w):
        size = kept_root_mean_square(spec, wide(w), own_axes(spec, w))
        initial = floor_scaling == "initial"
        least = floor * spec.scale(spec.spread_power) if initial else floor
        size = jnp.maximum(size, as_dtype_of(size, least))
        return (wide(u) * size.astype(wide(u).dtype)).astype(u.dtype)

    def relative(updates, params):
        if params is None:
            raise ValueError(
                "the update is relative to the weights: call tx.update(grads, state, params)"
            )
        return map_values(scale, updates, params)

    return stateless(rule, relative, takes_complex=True)


def bare_adam_parameter_scaling(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Eps = 1e-12,
    *,
    eps_scaling: EpsScaling = "gradient",
    moment_dtype: Literal["float32", "bfloat16"] | None = None,
    floor: Scalar = 1e-3,
    floor_scaling: FloorScaling = "initial",
) -> optax.GradientTransformation:
    """Adam's update relative to the size of the weight, without a learning rate."""
    return together(
        scale_by_adam(b1, b2, eps, eps_scaling=eps_scaling, moment_dtype=moment_dtype),
        scale_by_parameter_rms(floor, floor_scaling=floor_scaling),
    )


def adam_parameter_scaling(
    learning_rate: ScalarOrSchedule,
    rates: Rates = no_alignment,
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Eps = 1e-12,
    eps_scaling: EpsScaling = "gradient",
    moment_dtype: Literal["float32", "bfloat16"] | None = None,
    floor: Scalar = 1e-3,
    floor_scaling: FloorScaling = "initial",
    weight_decay: Scalar | None = None,
    decay_mode: DecayMode | None = None,
    weight_decay_schedule: optax.Schedule | None = None,
    role_multipliers: Mapping[str, Scalar] | None = None,
    budget: Budget | None = None,
    unannotated: Unannotated = "error",
) -> optax.GradientTransformation:
    r"""Adam with updates relative to the size of the weight, and per-layer learning rates.

    $$w \leftarrow w - \eta_t\, \gamma_\text{role}\, r^{-c}\, \max(\operatorname{RMS}(w),
    \phi\, r^{-b})\, u$$

    with $u$ from [`scalex_eqx.scale_by_adam`][] and $c$ as for Adafactor.

    **Arguments:**

    - `learning_rate`, `rates`, `role_multipliers`, `budget`, `unannotated`: as for
        [`scalex_eqx.adam`][].
    - `b1`, `b2`, `eps`, `eps_scaling`, `moment_dtype`: as for [`scalex_eqx.scale_by_adam`][].
    - `floor`, `floor_scaling`: as for [`scalex_eqx.optim.scale_by_parameter_rms`][].
    - `weight_decay`, `decay_mode`, `weight_decay_schedule`: as for [`scalex_eqx.adamw`][]; `None`
        for no decay.

    **Returns:** an `optax.GradientTransformation` over trees of weights.
    """
    b1, b2 = budget_betas(budget, b1, b2)
    eps = budget_eps(budget, eps)
    return descend(
        bare_adam_parameter_scaling(
            b1,
            b2,
            eps,
            eps_scaling=eps_scaling,
            moment_dtype=moment_dtype,
            floor=floor,
            floor_scaling=floor_scaling,
        ),
        family="adafactor",
        learning_rate=learning_rate,
        rates=rates,
        role_multipliers=role_multipliers,
        budget=budget,
        weight_decay=weight_decay,
        decay_mode=decay_mode,
        weight_decay_schedule=weight_decay_schedule,
        unannotated=unannotated,
    )
