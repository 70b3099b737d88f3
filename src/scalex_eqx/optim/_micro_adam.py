from collections.abc import Mapping
from typing import Literal, get_args

import jax.numpy as jnp
import optax

from ..ops._wide import wide
from ..theory import Budget, full_alignment
from ._adam import by_moments
from ._adam_rule import EpsScaling, adam_rule
from ._budget import Eps, budget_betas, budget_eps
from ._decay import DecayMode
from ._descent import descend
from ._numbers import Scalar, ScalarOrSchedule
from ._rates import Rates
from ._rule import BY_EXAMPLES
from ._statistics import STATISTICS, examples, statistic
from ._tree import map_values
from ._unannotated import Unannotated

SecondMoment = Literal["square", "variance", "mean"]

_LEAST_SHARE = 0.01
"""Of $Q$ or $G^2$, what an estimate from both is at least."""


def scale_by_micro_adam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Eps = 1e-12,
    *,
    second: SecondMoment = "square",
    eps_scaling: EpsScaling = "gradient",
    moment_dtype: Literal["float32", "bfloat16"] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam's update with a second moment of the examples' gradients, not of their mean.

    $$m \leftarrow \beta_1 m + (1 - \beta_1) G, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) x,
    \qquad u = \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon\, r^{-g}}$$

    With the gradients $g_i$ of a batch's $B$ examples, of mean $\mu$ and variance $\sigma^2$ in an
    entry, $G = \frac1B \sum_i g_i$ and $Q = \frac1B \sum_i g_i^2$:

    | `second` | $x$ | its expectation |
    |---|---|---|
    | Adam's | $G^2$ | $\mu^2 + \sigma^2 / B$ |
    | `"square"`, MicroAdam | $Q$ | $\mu^2 + \sigma^2$ |
    | `"variance"` | $\frac{B}{B - 1} (Q - G^2)$ | $\sigma^2$ |
    | `"mean"` | $G^2 - \frac{1}{B - 1} (Q - G^2)$ | $\mu^2$ |

    What MicroAdam divides by doesn't depend on the batch size, and so its best learning rate grows
    in proportion to it, not to its root; see `scalex_eqx.theory.micro_adam`.

    By chance the last two estimates can be near zero, and the last below it, and a first step would
    then be without bound. They are kept at $Q / 100$ and $G^2 / 100$ or above, so that no first
    step is larger than ten. Of Gaussian noise alone in large batches, that makes the expectation of
    the last $0.49\, \sigma^2 / B$ in place of 0: half of Adam's.

    **Arguments:**

    - `b1`, `b2`, `eps`, `eps_scaling`, `moment_dtype`: as for [`scalex_eqx.scale_by_adam`][].
    - `second`: $x$, by the table. `"variance"` and `"mean"` need two examples or more.

    **Returns:** an `optax.GradientTransformationExtraArgs`, whose `update` needs
    `statistics=`, a [`scalex_eqx.GradientStatistics`][] with `square`. Under `optax.MultiSteps`,
    which averages gradients and not statistics, hand it those of all of the batch: let
    [`scalex_eqx.gradient_statistics`][] take the batch apart, by its `memory`.

    ??? cite "Source"

        Roulet and Agarwala (2025), [arXiv:2510.00236](https://arxiv.org/abs/2510.00236), name the
        rule and its variants dominated by variance and by mean. Their exact formulas were not
        available: these are derived from the expectations in the table. The MicroAdam of
        [arXiv:2405.15593](https://arxiv.org/abs/2405.15593), which compresses Adam's state, is
        another rule.
    """
    if second not in get_args(SecondMoment):
        raise ValueError(f"second is {second!r}; expected 'square', 'variance' or 'mean'")
    by_examples = () if second == "mean" else BY_EXAMPLES
    settings = (("second", second), (STATISTICS, "square"), *by_examples)
    rule = adam_rule("scale_by_micro_adam", b1, b2, eps, eps_scaling, settings)

    def of_examples(updates, statistics=None, **_):
        square = statistic(rule, statistics, updates)
        if second == "square":
            return square
        count = examples(rule, statistics, least=2)

        def estimate(_, g, q):
            g = wide(g)
            own, of_mean = count.astype(g.dtype), jnp.square(g)
            q = q.astype(g.dtype)
            # Of sums that were rounded the difference may be below zero.
            variance = jnp.maximum(q - of_mean, 0) * (own / (own - 1))
            if second == "variance":
                return jnp.maximum(variance, _LEAST_SHARE * q)
            return jnp.maximum(of_mean - variance / own, _LEAST_SHARE * of_mean)

        return map_values(estimate, updates, square)

    tx = by_moments(rule, b1, b2, eps, eps_scaling, moment_dtype, of_examples)
    return optax.with_extra_args_support(tx)


def micro_adam(
    learning_rate: ScalarOrSchedule,
    rates: Rates = full_alignment,
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Eps = 1e-12,
    second: SecondMoment = "square",
    eps_scaling: EpsScaling = "gradient",
    moment_dtype: Literal["float32", "bfloat16"] | None = None,
    weight_decay: Scalar | None = None,
    decay_mode: DecayMode | None = None,
    weight_decay_schedule: optax.Schedule | None = None,
    role_multipliers: Mapping[str, Scalar] | None = None,
    budget: Budget | None = None,
    unannotated: Unannotated = "error",
) -> optax.GradientTransformationExtraArgs:
    r"""Adam that divides by the examples' gradients, with per-layer learning rates.

    $$w \leftarrow w - \eta_t\, \gamma_\text{role}\, r^{-c}\, u$$

    with $u$ from [`scalex_eqx.optim.scale_by_micro_adam`][] and $c$ as for Adam: the size of the
    update doesn't follow the gradient's.

    ```python
    found = sx.gradient_statistics(loss, model, batch, statistics=("square",))
    updates, state = tx.update(found.gradient, state, model, statistics=found)
    ```

    **Arguments:**

    - `learning_rate`, `rates`, `role_multipliers`, `budget`, `unannotated`: as for
        [`scalex_eqx.adam`][]. The budget's rule is `scalex_eqx.theory.micro_adam`, unless `second`
        is `"mean"`.
    - `b1`, `b2`, `eps`, `second`, `eps_scaling`, `moment_dtype`: as for
        [`scalex_eqx.optim.scale_by_micro_adam`][].
    - `weight_decay`, `decay_mode`, `weight_decay_schedule`: as for [`scalex_eqx.adamw`][]; `None`
        for no decay.

    **Returns:** an `optax.GradientTransformationExtraArgs` over trees of weights, whose `update`
    needs `statistics=`.
    """
    b1, b2 = budget_betas(budget, b1, b2)
    eps = budget_eps(budget, eps)
    return descend(
        scale_by_micro_adam(
            b1, b2, eps, second=second, eps_scaling=eps_scaling, moment_dtype=moment_dtype
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
