import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from .._spec import WeightSpec
from ..ops._wide import wide_dtype
from ._budget import Eps
from ._numbers import Scalar, check_number, known_number
from ._rule import Constant, Degree, Rule

EpsScaling = Literal["gradient", "constant"]


def adam_rule(
    name: str,
    b1: Scalar,
    b2: Scalar,
    eps: Eps,
    eps_scaling: EpsScaling,
    settings: tuple[tuple[str, Any], ...] = (),
    fields: tuple[tuple[str, Degree], ...] = (("mu", Degree(update=1)), ("nu", Degree(update=2))),
) -> Rule:
    """What a rule with Adam's moments and epsilon is."""
    check_eps_scaling(eps_scaling)
    check_number("b1", b1, below=1.0)
    check_number("b2", b2, below=1.0)
    if not callable(eps):
        check_number("eps", eps)
    scaling = (1, 0) if eps_scaling == "gradient" else (0, 0)
    return Rule(
        name,
        fields=fields,
        output=Degree(),
        constants=(
            Constant(
                "eps",
                eps if callable(eps) else known_number(eps),
                Degree(update=1),
                scaling,
                functools.partial(_known_least_eps, b2),
            ),
        ),
        settings=(("b1", known_number(b1)), ("b2", known_number(b2)), *settings),
    )


def effective_eps(
    spec: WeightSpec, eps: Eps, eps_scaling: EpsScaling, b2: Scalar, dtype: Any
) -> Scalar:
    r"""The epsilon that Adam adds for a weight whose second moment has dtype `dtype`.

    The second moment is zero where a gradient's first contribution to it,
    $(1 - \beta_2) g^2$, is below the smallest normal number. The update is then the gradient
    divided by epsilon alone. It stays at or below one with

    $$\epsilon \ge \sqrt{\text{tiny} / (1 - \beta_2)}$$

    so the larger of that and of the epsilon asked for is used.
    """
    wanted = eps(spec) if callable(eps) else eps
    if eps_scaling == "gradient":
        wanted = wanted * spec.scale(spec.gradient_power)
    if isinstance(b2, jax.Array) or isinstance(wanted, jax.Array):
        least = jnp.sqrt(float(jnp.finfo(dtype).tiny) / (1 - jnp.asarray(b2, dtype)))
        return jnp.maximum(jnp.asarray(wanted, dtype), least)
    return max(float(wanted), _least_eps(b2, dtype))


def _least_eps(b2: float | np.floating, dtype: Any) -> float:
    return math.sqrt(float(jnp.finfo(dtype).tiny) / (1 - float(b2)))


def _known_least_eps(b2: Scalar, dtype: Any) -> float:
    """The same for a weight of dtype `dtype`; 0 if it isn't known before the step."""
    return 0.0 if isinstance(b2, jax.Array) else _least_eps(b2, wide_dtype(dtype))


def check_eps_scaling(eps_scaling: str, name: str = "eps_scaling") -> None:
    if eps_scaling not in ("gradient", "constant"):
        raise ValueError(f"{name} is {eps_scaling!r}; expected 'gradient' or 'constant'")
