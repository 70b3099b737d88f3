from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ..ops._wide import wide
from ..theory import Budget, full_alignment
from ._budget import budget_beta
from ._checked import checked
from ._decay import DecayMode
from ._descent import descend
from ._moments import MomentDtype, ema, finite_or_nan, mass, moved, zeros_of
from ._numbers import Scalar, ScalarOrSchedule, check_number, known_number
from ._rates import Rates
from ._rule import BY_EXAMPLES, Degree, Rule
from ._statistics import STATISTICS, statistic
from ._tree import init_values, map_values
from ._unannotated import Unannotated

Placement = Literal["last", "mean", "example"]


class ScaleBySignEmaState(NamedTuple):
    """The step count, the mean over the steps, and what the rule is."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    mean: PyTree
    rule: PyTree


def scale_by_sign_ema(
    b1: Scalar = 0.9,
    *,
    placement: Placement | str = "last",
    moment_dtype: MomentDtype | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""A mean over the steps, with the sign taken behind it, before it, or of each example.

    | `placement` | $m$ | $u$ |
    |---|---|---|
    | `"last"`, SignEMA | $\beta m + (1 - \beta)\, G$ | $\operatorname{sign}(m)$ |
    | `"mean"` | $\beta m + (1 - \beta) \operatorname{sign}(G)$ | $m / (1 - \beta^t)$ |
    | `"example"` | $\beta m + (1 - \beta)\, S$ | $m / (1 - \beta^t)$ |

    $G$ is the mean of the gradients $g_i$ of a batch's examples, and $S$ that of their signs.
    Where $\mu \ll \sigma$ and the noise is Gaussian, a sign that is taken early costs
    $\sqrt{2 / \pi}$ of the ratio of signal to noise. Under noise with heavy tails the sign of each
    example is the better estimate, as the median is. `scalex noise` measures which it is.

    An update of constant gradients has entries of one. With signs that alternate they are
    smaller, whatever the gradient's size: a change of units doesn't change them.

    **Arguments:**

    - `b1`: $\beta$.
    - `placement`: where the sign is taken.
    - `moment_dtype`: what the mean is kept in: `"float32"`, `"bfloat16"`, `"float16"`, or
        `None` for the weights' dtype or float32, whichever is wider. It is computed in float32
        or wider.

    **Returns:** an `optax.GradientTransformationExtraArgs` over trees of weights. With
    `"example"` its `update` needs `statistics=`, a [`scalex_eqx.GradientStatistics`][] with `sign`.
    The updates have the gradients' dtype. A gradient that is not finite gives NaN.

    ??? cite "Source"

        Roulet and Agarwala (2025), [arXiv:2510.00236](https://arxiv.org/abs/2510.00236), compare
        the places and name SignEMA. Their exact formulas were not available: the table is derived
        from the orders of the three operations, and the correction of the means' start at zero is
        this library's.
    """
    check_number("b1", b1, below=1.0)
    if placement not in get_args(Placement):
        raise ValueError(f"placement is {placement!r}; expected 'last', 'mean' or 'example'")
    by_example = ((STATISTICS, "sign"), *BY_EXAMPLES) if placement == "example" else ()
    rule = Rule(
        "scale_by_sign_ema",
        # A mean of signs has no unit.
        fields=(("mean", Degree(update=int(placement == "last"))),),
        output=Degree(),
        settings=(("b1", known_number(b1)), ("placement", placement), *by_example),
    )
    zeros = zeros_of(moment_dtype)

    def init(params: optax.Params) -> ScaleBySignEmaState:
        return ScaleBySignEmaState(jnp.zeros((), jnp.int32), init_values(zeros, params), rule)

    def update(updates, state, params=None, statistics=None, **_):
        del params
        count = jnp.asarray(optax.safe_increment(state.count))
        given = statistic(rule, statistics, updates) if placement == "example" else updates

        def move(_, m, x):
            x = finite_or_nan(x)
            return moved(lambda m, x: ema(b1, m, x), m, jnp.sign(x) if placement == "mean" else x)

        def out(_, g, m):
            if placement == "last":
                return jnp.sign(finite_or_nan(m)).astype(g.dtype)
            x = wide(m)
            return (x / mass(b1, count).astype(x.dtype)).astype(g.dtype)

        mean = map_values(move, state.mean, given)
        return map_values(out, updates, mean), ScaleBySignEmaState(count, mean, rule)

    tx = checked(rule, ScaleBySignEmaState, init, update, takes_extra=True)
    return optax.with_extra_args_support(tx)


def sign_ema(
    learning_rate: ScalarOrSchedule,
    rates: Rates = full_alignment,
    *,
    b1: Scalar = 0.9,
    placement: Placement | str = "last",
    moment_dtype: MomentDtype | None = None,
    weight_decay: Scalar | None = None,
    decay_mode: DecayMode | None = None,
    weight_decay_schedule: optax.Schedule | None = None,
    role_multipliers: Mapping[str, Scalar] | None = None,
    budget: Budget | None = None,
    unannotated: Unannotated = "error",
) -> optax.GradientTransformationExtraArgs:
    r"""Descent along a mean and a sign, in the order that is asked for, with per-layer rates.

    $$w \leftarrow w - \eta_t\, \gamma_\text{role}\, r^{-c}\, u$$

    with $u$ from [`scalex_eqx.optim.scale_by_sign_ema`][] and $c$ as for Adam.

    **Arguments:**

    - `learning_rate`, `rates`, `role_multipliers`, `budget`, `unannotated`: as for
        [`scalex_eqx.adam`][]. With `placement="example"` the budget's rule is
        `scalex_eqx.theory.micro_adam`, as the mean of the examples' signs doesn't depend on the
        batch size.
    - `b1`, `placement`, `moment_dtype`: as for [`scalex_eqx.optim.scale_by_sign_ema`][].
    - `weight_decay`, `decay_mode`, `weight_decay_schedule`: as for [`scalex_eqx.adamw`][]; `None`
        for no decay.

    **Returns:** an `optax.GradientTransformationExtraArgs` over trees of weights.
    """
    return descend(
        scale_by_sign_ema(
            budget_beta(budget, "b1", b1), placement=placement, moment_dtype=moment_dtype
        ),
        family="adam",
        learning_rate=learning_rate,
        rates=rates,
        role_multipliers=role_multipliers,
        weight_decay=weight_decay,
        decay_mode=decay_mode,
        weight_decay_schedule=weight_decay_schedule,
        budget=budget,
        unannotated=unannotated,
    )
