"""A law as traced numbers, so that runs of different laws are members of one program."""

import dataclasses
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax.tree_util as jtu
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from .._parameterize._spread import resized
from .._parts import blank_state, degree_at_scaling, norm_at_scaling, parts
from .._weight import (
    Tie,
    Weight,
    is_trainable,
    is_weight,
    map_weights,
    of_kind,
    rebuilt,
    weights_with_paths,
)
from ..ops._wide import wide
from ..optim import Degree, Rule
from ..optim._rates import multiplier, rate_power
from ..per_example import GradientStatistics
from ..theory import Role


class LawNumbers(NamedTuple):
    r"""What a law makes of each weight, in the order of the tree: arrays of shape `[weights]`.

    **Arguments:**

    - `multiplier`: $r^{-a}$, of the value in the forward pass.
    - `spread`: the initial spread in that under the law that the program was built with.
    - `rate`: $\gamma r^{-c}$, of the learning rate.
    - `gradient`, `weight`: the units in which the rule sees gradients and weights. In those its
        constants are what they are at the base width.
    """

    multiplier: Any
    spread: Any
    rate: Any
    gradient: Any
    weight: Any

    @classmethod
    def of(cls, rows: Sequence[Sequence[float]]) -> "LawNumbers":
        """The numbers of weights, one row each."""
        return cls(*np.array(rows, np.float32).reshape(-1, len(cls._fields)).T)


NO_NUMBERS = LawNumbers.of([])
"""Of a law that is compiled in."""


@dataclasses.dataclass(frozen=True)
class Units:
    r"""Which units a bare rule's constants follow, and its updates: $\lambda^p \mu^q u$.

    **Arguments:**

    - `gradient`, `weight`: whether its constants shrink with the law's gradients and with its
        initial weights.
    - `output`: the degrees of its updates in gradient and weight.
    """

    gradient: bool
    weight: bool
    output: Degree


NO_UNITS = Units(False, False, Degree(update=1))
"""Of a rule that isn't ours: it knows nothing of laws."""


def units(rule: optax.GradientTransformation) -> Units | None:
    """Those of a bare rule, without learning rates; `None` if its law can't be traced."""
    known = [part.rule for part in parts(blank_state(rule, {})) if part.rule is not None]
    output = degree_at_scaling(known)
    if norm_at_scaling(known) != "entries" or any(one.roles for one in known) or output is None:
        return None
    follows = [_follows(known, axis) for axis in (0, 1)]
    return None if None in follows else Units(bool(follows[0]), bool(follows[1]), output)


def _follows(rules: Sequence[Rule], axis: int) -> bool | None:
    """Whether all constants that have the unit of gradients, or of weights, scale as it does."""
    found = set()
    for constant in (constant for rule in rules for constant in rule.constants):
        degree, scaling = constant.degree[axis], constant.scaling[axis]
        if constant.width is not None or scaling not in (0, degree):
            return None
        if degree and constant.value != 0:
            found.add(scaling == degree)
    return None if len(found) > 1 else found == {True}


def is_traceable(model: PyTree) -> bool:
    """Whether nothing but the weights' numbers knows of the law, at the base that others have.

    A tie has a factor of its own, and a law without a base another initial spread at its base.
    """
    nodes = [x for x in jtu.tree_leaves(model, is_leaf=_is_weight_or_tie) if _is_weight_or_tie(x)]
    return not any(
        isinstance(x, Tie)
        or x.spec.carries_tie
        or (x.spec.parameterization is not None and x.spec.parameterization.unit is not None)
        for x in nodes
    )


_is_weight_or_tie = of_kind(Weight, Tie)


