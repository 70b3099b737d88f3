"""The functions of a single run, for programs that train many."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from .._parameterize import parameterize
from .._parts import blank_state, parts
from .._weight import resolve
from .. import optim
from ..optim._decay import add_weight_decay
from ..optim import Rule
from ..problems import Problem
from ..theory import Parameterization, standard
from ._law_numbers import (
    LawNumbers,
    Units,
    at_law_one,
    at_rates,
    in_units,
    is_traceable,
    law_numbers,
    multiplied,
    units,
    with_spreads,
)
from ._recipe import Recipe


class State(NamedTuple):
    """What training changes."""

    model: PyTree
    optimizer: PyTree


class RunNumbers(NamedTuple):
    """The traced numbers in which the runs of a program differ."""

    learning_rate: Float[Array, ""]
    seed: Int[Array, ""]
    law: LawNumbers


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long a run trains, and how its learning rate rises and falls."""

    steps: int
    warmup: float = 0.1

    def __call__(self, count: Int[Array, ""]) -> Float[Array, ""]:
        r"""A linear rise to 1 over `warmup * steps`, then a cosine to 0.

        The last step is at 0 itself.
        """
        time = (count + 1).astype(jnp.result_type(float))
        rise = max(1.0, self.warmup * self.steps)
        fall = (time - rise) / max(1.0, self.steps - rise)
        return jnp.where(time < rise, time / rise, 0.5 * (1 + jnp.cos(jnp.pi * fall)))


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """One run, static but for its numbers.

    Where the law can be traced, the model is built under one law for all recipes and trained at
    the ratio 1; the numbers put in what a recipe's own law makes of each weight. Otherwise the
    recipe's law is compiled in.

    **Arguments:**

    - `problem`, `sizes`, `base`: what is built, and at which base sizes.
    - `schedule`: of the learning rate.
    - `recipe`: one of the runs'; all runs have its rule.
    - `units`: of the bare rule; `None` if the law is compiled in.
    - `shapes`: of a model as it is trained, with what it holds beside arrays.
    """

    problem: Problem
    sizes: Mapping[str, int]
    base: Mapping[str, int]
    schedule: Schedule
    recipe: Recipe
    units: Units | None = None
    shapes: PyTree = None

    @property
    def is_traced(self) -> bool:
        """Whether runs of any recipe with the same rule may be trained by it."""
        return self.units is not None

    @property
    def rule(self) -> str:
        """The rule, but for how its constants scale where the law is traced."""
        return self.recipe.optimizer

    @functools.cached_property
    def _static(self) -> PyTree:
        return eqx.filter(self.shapes, lambda x: isinstance(x, jax.ShapeDtypeStruct), inverse=True)

    def start(self, run: RunNumbers) -> State:
        """The initial state."""
        key = jax.random.fold_in(jax.random.key(run.seed), 0)
        law = self.recipe.law if self.units is None else standard
        model = self._model(law, key)
        if self.units is not None:
            model = with_spreads(at_law_one(model), run.law.spread)
        arrays = eqx.filter(model, eqx.is_array)
        return State(arrays, self._optimizer(run).init(arrays))

    def _model(self, law: Parameterization, key: Any) -> PyTree:
        rest = {name: size for name, size in self.sizes.items() if name != "width"}
        return parameterize(
            lambda width: self.problem.build({"width": width, **rest}, key),
            width=self.sizes["width"],
            base_width=self.base["width"],
            parameterization=law,
        )

    def _optimizer(self, run: RunNumbers) -> optax.GradientTransformation:
        def rate(count: Any) -> Any:
            return run.learning_rate * self.schedule(jnp.asarray(count))

        if self.units is None:
            return public_optimizer(self.recipe, rate)
        return traced_optimizer(self.recipe, rate, self.units, run.law)

    def advance(
        self, state: State, run: RunNumbers, data: PyTree, steps: PyTree
    ) -> tuple[State, Float[Array, " chunk"]]:
        """Trains for some steps; returns the loss before each.

        **Arguments:**

        - `data`: the problem's.
        - `steps`: their numbers, and where the problem reads its batches, those too.
        """
        key = jax.random.fold_in(jax.random.key(run.seed), 1)
        optimizer = self._optimizer(run)

        def loss(model: PyTree, batch: Any) -> Float[Array, ""]:
            return self.problem.loss(self._plain(model, run), batch)

        def step(state: State, source: Any) -> tuple[State, Float[Array, ""]]:
            index, batch = source
            if batch is None:
                batch = self.problem.drawn(data, jax.random.fold_in(key, index))
            value, gradient = eqx.filter_value_and_grad(loss)(state.model, batch)
            updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.model)
            return State(eqx.apply_updates(state.model, updates), optimizer_state), value

        return jax.lax.scan(step, state, steps)

    def evaluate(
        self, state: State, run: RunNumbers, held_out: PyTree
    ) -> dict[str, Float[Array, ""]]:
        """The metrics of the trained model."""
        return self.problem.judged(self._plain(state.model, run), held_out)

    def _plain(self, model: PyTree, run: RunNumbers) -> PyTree:
        if self.units is not None:
            model = multiplied(model, run.law.multiplier)
        return resolve(eqx.combine(model, self._static))


