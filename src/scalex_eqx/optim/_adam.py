from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Inexact, Int, PyTree

from ..ops._wide import wide
from ..theory import Budget, full_alignment
from ._adam_bytes import adam_in_bytes
from ._adam_rule import EpsScaling, adam_rule, effective_eps
from ._budget import Eps, budget_betas, budget_eps
from ._checked import checked
from ._decay import DecayMode
from ._descent import decay_mode_missing, descend
from ._moments import ema, mass, moved, sizes, zeros_of
from ._numbers import (
    Scalar,
    ScalarOrSchedule,
    as_dtype_of,
    check_function,
)
from ._rates import Rates
from ._rule import Rule
from ._tree import init_values, map_values, move_values
from ._unannotated import Unannotated

AdamMoments = Literal["float32", "bfloat16", "int8"]


class ScaleByAdamState(NamedTuple):
    """The step count, the first and second moments of the gradient, and what the rule is."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: PyTree
    nu: PyTree
    rule: PyTree


def scale_by_adam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Eps = 1e-12,
    *,
    eps_scaling: EpsScaling = "gradient",
    moment_dtype: AdamMoments | None = None,
) -> optax.GradientTransformation:
    r"""Adam's update, with an epsilon of its own for each weight.

    $$m \leftarrow \beta_1 m + (1 - \beta_1) g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2,
    \qquad u = \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon\, r^{-g}}$$

    The exponent in epsilon is that of the weight's gradient at initialisation, so that epsilon
    and gradient shrink together as the width grows.

    A weight's epsilon is never less than $\sqrt{\text{tiny} / (1 - \beta_2)}$, $\text{tiny}$ the
    smallest normal number of the moments' dtype: 3.4e-18 in float32 with the default $\beta_2$.
    The square of a smaller gradient underflows, $v$ is 0, and a smaller epsilon would make the
    update larger than one, without limit. Gradients above 1e-10 don't notice it. So
    $\epsilon = 0$ is allowed and means the least that is safe: the row of an embedding whose
    token has not been seen yet stays where it is.

    Of complex weights $g^2$ is $|g|^2$ and $v$ real, as in Optax. As there, JAX's gradient of a
    real loss has to be conjugated to point uphill.

    **Arguments:**

    - `b1`, `b2`: the decay rates.
    - `eps`: $\epsilon$ at the base width; a float, a traced scalar, or a function from a weight's
        `WeightSpec` to a float.
    - `eps_scaling`: `"gradient"` for the factor $r^{-g}$, `"constant"` for none.
    - `moment_dtype`: what the moments are kept in: `"float32"`, `"bfloat16"`, `"int8"` for a byte
        each (see [`scalex_eqx.optim.ScaleByAdamBytesState`][]), or `None` for the weights' dtype or
        float32, whichever is wider. They are computed in float32 or wider. float16 is refused: the
        square of a gradient below 1e-2 would underflow in it.

    **Returns:** an `optax.GradientTransformation` over trees of weights. The updates have the
    gradients' dtype. A gradient that is not finite gives NaN.

    ??? cite "Source"

        Kingma and Ba, *Adam* (2015), [arXiv:1412.6980](https://arxiv.org/abs/1412.6980); the
        per-layer epsilon is that of Everett et al. (2024), section 4.3,
        [arXiv:2407.05872](https://arxiv.org/abs/2407.05872).
    """
    if moment_dtype == "int8":
        return adam_in_bytes(b1, b2, eps, eps_scaling)
    rule = adam_rule("scale_by_adam", b1, b2, eps, eps_scaling)
    return by_moments(rule, b1, b2, eps, eps_scaling, moment_dtype)


def by_moments(
    rule: Rule,
    b1: Scalar,
    b2: Scalar,
    eps: Eps,
    eps_scaling: EpsScaling,
    moment_dtype: Any,
    second: Callable[..., PyTree] | None = None,
) -> optax.GradientTransformation:
    """Adam's update with another second moment.

    **Arguments:**

    - `rule`: what it is.
    - `b1`, `b2`, `eps`, `eps_scaling`, `moment_dtype`: as of `scale_by_adam`.
    - `second`: `second(updates, **extra)`, a tree like the gradients whose mean over the steps
        stands under the root; their squares if it is `None`. `update` hands on its further
        arguments.
    """
    zeros = _zeros(moment_dtype)

    def init(params: optax.Params) -> ScaleByAdamState:
        mu, nu = init_values(zeros, params), init_values(sizes(zeros), params)
        return ScaleByAdamState(jnp.zeros((), jnp.int32), mu, nu, rule)

    def ratio(spec, g, m, v):
        epsilon = effective_eps(spec, eps, eps_scaling, b2, v.dtype)
        size = jnp.sqrt(v) + as_dtype_of(v, epsilon)
        return (m / size.astype(m.dtype)).astype(g.dtype)

    def of_square(v, g):
        return ema(b2, v, jnp.square(g))

    def of_given(v, x):
        return ema(b2, v, x)

    def update(updates, state, params=None, **extra):
        del params
        count = jnp.asarray(optax.safe_increment(state.count))
        mass1, mass2 = mass(b1, count), mass(b2, count)
        given = () if second is None else (second(updates, **extra),)

        def move(_, m, v, g, *x):
            v = moved(of_given, v, *x) if x else moved(of_square, v, g)
            return moved(lambda m, g: ema(b1, m, g), m, g), v

        # By itself, so that `skip_nonfinite` can keep the old moments in front of their use.
        mu, nu, *_ = move_values(move, state.mu, state.nu, updates, *given)
        new_updates = map_values(
            lambda spec, g, m, v: ratio(spec, g, _over(m, mass1), _over(v, mass2)), updates, mu, nu
        )
        return new_updates, ScaleByAdamState(count, mu, nu, rule)

    return checked(
        rule,
        ScaleByAdamState,
        init,
        update,
        takes_complex=second is None,
        takes_extra=second is not None,
    )


def _over(moment: Inexact[Array, "*shape"], mass: Float[Array, ""]) -> Inexact[Array, "*shape"]:
    x = wide(moment)
    return x / mass.astype(x.dtype)


def _zeros(moment_dtype: Any) -> Callable[..., Array]:
    if moment_dtype == "float16":
        raise ValueError(
            "moment_dtype is 'float16', in which the square of a gradient below 1e-2 underflows; "
            "use 'bfloat16', or scale_by_adam_atan2, which keeps no squares"
        )
    return zeros_of(moment_dtype)


def adam(
    learning_rate: ScalarOrSchedule,
    rates: Rates = full_alignment,
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Eps = 1e-12,
    eps_scaling: EpsScaling = "gradient",
    moment_dtype: AdamMoments | None = None,
    role_multipliers: Mapping[str, Scalar] | None = None,
    budget: Budget | None = None,
    unannotated: Unannotated = "error",
) -> optax.GradientTransformation:
    r"""Adam with per-layer learning rates and per-layer epsilon.

    $$w \leftarrow w - \eta_t\, \gamma_\text{role}\, r^{-c}\, u$$

    with $u$ from [`scalex_eqx.scale_by_adam`][] and $c$ from `rates`.

    **Arguments:**

    - `learning_rate`: $\eta$ at the base width: a float, a traced scalar or a schedule.
    - `rates`: `full_alignment`, `no_alignment`, another `Alignment`, `global_rate`, or a mapping
        from role or path to exponent; see [`scalex_eqx.scale_by_width`][].
    - `b1`, `b2`: the decay rates of the moments.
    - `eps`, `eps_scaling`, `moment_dtype`: epsilon, how it scales, and what the moments are kept
        in; see [`scalex_eqx.scale_by_adam`][].
    - `role_multipliers`: the constants $\gamma$ by role or path; see
        [`scalex_eqx.scale_by_width`][].
    - `budget`: a [`scalex_eqx.Budget`][]; learning rate, betas, epsilon and weight decay are then
        those at its base.
    - `unannotated`: what to do with arrays that no scaling law is known for. `"error"` refuses
        them and names their paths. `"constant"` takes each as a weight of role `constant`: nothing
        of it grows, so it is trained at the base learning rate at every width, and not decayed.

    **Returns:** an `optax.GradientTransformation` over trees of weights.
    """
    b1, b2 = budget_betas(budget, b1, b2)
    eps = budget_eps(budget, eps)
    return descend(
        scale_by_adam(b1, b2, eps, eps_scaling=eps_scaling, moment_dtype=moment_dtype),
        family="adam",
        learning_rate=learning_rate,
        rates=rates,
        role_multipliers=role_multipliers,
        budget=budget,
        unannotated=unannotated,
    )


def adamw(
    learning_rate: ScalarOrSchedule,
    weight_decay: Scalar,
    rates: Rates = full_alignment,
    *,
    decay_mode: DecayMode | None = None,
    weight_decay_schedule: optax.Schedule | None = None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Eps = 1e-12,
    eps_scaling: EpsScaling = "gradient",
    moment_dtype: AdamMoments | None = None,
    role_multipliers: Mapping[str, Scalar] | None = None,
    budget: Budget | None = None,
    unannotated: Unannotated = "error",
) -> optax.GradientTransformation:
    r"""Adam with weight decay $\lambda$ on every matrix, embedding and readout included.

    | `decay_mode` | step |
    |---|---|
    | `"independent"` | $w \leftarrow w - \eta_t \gamma r^{-c} u - s_t \lambda w$ |
    | `"coupled"` | $w \leftarrow w - \eta_t \gamma r^{-c} (u + \lambda w)$ |

    Which of them is meant must be said. Coupled decay is what `optax.adamw` does: it fades on the
    weights whose learning rate falls with the width. Independent decay depends neither on the
    learning rate nor on the width; $s_t$ is `weight_decay_schedule`. At a learning rate of 3e-3
    the same $\lambda$ takes away 333 times as much as under coupled decay. Biases and gains don't
    decay.

    **Arguments:**

    - `learning_rate`, `rates`, `b1`, `b2`, `eps`, `eps_scaling`, `moment_dtype`,
        `role_multipliers`, `budget`, `unannotated`: as for [`scalex_eqx.adam`][].
    - `weight_decay`: $\lambda$.
    - `decay_mode`: `"independent"` or `"coupled"`; it has no default.
    - `weight_decay_schedule`: $s_t$, a function of the step with a peak of 1. It must be given
        for independent decay when `learning_rate` is a schedule or an array, which may change,
        because whether the decay should follow that is for you to say;
        `optax.constant_schedule(1.0)` if not. Under `optax.inject_hyperparams` name it in
        `static_args`.

    **Returns:** an `optax.GradientTransformation` over trees of weights.

    **Raises:** `ValueError` without a `decay_mode`; it shows both equations.
    """
    check_function("weight_decay_schedule", weight_decay_schedule)
    if decay_mode is None:
        raise ValueError(decay_mode_missing(weight_decay, learning_rate))
    b1, b2 = budget_betas(budget, b1, b2)
    eps = budget_eps(budget, eps)
    return descend(
        scale_by_adam(b1, b2, eps, eps_scaling=eps_scaling, moment_dtype=moment_dtype),
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