def law_numbers(model: PyTree, built: PyTree, scaling: Rule, units: Units) -> LawNumbers:
    """The numbers of a law.

    **Arguments:**

    - `model`: the model with the law, shapes or arrays.
    - `built`: the same with the law that the program is built with.
    - `scaling`: the rule of the optimizer that scales its learning rates.
    - `units`: of the bare rule.
    """
    assert scaling.family is not None
    gammas = dict(scaling.settings)["role_multipliers"]
    others = weights_with_paths(built)
    rows = []
    for path, weight in weights_with_paths(model).items():
        spec, other = weight.spec, others[path].spec
        if spec.role is Role.buffer:
            rows.append((1.0, 1.0, 0.0, 1.0, 1.0))
            continue
        power = rate_power(path, spec, scaling.family, scaling.rates)
        spread = spec.scale(spec.spread_power)
        rows.append(
            (
                spec.multiplier,
                spread / other.scale(other.spread_power),
                multiplier(path, spec.role, gammas) * spec.scale(power),
                1 / spec.scale(spec.gradient_power) if units.gradient else 1.0,
                1 / spread if units.weight else 1.0,
            )
        )
    return LawNumbers.of(rows)


def at_law_one(model: PyTree) -> PyTree:
    """The same values with specs of ratio one: whatever reads the law finds the base model's."""

    def one(weight: Weight) -> Weight:
        if weight.spec.role is Role.buffer:
            return weight
        spec = dataclasses.replace(weight.spec, width_ratio=Fraction(1), sizes=())
        return rebuilt(weight, weight.value, spec)

    return map_weights(one, model)


def with_spreads(model: PyTree, spreads: Float[Array, " weights"]) -> PyTree:
    """A fresh draw with the spreads of the law: matrices, and what a layer has declared."""

    def drawn(index: int, weight: Weight) -> Weight:
        spec = weight.spec
        drawn = (spec.role is not None and spec.role.is_matrix) or spec.std is not None
        is_ours = drawn and spec.role is not Role.buffer and is_trainable(weight.value)
        return rebuilt(weight, resized(weight.value, spreads[index])) if is_ours else weight

    return _numbered(drawn, model)


def multiplied(model: PyTree, multipliers: Float[Array, " weights"]) -> PyTree:
    """The model as the forward pass sees it, but for what is the same under all laws."""
    return _numbered(lambda i, w: rebuilt(w, _times(multipliers[i], w.value)), model)


def in_units(
    rule: optax.GradientTransformation, units: Units, numbers: LawNumbers
) -> optax.GradientTransformation:
    r"""The bare rule in units of a law, $u = \lambda^{-p} \mu^{-q}\, u(\lambda g, \mu w)$."""
    if not (units.gradient or units.weight):
        return rule
    p, q = units.output
    back = numbers.gradient**-p * numbers.weight**-q

    inside = optax.with_extra_args_support(rule)

    def update(updates, state, params=None, **extra):
        if units.gradient:
            updates = _scaled(updates, numbers.gradient)
            extra = {name: _statistics_in(numbers.gradient, x) for name, x in extra.items()}
        if units.weight and params is not None:
            params = _scaled(params, numbers.weight)
        updates, state = inside.update(updates, state, params, **extra)
        return (_scaled(updates, back) if p or q else updates), state

    return optax.GradientTransformationExtraArgs(rule.init, update)


def _statistics_in(gradient: Float[Array, " weights"], found: GradientStatistics) -> Any:
    """The statistics of gradients in other units; signs have none."""
    degrees = {"square": 2, "fourth": 4}
    scaled = {
        name: _scaled(getattr(found, name), gradient**degree)
        for name, degree in degrees.items()
        if getattr(found, name) is not None
    }
    return dataclasses.replace(found, **scaled)


def at_rates(rates: Float[Array, " weights"]) -> optax.GradientTransformation:
    """Multiplies each weight's update by the factor of its learning rate."""
    return optax.stateless(lambda updates, _: _scaled(updates, rates))


def _scaled(tree: PyTree, factors: Float[Array, " weights"]) -> PyTree:
    return _numbered(lambda i, w: rebuilt(w, _times(factors[i], w.value)), tree)


def _times(factor: Any, value: Any) -> Any:
    if not is_trainable(value):
        return value
    y = wide(value)
    return (factor.astype(y.real.dtype) * y).astype(value.dtype)


def _numbered(f: Callable[[int, Weight], Any], tree: PyTree) -> PyTree:
    leaves, treedef = jtu.tree_flatten(tree, is_leaf=is_weight)
    places = [i for i, leaf in enumerate(leaves) if is_weight(leaf)]
    for number, i in enumerate(places):
        leaves[i] = f(number, leaves[i])
    return jtu.tree_unflatten(treedef, leaves)