def build(
    problem: Problem,
    sizes: Mapping[str, int],
    base: Mapping[str, int],
    schedule: Schedule,
    recipe: Recipe,
) -> tuple[Program, LawNumbers]:
    """The program that trains a recipe's runs at some sizes, and the law's numbers in it."""
    own = Program(problem, sizes, base, schedule, recipe)
    key = jax.random.key(0)
    model = eqx.filter_eval_shape(own._model, recipe.law, key)
    # The public optimizer checks rates and weights, and holds how rates follow the law.
    scaling = _scaling_rule(public_optimizer(recipe, 1.0), model)
    rule = bare_rule(recipe)
    found = None if rule is None else units(rule)
    if found is None or not is_traceable(model):
        nothing = LawNumbers(*[np.ones(0, np.float32)] * len(LawNumbers._fields))
        return dataclasses.replace(own, shapes=model), nothing
    built = eqx.filter_eval_shape(own._model, standard, key)
    numbers = law_numbers(model, built, scaling, found)
    return dataclasses.replace(own, units=found, shapes=at_law_one(built)), numbers


def _scaling_rule(tx: optax.GradientTransformation, model: PyTree) -> Rule:
    rules = [part.rule for part in parts(blank_state(tx, model))]
    (scaling,) = [rule for rule in rules if rule is not None and rule.family is not None]
    return scaling


def public_optimizer(recipe: Recipe, rate: Any) -> optax.GradientTransformation:
    return recipe.transformation(rate, b1=0.9, b2=0.95, eps=1e-12, decay=1e-4)


def bare_rule(recipe: Recipe) -> optax.GradientTransformation | None:
    name = recipe.optimizer
    if name in ("adam", "adamw"):
        return optim.scale_by_adam(0.9, 0.95, 1e-12)
    if name == "adam_atan2":
        return optim.scale_by_adam_atan2(0.9, 0.95)
    if name == "adam_parameter_scaling":
        return optax.chain(optim.scale_by_adam(0.9, 0.95, 1e-12), optim.scale_by_parameter_rms())
    if name == "sgd":
        return optim.scale_by_momentum(0.9)
    return None


def traced_optimizer(
    recipe: Recipe, rate: Any, units: Units, law: LawNumbers
) -> optax.GradientTransformation:
    rule = bare_rule(recipe)
    assert rule is not None
    chain = [in_units(rule, units, law), at_rates(law.rate), optim.scale_by_learning_rate(rate)]
    if recipe.optimizer == "adamw":
        chain.append(add_weight_decay(-1e-4, optax.constant_schedule(1.0)))
    return optax.chain(*chain)
