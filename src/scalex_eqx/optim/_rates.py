import functools
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from .._spec import WeightSpec
from .._weight import require_complete
from ..theory import (
    Alignment,
    Parameterization,
    Role,
    UpdateFamily,
    as_family,
    learning_rate_exponents,
)
from ..theory._rational import exact
from ._tree import map_values

Scalar = float | int | np.floating | Float[Array, ""]
ScalarOrSchedule = Scalar | optax.Schedule


class GlobalRate:
    """One learning rate for all weights: what training without a prescription does."""

    def __repr__(self) -> str:
        return "global_rate"


global_rate = GlobalRate()

Rates = Alignment | GlobalRate | Mapping[Role, Fraction] | Mapping[str, Any]


def scale_by_width(
    family: str | UpdateFamily,
    rates: Rates,
    *,
    role_multipliers: Mapping[str, Scalar] | None = None,
) -> optax.GradientTransformation:
    r"""Multiplies each weight's update by its per-layer learning rate's factor.

    $$u \leftarrow \gamma_\text{role}\, r^{-c}\, u$$

    Put it behind any update rule of the family, and in front of the learning rate:

    ```python
    tx = optax.chain(
        optax.scale_by_adam(),
        sx.scale_by_width("adam", sx.full_alignment),
        optax.scale_by_learning_rate(3e-3),
    )
    ```

    **Arguments:**

    - `family`: how the size of the rule's updates follows from gradient and weight: `"sgd"`,
        `"adam"`, `"adafactor"`, or a `theory.UpdateFamily`.
    - `rates`: where the exponents $c$ come from. An `Alignment`: the largest stable learning
        rates under that assumption, from [`scalex_eqx.theory.learning_rate_exponents`][].
        `global_rate`: all zero. A mapping from role to exponent: your own, and every role of the
        model must be in it.
    - `role_multipliers`: the constants $\gamma$ by role, 1 where left out; floats or traced
        scalars.

    **Returns:** a stateless `optax.GradientTransformation` over trees of weights.

    **Raises:** `ValueError` for an unknown family, role or kind of rates, and, from `init` and
    `update`, if the tree has arrays that no scaling law is known for.
    """
    family = as_family(family)
    rates = _checked_rates(rates)
    multipliers = _checked_multipliers(role_multipliers or {})

    def factor(spec: WeightSpec) -> Scalar:
        assert spec.role is not None and spec.parameterization is not None
        exponent = _exponents(spec.parameterization, family, rates, spec.role)
        width_factor = spec.scale(exponent)
        if spec.role not in multipliers:
            return width_factor
        return multipliers[spec.role] * width_factor

    def init(params: optax.Params) -> optax.OptState:
        require_complete(params)
        return optax.EmptyState()

    def update(updates, state, params=None):
        del params
        require_complete(updates)
        return map_values(lambda spec, u: times(factor(spec), u), updates), state

    return optax.GradientTransformation(init, update)


def scale_by_learning_rate(
    learning_rate: ScalarOrSchedule,
) -> optax.GradientTransformation:
    r"""$u \leftarrow -\eta_t\, u$ for a float, a traced scalar or a schedule $\eta$."""
    if callable(learning_rate):
        return optax.scale_by_schedule(lambda count: -jnp.asarray(learning_rate(count)))
    check_number("learning_rate", learning_rate)
    return optax.stateless(
        lambda updates, _: jax.tree.map(lambda u: times(-learning_rate, u), updates)
    )


def times(factor: Scalar, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`factor * x` in the dtype of `x`, without an operation where the factor is exactly 1."""
    return x if is_python_number(factor) and factor == 1.0 else as_dtype_of(x, factor) * x


def is_python_number(x: Any) -> bool:
    """Whether `x` is a plain number, which takes the dtype of what it is multiplied with.

    NumPy's scalars don't, although some of them are instances of `float`.
    """
    return type(x) in (int, float)


def as_dtype_of(x: Float[Array, "*shape"], scalar: Scalar) -> Any:
    """`scalar` so that arithmetic with it stays in the dtype of `x`."""
    return scalar if is_python_number(scalar) else jnp.asarray(scalar, x.dtype)


def check_number(name: str, value: Any, *, below: float = math.inf) -> None:
    """Refuses what is no number, and a known one outside [0, below). Traced ones pass."""
    if isinstance(value, jax.Array):
        return
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating):
        raise ValueError(f"{name} is {value!r}; expected a number or a scalar array")
    if not 0 <= float(value) < below:
        limits = "at least 0" if below == math.inf else f"at least 0 and less than {below:g}"
        raise ValueError(f"{name} is {value!r}; expected a finite number, {limits}")


def _exponents(
    parameterization: Parameterization, family: UpdateFamily, rates: Any, role: Role
) -> Fraction:
    if isinstance(rates, GlobalRate):
        return Fraction(0)
    if isinstance(rates, Alignment):
        return _prescription(parameterization, family, rates)[role]
    if role not in rates:
        raise ValueError(
            f"rates has no exponent for the role {role!s}, which the model has; it names "
            f"{', '.join(rates)}. Add it"
        )
    return rates[role]


_prescription = functools.lru_cache(learning_rate_exponents)


def _checked_rates(rates: Any) -> Any:
    if isinstance(rates, Alignment | GlobalRate):
        return rates
    if isinstance(rates, Mapping):
        return {_role(key, "rates"): exact(c, f"rates[{key!r}]") for key, c in rates.items()}
    raise ValueError(
        f"rates is {rates!r}; expected an Alignment (full_alignment, no_alignment), global_rate, "
        "or a mapping from role to exponent"
    )


def _checked_multipliers(multipliers: Mapping[str, Scalar]) -> dict[Role, Scalar]:
    for key, gamma in multipliers.items():
        check_number(f"role_multipliers[{key!r}]", gamma)
    return {_role(key, "role_multipliers"): gamma for key, gamma in multipliers.items()}


def _role(key: str, name: str) -> Role:
    if key not in list(Role):
        raise ValueError(f"{name} names the role {key!r}; expected one of {', '.join(Role)}")
    return Role(key)
