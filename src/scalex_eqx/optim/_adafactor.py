import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from .._spec import WeightSpec
from ..ops import moving_root_mean_square
from ..ops._wide import wide
from ..theory import no_alignment
from ._adam_rule import EpsScaling, check_eps_scaling
from ._checked import checked
from ._decay import DecayMode
from ._descent import descend, together
from ._moments import wide_zeros
from ._numbers import Scalar, ScalarOrSchedule, as_dtype_of, check_number, known_number
from ._parameter_scaling import FloorScaling, scale_by_parameter_rms
from ._rates import Rates
from ._rule import Constant, Degree, Rule
from ._sizes import kept_root_mean_square, own_axes, root_mean_square, unit_of
from ._tree import init_values, map_values
from ._unannotated import Unannotated


class ScaleByFactoredRmsState(NamedTuple):
    """The step count, root mean squares of the gradient, and what the rule is.

    `row` and `column` have those of a factored weight, with length 1 along the axis that was
    averaged over; `full` has those of the entries of every other weight.
    """

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    row: PyTree
    column: PyTree
    full: PyTree
    rule: PyTree


def scale_by_factored_rms(
    *,
    decay_exponent: Scalar = 0.8,
    eps: Scalar = 1e-30,
    eps_scaling: EpsScaling = "gradient",
    min_factored_size: int = 128,
    clipping_threshold: Scalar | None = None,
) -> optax.GradientTransformation:
    r"""Divides the gradient by an estimate of its size that has a number a row and a column.

    $$q_{ij} = g_{ij}^2 + \epsilon\, r^{-2g}, \qquad \beta_t = 1 - t^{-0.8}$$

    $$R_i \leftarrow \beta_t R_i + (1 - \beta_t) \operatorname{mean}_j q_{ij}, \qquad
    C_j \leftarrow \beta_t C_j + (1 - \beta_t) \operatorname{mean}_i q_{ij}$$

    $$u_{ij} = g_{ij} \left( \frac{R_i C_j}{\operatorname{mean}_k R_k} \right)^{-1/2}$$

    The rows and columns are the last two axes of a weight that are long enough. Weights that
    are stacked along leading axes have statistics of their own. A weight without two such axes
    keeps one number an entry. What is kept are the *roots* of $R$ and $C$, computed in units of a
    power of two near the weight's largest gradient: the squares can't underflow.

    Where a whole row or column is still without gradient, or is $2^{63}$ times smaller than the
    weight's largest, the update is 0; $\epsilon = 0$ is allowed.

    **Arguments:**

    - `decay_exponent`: 0.8 in the formula; a float or a traced scalar.
    - `eps`: $\epsilon$ at the base width; it is added to the *square* of the gradient.
    - `eps_scaling`: `"gradient"` for the factor $r^{-2g}$, `"constant"` for none, as in Optax.
    - `min_factored_size`: how long an axis must be.
    - `clipping_threshold`: $d$, for an update of $u / \max(1, \operatorname{RMS}(u) / d)$ with
        the root mean square over each weight; a float, a traced scalar, or `None` for $u$.

    **Returns:** an `optax.GradientTransformation` over trees of weights. The statistics are kept
    in the weights' dtype or float32, whichever is wider; the updates have the gradients' dtype.
    A gradient that is not finite gives NaN, where the weight is factored for all of it.

    ??? cite "Source"

        Shazeer and Stern, *Adafactor* (2018), sections 3 and 7,
        [arXiv:1804.04235](https://arxiv.org/abs/1804.04235).
    """
    rule = _rule(decay_exponent, eps, eps_scaling, min_factored_size, clipping_threshold)

    def axes(spec: WeightSpec, x) -> tuple[int, int] | None:
        return factored_axes(spec, x, min_factored_size)

    def zeros(which: int):
        return lambda spec, w: _zeros(spec, w, axes(spec, w))[which]

    def init(params: optax.Params) -> ScaleByFactoredRmsState:
        row, column, full = (init_values(zeros(which), params) for which in range(3))
        return ScaleByFactoredRmsState(jnp.zeros((), jnp.int32), row, column, full, rule)

    def root_eps(spec: WeightSpec, dtype) -> Array:
        root = jnp.sqrt(eps) if isinstance(eps, jax.Array) else math.sqrt(eps)
        scale = spec.scale(spec.gradient_power) if eps_scaling == "gradient" else 1.0
        return jnp.asarray(root * scale, dtype)

    def update(updates, state, params=None):
        del params
        count = jnp.asarray(optax.safe_increment(state.count))
        step = count.astype(jnp.result_type(float)) ** -decay_exponent

        def move(which: int, spec, root, g):
            size = _size(spec, g.astype(root.dtype), axes(spec, g), which)
            size = jnp.hypot(size, root_eps(spec, root.dtype))
            return moving_root_mean_square(root, size, step.astype(root.dtype))

        def moved(which: int, statistic):
            return map_values(functools.partial(move, which), statistic, updates, inline=True)

        row, column, full = moved(0, state.row), moved(1, state.column), moved(2, state.full)
        new_updates = map_values(
            lambda spec, g, r, c, f: _normalised(
                spec, g, r, c, f, axes(spec, g), clipping_threshold
            ),
            updates,
            row,
            column,
            full,
            inline=True,
        )
        return new_updates, ScaleByFactoredRmsState(count, row, column, full, rule)

    return checked(rule, ScaleByFactoredRmsState, init, update)


