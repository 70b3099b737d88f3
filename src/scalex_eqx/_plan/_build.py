import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import PyTree

from .._fingerprint import fingerprint
from .._makers import makers
from .._parts import blank_state, parts
from .._weight import (
    Weight,
    is_trainable,
    is_weight,
    path_string,
    require_complete,
    weights_with_paths,
)
from ..theory import Role
from ._budget import budget_lines
from ._data import Plan, PlanRow
from ._density import density_lines
from ._foreign import effect
from ._optax import optax_warnings
from ._optimizer import describe
from ._shape_factors import shape_factor_warnings
from ._step import Step, step
from ._warnings import warnings


def plan(
    model: PyTree,
    tx: optax.GradientTransformation | optax.MultiSteps,
    *,
    base: PyTree | None = None,
    gradients: PyTree | None = None,
) -> Plan:
    r"""The per-weight table of what `tx` will do to `model`: print it before you train.

    A row a weight: role, shape, width ratio $r$, forward multiplier, initial standard deviation as
    intended ($\sigma r^{-b}$) and as found in the values, the learning rate's factor
    ($\gamma r^{-c}$) and value, epsilon, and the share of the weight that decay takes in a step.
    Numbers that are traced, or that only another library's transformation knows, are shown as `?`.

    **Arguments:**

    - `model`: from `parameterize`; its shapes will do (`eqx.filter_eval_shape`).
    - `tx`: the optimizer. Transformations of other libraries are listed as such.
    - `base`: the model at the base width, `make(base_width)`; with it the intended standard
        deviation is known for arrays that declare none.
    - `gradients`: of a loss with respect to `model`; with them a warning tells where epsilon
        outweighs the gradient.

    **Returns:** a [`scalex_eqx.Plan`][].

    **Raises:** `ValueError` for a tree with arrays that no scaling law is known for, for a `base`
    of another width, and for a `base` or `gradients` of another model.
    """
    params = eqx.filter(model, is_trainable)
    require_complete(params)
    blank = blank_state(tx, params)
    made = makers(tx, blank, params)
    chain = parts(blank, made.lives)
    effects = {
        part.name: effect(part, made.names.get(part.name)) for part in chain if part.rule is None
    }
    _check_same_weights("base", base, params)
    _check_same_weights("gradients", gradients, params)
    sigmas = _base_spreads(base)
    # Of a part of a model, those that a filter has left in it.
    weights = {path: w for path, w in weights_with_paths(params).items() if is_trainable(w.value)}
    rows = tuple(
        _row(path, weight, step(path, weight.spec, weight.value.dtype, chain, effects), sigmas)
        for path, weight in weights.items()
    )
    names = {name: maker.name for name, maker in made.names.items()}
    trained = {row.path: weights[row.path] for row in rows if row.is_trained}
    return Plan(
        rows,
        tuple(
            line
            for part in chain
            for line in (
                describe(part, names.get(part.name)),
                *budget_lines(part, chain),
                *density_lines(part, weights),
            )
        ),
        (
            *warnings(params, rows, chain, effects, names, gradients),
            *shape_factor_warnings(trained, chain, made.shape_factors),
            *optax_warnings(rows, trained, chain, made.names),
        ),
        fingerprint(model),
    )


def _base_spreads(base: PyTree) -> dict[str, float | None]:
    """The spread of every array of the base model, by its path; a `Weight` declares its own."""
    ratios = {weight.spec.width_ratio for weight in weights_with_paths(base).values()} - {None, 1}
    if ratios:
        raise ValueError(
            f"base has the width ratio {', '.join(map(str, ratios))}; expected the model at the "
            "base width, make(base_width)"
        )
    leaves = jtu.tree_leaves_with_path(base, is_leaf=is_weight)
    arrays = {
        path_string(path): leaf.value if is_weight(leaf) and leaf.spec.is_complete else leaf
        for path, leaf in leaves
    }
    return {path: _spread(array) for path, array in arrays.items() if is_trainable(array)}


def _check_same_weights(name: str, tree: PyTree | None, params: PyTree) -> None:
    leaves = jtu.tree_leaves_with_path(tree, is_leaf=is_weight)
    paths = list(weights_with_paths(params))
    if tree is not None and not {path_string(path) for path, _ in leaves} & set(paths):
        raise ValueError(
            f"{name} has none of the model's weights, which are {', '.join(paths)}; expected a "
            "tree like the model"
        )


def _row(path: str, weight: Weight, step: Step, sigmas: dict[str, float | None]) -> PlanRow:
    spec = weight.spec
    assert spec.width_ratio is not None
    intended, sigma = spec.initial_std, sigmas.get(path)
    if intended is None and sigma is not None and spec.role is not Role.buffer:
        intended = sigma * spec.scale(spec.spread_power)
    return PlanRow(
        path,
        str(spec.role),
        tuple(weight.value.shape),
        str(weight.value.dtype),
        spec.width_ratio,
        spec.multiplier,
        intended,
        _found(weight),
        **dataclasses.asdict(step),
        depth_ratio=spec.size_ratio("depth"),
        why=spec.why,
        density=spec.density,
        density_ratio=spec.size_ratio("density"),
    )


def _found(weight: Weight) -> float | None:
    """The spread of the values, of a masked weight that of the entries that are kept."""
    found, density = _spread(weight.value), weight.spec.density
    # What is kept has a mean of zero, or near it.
    return found if found is None or density is None else found * float(density) ** -0.5


def _spread(value: Any) -> float | None:
    if not isinstance(value, jax.Array) or isinstance(value, Tracer) or not value.size:
        return None
    if not value.is_fully_addressable or jnp.issubdtype(value.dtype, jnp.complexfloating):
        # The values are known, also where a plan is made while something is traced.
        with jax.ensure_compile_time_eval():
            return float(jnp.std(value.astype(jnp.result_type(float, value.dtype))))
    # A device's program for each of thousands of weights would take most of the time.
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.std(np.asarray(value).astype(float)))
