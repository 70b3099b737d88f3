from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import optax
from jax.core import Tracer
from jaxtyping import PyTree

from .._fingerprint import fingerprint
from .._parts import Part, blank_state, function_names, parts
from .._spec import WeightSpec
from .._weight import (
    Weight,
    is_trainable,
    is_weight,
    path_string,
    require_complete,
    weights_with_paths,
)
from ..optim import Rule
from ..optim._decay import DECAYED
from ..optim._rates import GlobalRate, rate_power
from ..theory import Alignment, Role
from ._data import Plan, PlanRow
from ._text import short
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
    chain = parts(blank)
    _check_same_weights("base", base, params)
    _check_same_weights("gradients", gradients, params)
    sigmas = _base_spreads(base)
    rows = tuple(
        _row(path, weight, [part.rule for part in chain if part.works_on(path)], sigmas)
        for path, weight in weights_with_paths(params).items()
    )
    names = function_names(tx, blank)
    return Plan(
        rows,
        tuple(_describe(part, names.get(part.name)) for part in chain),
        warnings(params, rows, chain, names, gradients),
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


def _row(
    path: str, weight: Weight, rules: list[Rule | None], sigmas: dict[str, float | None]
) -> PlanRow:
    spec = weight.spec
    assert spec.width_ratio is not None
    intended, sigma = spec.initial_std, sigmas.get(path)
    if intended is None and sigma is not None and spec.role is not Role.buffer:
        intended = sigma * spec.scale(spec.spread_exponent)
    return PlanRow(
        path,
        str(spec.role),
        tuple(weight.value.shape),
        str(weight.value.dtype),
        spec.width_ratio,
        spec.multiplier,
        intended,
        _spread(weight.value),
        **_step(path, spec, weight.value.dtype, rules),
        is_trained=spec.is_trained,
    )


def _spread(value: Any) -> float | None:
    if not isinstance(value, jax.Array) or isinstance(value, Tracer) or not value.size:
        return None
    # The values are known, also where a plan is made while something is traced.
    with jax.ensure_compile_time_eval():
        return float(jnp.std(value.astype(jnp.result_type(float))))


def _step(path: str, spec: WeightSpec, dtype: Any, rules: list[Rule | None]) -> dict[str, Any]:
    """Follows a weight's update through the rules, and the share of decay in it."""
    factor, rate, eps, eps_note, decay = 1.0, None, None, "", 0.0
    if not spec.is_trained:
        rules = []
    for rule in rules:
        if rule is None:
            continue
        settings = dict(rule.settings)
        scale: float | None = 1.0
        if rule.family is not None:
            gamma = settings.get("role_multipliers", {}).get(spec.role, 1.0)
            scale = gamma and gamma * spec.scale(rate_power(path, spec, rule.family, rule.rates))
            factor = factor and scale and factor * scale
        if "learning_rate" in settings:
            rate = scale = settings["learning_rate"]
        decay = decay and (None if scale is None else decay * scale)
        for constant in rule.constants:
            value = constant.at(spec)
            if constant.name == "eps":
                eps = constant.used(spec, dtype)
                eps_note = "traced" if value is None else "clamped" if eps != value else ""
            if constant.name == "weight_decay" and spec.role in DECAYED:
                decay = None if decay is None or value is None else decay + value
    return {
        "learning_rate_factor": factor,
        "learning_rate": None if factor is None or rate is None else factor * rate,
        "eps": eps,
        "eps_note": eps_note,
        "weight_decay": decay,
    }


def _describe(part: Part, name: str | None) -> str:
    if part.rule is None:
        known = name or type(part.state).__name__
        return f"{part.name}  {known}: not this library's, so its effect is not in the table"
    rule = part.rule
    said = [
        f"{c.name} {_setting(c.value)}" + (f" ({c.law})" if c.law else "") for c in rule.constants
    ]
    said += [f"{key} {_setting(value)}" for key, value in rule.settings if value not in ({}, False)]
    if rule.family is not None:
        said = [f"family {rule.family.name}", f"rates {_rates(rule.rates)}", *said]
    return f"{part.name}  {rule.name}" + (f": {', '.join(said)}" if said else "")


def _rates(rates: Any) -> str:
    if isinstance(rates, GlobalRate):
        return "one for all weights"
    if isinstance(rates, Alignment):
        return f"alignment {rates.name}"
    return ", ".join(f"{role} {exponent}" for role, exponent in rates)


def _setting(value: Any) -> str:
    if value is None:
        return "?"
    if callable(value):
        return "by weight"
    return short(value) if isinstance(value, float) else str(value)
