import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from .._spec import WeightSpec
from .._weight import require_complete
from ..theory import full_alignment
from ._decay import DecayMode, add_weight_decay
from ._rates import (
    Rates,
    Scalar,
    ScalarOrSchedule,
    as_dtype_of,
    check_number,
    is_python_number,
    scale_by_learning_rate,
    scale_by_width,
)
from ._tree import map_values

EpsScaling = Literal["gradient", "constant"]


class ScaleByAdamState(NamedTuple):
    """The step count, and the first and second moments of the gradient."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: PyTree
    nu: PyTree


def scale_by_adam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-12,
    *,
    eps_scaling: EpsScaling = "gradient",
) -> optax.GradientTransformation:
    r"""Adam's update, with an epsilon of its own for each weight.

    $$m \leftarrow \beta_1 m + (1 - \beta_1) g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2,
    \qquad u = \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon\, r^{-g}}$$

    The exponent in epsilon is that of the weight's gradient at initialisation, so that epsilon
    and gradient shrink together as the width grows. $0/0$ counts as 0, so $\epsilon = 0$ is
    allowed: the row of an embedding whose token has not been seen yet stays where it is.

    **Arguments:**

    - `b1`, `b2`: the decay rates.
    - `eps`: $\epsilon$ at the base width; a float or a traced scalar.
    - `eps_scaling`: `"gradient"` for the factor $r^{-g}$, `"constant"` for none.

    **Returns:** an `optax.GradientTransformation` over trees of weights. The moments are kept in
    the weights' dtype or float32, whichever is wider; the updates have the gradients' dtype. A
    gradient that is not finite gives NaN.

    ??? cite "Source"

        Kingma and Ba, *Adam* (2015), [arXiv:1412.6980](https://arxiv.org/abs/1412.6980); the
        per-layer epsilon is that of Everett et al. (2024), section 4.3,
        [arXiv:2407.05872](https://arxiv.org/abs/2407.05872).
    """
    if eps_scaling not in ("gradient", "constant"):
        raise ValueError(f"eps_scaling is {eps_scaling!r}; expected 'gradient' or 'constant'")
    check_number("b1", b1, below=1.0)
    check_number("b2", b2, below=1.0)
    check_number("eps", eps)

    def init(params: optax.Params) -> ScaleByAdamState:
        require_complete(params)

        def zeros(_, w):
            # promote_types refuses mixed dtypes where promotion is strict.
            narrow = jnp.finfo(w.dtype).bits < 32
            return jnp.zeros_like(w, dtype=jnp.float32 if narrow else w.dtype)

        moments = (map_values(zeros, params) for _ in range(2))
        return ScaleByAdamState(jnp.zeros((), jnp.int32), *moments)

    def weight_eps(spec: WeightSpec) -> Scalar:
        return eps * spec.scale(spec.gradient_exponent) if eps_scaling == "gradient" else eps

    def update(updates, state, params=None):
        del params
        require_complete(updates)
        count = jnp.asarray(optax.safe_increment(state.count))
        mu = map_values(lambda _, g, m: _ema(b1, m, g.astype(m.dtype)), updates, state.mu)
        nu = map_values(
            lambda _, g, v: _ema(b2, v, jnp.square(g.astype(v.dtype))), updates, state.nu
        )
        mass1, mass2 = _mass(b1, count), _mass(b2, count)
        new_updates = map_values(
            lambda spec, g, m, v: _ratio(
                m / mass1.astype(m.dtype), v / mass2.astype(v.dtype), weight_eps(spec)
            ).astype(g.dtype),
            updates,
            mu,
            nu,
        )
        return new_updates, ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def _ema(
    decay: Scalar, mean: Float[Array, "*shape"], x: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    decay = as_dtype_of(mean, decay)
    return decay * mean + (1 - decay) * x


def _mass(decay: Scalar, count: Int[Array, ""]) -> Float[Array, ""]:
    """$1 - \\beta^t$, the weight of all gradients so far in a moment that started at zero.

    Written as -expm1(t log beta): subtracting beta^t from 1 in float32 loses as many digits as
    1 - beta has leading zeros.
    """
    log_decay = jnp.log(decay) if isinstance(decay, jax.Array) else _log(float(decay))
    return -jnp.expm1(log_decay * count.astype(jnp.result_type(float)))


def _log(decay: float) -> float:
    return math.log(decay) if decay > 0 else -math.inf


def _ratio(
    m: Float[Array, "*shape"], v: Float[Array, "*shape"], eps: Scalar
) -> Float[Array, "*shape"]:
    eps = as_dtype_of(m, eps)
    ratio = m / (jnp.sqrt(v) + eps)
    if is_python_number(eps) and eps >= jnp.finfo(m.dtype).tiny:
        return ratio
    # The denominator may be zero. It is NaN only where m is, so no NaN is hidden.
    return jnp.where(m == 0, m, ratio)


def adam(
    learning_rate: ScalarOrSchedule,
    rates: Rates = full_alignment,
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-12,
    eps_scaling: EpsScaling = "gradient",
    role_multipliers: Mapping[str, Scalar] | None = None,
) -> optax.GradientTransformation:
    r"""Adam with per-layer learning rates and per-layer epsilon.

    $$w \leftarrow w - \eta_t\, \gamma_\text{role}\, r^{-c}\, u$$

    with $u$ from [`scalex_eqx.scale_by_adam`][] and $c$ from `rates`.

    **Arguments:**

    - `learning_rate`: $\eta$ at the base width: a float, a traced scalar or a schedule.
    - `rates`: `full_alignment`, `no_alignment`, another `Alignment`, `global_rate`, or a mapping
        from role to exponent; see [`scalex_eqx.scale_by_width`][].
    - `b1`, `b2`: the decay rates of the moments.
    - `eps`, `eps_scaling`: epsilon at the base width and how it scales.
    - `role_multipliers`: the constants $\gamma$ by role.

    **Returns:** an `optax.GradientTransformation` over trees of weights.
    """
    return optax.chain(
        scale_by_adam(b1, b2, eps, eps_scaling=eps_scaling),
        scale_by_width("adam", rates, role_multipliers=role_multipliers),
        scale_by_learning_rate(learning_rate),
    )


def adamw(
    learning_rate: ScalarOrSchedule,
    weight_decay: Scalar,
    rates: Rates = full_alignment,
    *,
    decay_mode: DecayMode = "independent",
    weight_decay_schedule: optax.Schedule | None = None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-12,
    eps_scaling: EpsScaling = "gradient",
    role_multipliers: Mapping[str, Scalar] | None = None,
) -> optax.GradientTransformation:
    r"""Adam with weight decay $\lambda$ on every matrix, embedding and readout included.

    | `decay_mode` | step |
    |---|---|
    | `"independent"` | $w \leftarrow w - \eta_t \gamma r^{-c} u - s_t \lambda w$ |
    | `"coupled"` | $w \leftarrow w - \eta_t \gamma r^{-c} (u + \lambda w)$ |

    Independent decay depends neither on the learning rate nor on the width; $s_t$ is
    `weight_decay_schedule`. Coupled decay is what `optax.adamw` does: it fades on the weights
    whose learning rate falls with the width. Biases and gains don't decay.

    **Arguments:**

    - `learning_rate`, `rates`, `b1`, `b2`, `eps`, `eps_scaling`, `role_multipliers`: as for
        [`scalex_eqx.adam`][].
    - `weight_decay`: $\lambda$.
    - `decay_mode`: `"independent"` or `"coupled"`.
    - `weight_decay_schedule`: $s_t$, a function of the step with a peak of 1. It must be given
        for independent decay when `learning_rate` is a schedule, because whether the decay should
        follow that is for you to say; `optax.constant_schedule(1.0)` if not.

    **Returns:** an `optax.GradientTransformation` over trees of weights.
    """
    check_number("weight_decay", weight_decay)
    adam_update = scale_by_adam(b1, b2, eps, eps_scaling=eps_scaling)
    step = (
        scale_by_width("adam", rates, role_multipliers=role_multipliers),
        scale_by_learning_rate(learning_rate),
    )
    if decay_mode == "coupled":
        if weight_decay_schedule is not None:
            raise ValueError(
                "weight_decay_schedule is for independent decay; coupled decay follows the "
                "learning rate. Leave it out, or use decay_mode='independent'"
            )
        return optax.chain(adam_update, add_weight_decay(weight_decay), *step)
    if decay_mode != "independent":
        raise ValueError(f"decay_mode is {decay_mode!r}; expected 'independent' or 'coupled'")
    if callable(learning_rate) and weight_decay_schedule is None:
        raise ValueError(
            "learning_rate is a schedule, so weight_decay_schedule must say how independent "
            "decay goes with it: pass the schedule divided by its peak, or "
            "optax.constant_schedule(1.0) to keep the decay constant"
        )
    return optax.chain(adam_update, *step, add_weight_decay(-weight_decay, weight_decay_schedule))
