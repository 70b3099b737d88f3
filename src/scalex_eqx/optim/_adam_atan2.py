import math
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ..ops import atan2, moving_mean, moving_root_mean_square
from ..ops._wide import wide
from ..theory import Budget, full_alignment
from ._budget import budget_betas
from ._checked import checked
from ._decay import DecayMode
from ._descent import descend
from ._moments import MomentDtype, map_moments, unbiased_step, zeros_of
from ._numbers import Scalar, ScalarOrSchedule, check_number, known_number, times
from ._rates import Rates
from ._rule import Degree, Rule
from ._tree import init_values, map_values
from ._unannotated import Unannotated


class ScaleByAdamAtan2State(NamedTuple):
    """The step count, the mean and the root mean square of the gradient, and what the rule is."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    mean: PyTree
    root: PyTree
    rule: PyTree


def scale_by_adam_atan2(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    *,
    a: Scalar = 4 / math.pi,
    b: Scalar = 1.0,
    moment_dtype: MomentDtype | None = None,
) -> optax.GradientTransformation:
    r"""Adam's update without an epsilon, the same whatever the scale of the gradient.

    $$\hat m \leftarrow \hat m + \frac{1 - \beta_1}{1 - \beta_1^t} (g - \hat m), \qquad
    \hat s \leftarrow \sqrt{\hat s^2 + \frac{1 - \beta_2}{1 - \beta_2^t} (g^2 - \hat s^2)}, \qquad
    u = a \operatorname{atan2}(\hat m, b\, \hat s)$$

    $\hat m$ and $\hat s^2$ are Adam's moments with its correction for their start at zero: the
    changing weight makes the two formulas one. The state holds the *root* of the second moment,
    and both moments are computed in units of a power of two. In float32 the updates are equal to
    the last bit for gradients that differ by a power of two, over the whole range of the dtype.
    Where a gradient has no normal number left, its update fades to zero. The square alone would
    underflow below 1e-19 and leave the largest update instead.

    **Arguments:**

    - `b1`, `b2`: the decay rates; floats or traced scalars.
    - `a`: the factor. With $4 / \pi$ a constant gradient gives an update of one, as Adam does.
        Where $|\hat m|$ is much smaller than $\hat s$ the update is then $4 / \pi$ of Adam's.
    - `b`: how far the update follows $\hat m / \hat s$ before it levels off at $a \pi / 2$.
    - `moment_dtype`: what the moments are kept in: `"float32"`, `"bfloat16"`, `"float16"`, or
        `None` for the weights' dtype or float32, whichever is wider. They are computed in float32
        or wider.

    **Returns:** an `optax.GradientTransformation` over trees of weights. The updates have the
    gradients' dtype. A gradient that is not finite gives NaN, then and from there on.

    ??? cite "Source"

        Everett et al. (2024), [arXiv:2407.05872](https://arxiv.org/abs/2407.05872).
    """
    check_number("b1", b1, below=1.0)
    check_number("b2", b2, below=1.0)
    check_number("a", a)
    check_number("b", b)
    settings = tuple(
        (name, known_number(x)) for name, x in (("b1", b1), ("b2", b2), ("a", a), ("b", b))
    )
    rule = Rule(
        "scale_by_adam_atan2",
        fields=(("mean", Degree(update=1)), ("root", Degree(update=1))),
        output=Degree(),
        settings=settings,
    )
    zeros = zeros_of(moment_dtype)

    def init(params: optax.Params) -> ScaleByAdamAtan2State:
        mean, root = (init_values(zeros, params) for _ in range(2))
        return ScaleByAdamAtan2State(jnp.zeros((), jnp.int32), mean, root, rule)

    def update(updates, state, params=None):
        del params
        count = jnp.asarray(optax.safe_increment(state.count))
        step1, step2 = unbiased_step(b1, count), unbiased_step(b2, count)
        mean = map_moments(
            lambda m, g: moving_mean(m, g, step1.astype(m.dtype)), state.mean, updates
        )
        root = map_moments(
            lambda s, g: moving_root_mean_square(s, g, step2.astype(s.dtype)), state.root, updates
        )
        new_updates = map_values(
            lambda _, g, m, s: times(a, atan2(wide(m), times(b, wide(s)))).astype(g.dtype),
            updates,
            mean,
            root,
        )
        return new_updates, ScaleByAdamAtan2State(count, mean, root, rule)

    return checked(rule, ScaleByAdamAtan2State, init, update)


def adam_atan2(
    learning_rate: ScalarOrSchedule,
    rates: Rates = full_alignment,
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    a: Scalar = 4 / math.pi,
    b: Scalar = 1.0,
    moment_dtype: MomentDtype | None = None,
    weight_decay: Scalar | None = None,
    decay_mode: DecayMode | None = None,
    weight_decay_schedule: optax.Schedule | None = None,
    role_multipliers: Mapping[str, Scalar] | None = None,
    budget: Budget | None = None,
    unannotated: Unannotated = "error",
) -> optax.GradientTransformation:
    r"""Adam without an epsilon, with per-layer learning rates.

    $$w \leftarrow w - \eta_t\, \gamma_\text{role}\, r^{-c}\, u$$

    with $u$ from [`scalex_eqx.optim.scale_by_adam_atan2`][] and $c$ as for Adam.

    **Arguments:**

    - `learning_rate`, `rates`, `role_multipliers`, `budget`, `unannotated`: as for
        [`scalex_eqx.adam`][].
    - `b1`, `b2`, `a`, `b`, `moment_dtype`: as for
        [`scalex_eqx.optim.scale_by_adam_atan2`][].
    - `weight_decay`, `decay_mode`, `weight_decay_schedule`: as for [`scalex_eqx.adamw`][]; `None`
        for no decay.

    **Returns:** an `optax.GradientTransformation` over trees of weights.
    """
    b1, b2 = budget_betas(budget, b1, b2)
    return descend(
        scale_by_adam_atan2(b1, b2, a=a, b=b, moment_dtype=moment_dtype),
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
