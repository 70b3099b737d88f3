"""Learned rules as gradient transformations."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._spec import WeightSpec
from ...ops._wide import wide
from ...theory import full_alignment
from .._adafactor import factored_axes
from .._checked import checked
from .._decay import DecayMode
from .._descent import descend
from .._moments import finite_or_nan, wide_zeros
from .._numbers import Scalar, ScalarOrSchedule
from .._rates import Rates
from .._rule import Degree, Rule
from .._tree import init_values, move_values
from .._unannotated import Unannotated
from ._features import Moments, tensor_features, time_features
from ._files import load_rule
from ._moments import moved_moments, steps_of
from ._network import LearnedRule

# All that is remembered of gradients; how many of the numbered ones there are is the rule's.
_MEANS = ("mean_0", "mean_1", "mean_2")
_FACTORED = tuple(f"{name}_{i}" for i in range(3) for name in ("row", "column", "full"))
_FIELDS = (*_MEANS, "root", *_FACTORED)


class ScaleByLearnedState(NamedTuple):
    """The step count, the moments of the gradients, and what the rule is.

    `mean_0` and so on are means of the gradient, `root` is the root of the mean of its square, and
    `row_0`, `column_0`, `full_0` and so on are those of `scale_by_factored_rms`.
    """

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    mean_0: PyTree
    mean_1: PyTree
    mean_2: PyTree
    root: PyTree
    row_0: PyTree
    column_0: PyTree
    full_0: PyTree
    row_1: PyTree
    column_1: PyTree
    full_1: PyTree
    row_2: PyTree
    column_2: PyTree
    full_2: PyTree
    rule: PyTree


def scale_by_learned(
    weights: Literal["default"] | str | Path | LearnedRule = "default",
) -> optax.GradientTransformation:
    r"""An update whose formula was found by training: a small network, entry by entry.

    $$u = d\, e^{\lambda_2 m}, \qquad d, m = \operatorname{MLP}_\phi(\text{features of } \theta, g
    \text{ and the moments of } g)$$

    Each feature is divided by its root mean square over the weight, so that a gradient's scale
    changes no update. An entry that has never had a gradient stays. The features of one weight know
    of no other, and weights that are stacked along leading axes are several.

    **Arguments:**

    - `weights`: $\phi$. `"default"` ships with the library; a path names a file that
        `scalex meta-train` wrote; or a [`scalex_eqx.optim.LearnedRule`][], whose arrays may be
        traced.

    **Returns:** an `optax.GradientTransformation` over trees of weights; its `update` needs the
    weights. The moments are kept in the weights' dtype or float32, whichever is wider; the updates
    have the gradients' dtype. A gradient that is not finite gives NaN, for all of its weight.

    **Raises:** `ValueError` for what is no learned rule.

    ??? cite "Source"

        Thérien et al., *µLO: Compute-Efficient Meta-Generalization of Learned Optimizers* (2024),
        [arXiv:2406.00153](https://arxiv.org/abs/2406.00153); the features are those of Metz et al.
        (2022), [arXiv:2203.11860](https://arxiv.org/abs/2203.11860).
    """
    phi, source = _loaded(weights)
    rule = Rule(
        "scale_by_learned",
        fields=tuple((name, Degree(update=1)) for name in _FIELDS),
        output=Degree(),
        settings=(
            ("weights", source),
            ("form", phi.form),
            ("features", phi.features.count),
            ("hidden", int(phi.layers[0].weight.shape[0])),
        ),
    )

    def init(params: optax.Params) -> ScaleByLearnedState:
        def zeros(field: str) -> Any:
            return lambda spec, w: _zeros(spec, w, field, phi)

        fields = {field: init_values(zeros(field), params) for field in _FIELDS}
        return ScaleByLearnedState(jnp.zeros((), jnp.int32), **fields, rule=rule)

    def update(updates, state, params=None):
        if params is None:
            raise ValueError(
                "a learned rule looks at the weights: call tx.update(grads, state, params)"
            )
        count = jnp.asarray(optax.safe_increment(state.count))

        def move(spec, g, *rest):
            *fields, w = rest
            return _moved(phi, spec, count, g, dict(zip(_FIELDS, fields, strict=True)), w)

        trees = [getattr(state, field) for field in _FIELDS]
        new_updates, *fields, _ = move_values(move, updates, *trees, params)
        return new_updates, ScaleByLearnedState(count, *fields, rule=rule)

    return checked(rule, ScaleByLearnedState, init, update)


def learned(
    learning_rate: ScalarOrSchedule = 0.01,
    rates: Rates = full_alignment,
    *,
    weights: Literal["default"] | str | Path | LearnedRule = "default",
    weight_decay: Scalar | None = None,
    decay_mode: DecayMode | None = None,
    weight_decay_schedule: optax.Schedule | None = None,
    role_multipliers: Mapping[str, Scalar] | None = None,
    unannotated: Unannotated = "error",
) -> optax.GradientTransformation:
    r"""A learned optimizer with per-layer step sizes.

    $$w \leftarrow w - \lambda_1\, \gamma_\text{role}\, r^{-c}\, u$$

    with $u$ from [`scalex_eqx.optim.scale_by_learned`][] and $c$ as for Adam.

    **Arguments:**

    - `learning_rate`: $\lambda_1$. The one that the rule was meta-trained with, 0.01, unless given;
        a multiple of it is to this rule what another learning rate is to others.
    - `rates`, `role_multipliers`, `unannotated`: as for [`scalex_eqx.adam`][].
    - `weights`: as for [`scalex_eqx.optim.scale_by_learned`][].
    - `weight_decay`, `decay_mode`, `weight_decay_schedule`: as for [`scalex_eqx.adamw`][]; `None`
        for no decay.

    **Returns:** an `optax.GradientTransformation` over trees of weights.
    """
    return descend(
        scale_by_learned(weights),
        family="adam",
        learning_rate=learning_rate,
        rates=rates,
        role_multipliers=role_multipliers,
        weight_decay=weight_decay,
        decay_mode=decay_mode,
        weight_decay_schedule=weight_decay_schedule,
        unannotated=unannotated,
    )


def _loaded(weights: Any) -> tuple[LearnedRule, str]:
    """The rule, and what a plan says of where it is from."""
    if isinstance(weights, LearnedRule):
        return weights, "given"
    if not isinstance(weights, str | Path):
        raise ValueError(
            f"weights is {weights!r}; expected 'default', a path, or a "
            "scalex_eqx.optim.LearnedRule. Under optax.inject_hyperparams name it in static_args"
        )
    stored = load_rule(weights)
    return stored.rule, f"{weights} {stored.digest[:8]}"


def _axes(spec: WeightSpec, x: Float[Array, "..."]) -> tuple[int, int] | None:
    return factored_axes(spec, x, 2)


def _zeros(
    spec: WeightSpec, w: Float[Array, "..."], field: str, phi: LearnedRule
) -> Float[Array, "..."] | None:
    """What a moment of a weight starts from, `None` for one that it lacks."""
    zeros, features = wide_zeros(spec, w), phi.features
    name, _, number = field.partition("_")
    if name == "root":
        return zeros
    if name == "mean":
        return zeros if int(number) < len(features.momentum) else None
    axes = _axes(spec, w)
    if int(number) >= len(features.factored) or (name == "full") == (axes is not None):
        return None
    if axes is None:
        return zeros
    # A sum, because an axis that is split over devices can't be sliced.
    return jnp.sum(zeros, axis=axes[1 if name == "row" else 0], keepdims=True)


# Hundreds of operations: weights of one shape and law share one trace, also op by op.
@partial(jax.jit, static_argnums=1)
def _moved(
    phi: LearnedRule,
    spec: WeightSpec,
    count: Int[Array, ""],
    g: Float[Array, "..."],
    fields: Mapping[str, Any],
    w: Float[Array, "..."],
) -> tuple[Any, ...]:
    """The update of a weight, and its moments in the order of the state's fields."""
    stacks = len(spec.stack_axes(g.ndim))

    def together(name: str) -> Any:
        found = [fields[f"{name}_{i}"] for i in range(3)]
        found = [x for x in found if x is not None]
        return jnp.stack(found, axis=stacks) if found else None

    names = ("mean", "row", "column", "full")
    means, *factored = map(together, names)
    moments = Moments(means, fields["root"], *factored)
    dtype = moments.root.dtype
    times = time_features(phi.features, count.astype(dtype))
    steps = steps_of(phi.features, phi.decays.astype(dtype))
    axes = _axes(spec, g)
    inner = None if axes is None else (axes[0] - stacks, axes[1] - stacks)

    def one(g: Any, moments: Moments, w: Any) -> tuple[Any, Moments]:
        moments = moved_moments(moments, g, steps, inner)
        features = tensor_features(phi.features, w, g, moments, float(spec.density or 1))
        return _sized(phi, phi(features, times), moments.root), moments

    for _ in range(stacks):
        one = jax.vmap(one)
    update, moments = one(finite_or_nan(wide(g)).astype(dtype), moments, wide(w).astype(dtype))
    found: dict[str, Any] = {**dict.fromkeys(fields), "root": moments.root}
    for name, x in zip(names, (moments.means, *moments[2:]), strict=True):
        if x is not None:
            for i in range(x.shape[stacks]):
                found[f"{name}_{i}"] = jax.lax.index_in_dim(x, i, stacks, keepdims=False)
    return update.astype(g.dtype), *(found[name] for name in _FIELDS)


def _sized(
    phi: LearnedRule, update: Float[Array, "*shape"], root: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """The update, 0 where no gradient has ever been, and of size one elsewhere if the form says so.

    What is masked is not moved by what the others are moved by.
    """
    live = root != 0
    update = jnp.where(live, update, 0)
    if phi.form == "magnitude":
        return update
    square = jnp.sum(jnp.square(update)) / jnp.maximum(jnp.sum(live.astype(update.dtype)), 1)
    return update * jax.lax.rsqrt(jnp.where(square == 0, 1, square))