def _rule(
    decay_exponent: Scalar,
    eps: Scalar,
    eps_scaling: EpsScaling,
    min_factored_size: int,
    clipping_threshold: Scalar | None,
) -> Rule:
    check_eps_scaling(eps_scaling)
    check_number("decay_exponent", decay_exponent)
    check_number("eps", eps)
    _check_size(min_factored_size)
    scaling = (2, 0) if eps_scaling == "gradient" else (0, 0)
    constants = [Constant("eps", known_number(eps), Degree(update=2), scaling)]
    if clipping_threshold is not None:
        check_number("clipping_threshold", clipping_threshold)
        constants.append(Constant("clipping_threshold", known_number(clipping_threshold), Degree()))
    return Rule(
        "scale_by_factored_rms",
        fields=tuple((name, Degree(update=1)) for name in ("row", "column", "full")),
        output=Degree(),
        constants=tuple(constants),
        settings=(
            ("decay_exponent", known_number(decay_exponent)),
            ("min_factored_size", min_factored_size),
        ),
    )


def factored_axes(
    spec: WeightSpec, x: Float[Array, "..."], min_size: int
) -> tuple[int, int] | None:
    """The last two axes of a weight that are long enough, stack axes left out."""
    long = [axis for axis in own_axes(spec, x) if x.shape[axis] >= min_size]
    return (long[-2], long[-1]) if len(long) >= 2 else None


def _zeros(spec: WeightSpec, w: Float[Array, "..."], axes: tuple[int, int] | None) -> Any:
    """What row, column and full statistics of a weight start from, `None` for what it lacks."""
    zeros = wide_zeros(spec, w)
    if axes is None:
        return None, None, zeros
    # A sum, because an axis that is split over devices can't be sliced.
    row, column = (jnp.sum(zeros, axis=axis, keepdims=True) for axis in reversed(axes))
    return row, column, None


def _size(
    spec: WeightSpec, g: Float[Array, "*shape"], axes: tuple[int, int] | None, which: int
) -> Float[Array, "..."]:
    """The root mean square of the gradient along a row or column, or of each entry alone."""
    if axes is None:
        return jnp.abs(g)
    unit = unit_of(g, own_axes(spec, g))
    return kept_root_mean_square(spec, g, (axes[1 - which],), _apart((unit, which))[0])


def _normalised(
    spec: WeightSpec,
    g: Float[Array, "*shape"],
    row: Float[Array, "..."] | None,
    column: Float[Array, "..."] | None,
    full: Float[Array, "*shape"] | None,
    axes: tuple[int, int] | None,
    threshold: Scalar | None,
) -> Float[Array, "*shape"]:
    """The gradient divided by its estimated size and clipped, and 0 where that is 0.

    Of a factored weight the small statistics are inverted, not the large gradient divided. In
    units of the largest gradient neither they nor their inverses leave the dtype's range.
    """
    x, every = wide(g), own_axes(spec, g)
    if row is None or column is None or axes is None:
        assert full is not None
        # Multiplied, so that no NaN is hidden.
        update = jnp.where(full == 0, 0 * x, x / full)
        size = kept_root_mean_square(spec, update, every)
        return (update * _clip(size, threshold)).astype(g.dtype)
    unit = unit_of(x, every)
    overall = root_mean_square(row, axes[:1], unit_of(row, axes[:1]))
    of_row, of_column = _inverse(row / unit), _inverse(column * _inverse(overall))
    other_unit, other_column = _apart((unit, of_column))
    by_row = root_mean_square(x / other_unit * other_column, axes[1:])
    factor = _clip(kept_root_mean_square(spec, by_row * of_row, every), threshold)
    return (x / unit * (of_row * factor) * of_column).astype(g.dtype)


def _apart(x: PyTree) -> PyTree:
    """`x`, such that XLA doesn't see that it is `x`.

    What is computed from the whole gradient and used twice, once in a sum, XLA computes once and
    writes to memory. That takes longer than computing it twice.
    """
    return jax.lax.optimization_barrier(x)


def _clip(size: Float[Array, "..."], threshold: Scalar | None) -> float | Float[Array, "..."]:
    return 1.0 if threshold is None else jnp.minimum(1, as_dtype_of(size, threshold) / size)


def _inverse(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """1 / x, and 0 where x is 0."""
    # The division comes last: XLA would repeat anything cheaper for every entry of the gradient.
    return 1 / jnp.where(x == 0, jnp.inf, x)


def _check_size(min_factored_size: Any) -> None:
    if not isinstance(min_factored_size, int) or min_factored_size < 1:
        raise ValueError(
            f"min_factored_size is {min_factored_size!r}; expected an int of at least 1. It "
            "decides the shapes of the state: under optax.inject_hyperparams name it in static_args"
        )


def bare_adafactor(
    *,
    decay_exponent: Scalar = 0.8,
    eps: Scalar = 1e-30,
    eps_scaling: EpsScaling = "gradient",
    min_factored_size: int = 128,
    clipping_threshold: Scalar | None = 1.0,
    floor: Scalar = 1e-3,
    floor_scaling: FloorScaling = "initial",
) -> optax.GradientTransformation:
    """Adafactor's update without a learning rate."""
    normalise = scale_by_factored_rms(
        decay_exponent=decay_exponent,
        eps=eps,
        eps_scaling=eps_scaling,
        min_factored_size=min_factored_size,
        clipping_threshold=clipping_threshold,
    )
    return together(normalise, scale_by_parameter_rms(floor, floor_scaling=floor_scaling))


def adafactor(
    learning_rate: ScalarOrSchedule,
    rates: Rates = no_alignment,
    *,
    decay_exponent: Scalar = 0.8,
    eps: Scalar = 1e-30,
    eps_scaling: EpsScaling = "gradient",
    min_factored_size: int = 128,
    clipping_threshold: Scalar | None = 1.0,
    floor: Scalar = 1e-3,
    floor_scaling: FloorScaling = "initial",
    weight_decay: Scalar | None = None,
    decay_mode: DecayMode | None = None,
    weight_decay_schedule: optax.Schedule | None = None,
    role_multipliers: Mapping[str, Scalar] | None = None,
    unannotated: Unannotated = "error",
) -> optax.GradientTransformation:
    r"""Adafactor with per-layer learning rates.

    $$w \leftarrow w - \eta_t\, \gamma_\text{role}\, r^{-c}\, \max(\operatorname{RMS}(w),
    \phi\, r^{-b})\, \frac{u}{\max(1, \operatorname{RMS}(u) / d)}$$

    with $u$ from [`scalex_eqx.optim.scale_by_factored_rms`][].

    **Arguments:**

    - `learning_rate`, `rates`, `role_multipliers`, `unannotated`: as for [`scalex_eqx.adam`][].
    - `decay_exponent`, `eps`, `eps_scaling`, `min_factored_size`, `clipping_threshold`: as for
        [`scalex_eqx.optim.scale_by_factored_rms`][]; $d$ is 1 unless given.
    - `floor`, `floor_scaling`: as for [`scalex_eqx.optim.scale_by_parameter_rms`][].
    - `weight_decay`, `decay_mode`, `weight_decay_schedule`: as for [`scalex_eqx.adamw`][]; `None`
        for no decay.

    **Returns:** an `optax.GradientTransformation` over trees of weights.
    """
    return descend(
        bare_adafactor(
            decay_exponent=decay_exponent,
            eps=eps,
            eps_scaling=eps_scaling,
            min_factored_size=min_factored_size,
            clipping_threshold=clipping_threshold,
            floor=floor,
            floor_scaling=floor_scaling,
        ),
        family="adafactor",
        learning_rate=learning_rate,
        rates=rates,
        role_multipliers=role_multipliers,
        weight_decay=weight_decay,
        decay_mode=decay_mode,
        weight_decay_schedule=weight_decay_schedule,
        unannotated=unannotated,
    )
