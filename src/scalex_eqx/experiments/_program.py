"""The functions of a single run, for programs that train many."""

import dataclasses
import functools
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from .._needed import statistics_needed, step_gradient
from .._parameterize import parameterize
from .._parts import blank_state, parts
from .._sparsify import sparsify
from .._weight import is_trainable, resolve
from ..optim import Rule, global_rate, scale_by_learning_rate
from ..optim._catalogue import Entry
from ..optim._decay import add_weight_decay, is_cautious, is_coupled
from ..optim._numbers import ScalarOrSchedule
from ..problems import Problem
from ..problems._examples import check_examples
from ..problems._functions import parameterizing
from ..problems._problem import data_key
from ..theory import Budget, Parameterization, standard
from ._axes import INVERSE_DENSITY
from ._batch_rules import UNCHANGED, AtBatch, at_batch
from ._call import call_text
from ._law_numbers import (
    NO_NUMBERS,
    NO_UNITS,
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
from ._recipe import Recipe, check_on
from ._schedule import Schedule


class State(NamedTuple):
    """What training changes."""

    model: PyTree
    optimizer: PyTree


class RunNumbers(NamedTuple):
    """The traced numbers in which the runs of a program differ.

    **Arguments:**

    - `learning_rate`, `seed`, `law`: of a run.
    - `arguments`: of the update rule, those that follow the batch size.
    """

    learning_rate: Any
    seed: Any
    law: LawNumbers
    arguments: Mapping[str, Any]


def run_numbers(
    learning_rate: float, seed: int, law: LawNumbers, arguments: Mapping[str, float] | None = None
) -> RunNumbers:
    """The numbers of a run, as they are in the program."""
    given = {name: np.float32(x) for name, x in (arguments or {}).items()}
    return RunNumbers(np.float32(learning_rate), np.int32(seed), law, given)


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
    - `law`: the numbers of the recipe's own law.
    - `budget`: of the recipe's rule for the batch size, if it changes anything.
    - `at_batch`: what that makes of the update rule's numbers; nothing if the law is compiled in.
    """

    problem: Problem
    sizes: Mapping[str, int]
    base: Mapping[str, int]
    schedule: Schedule
    recipe: Recipe
    units: Units | None = None
    shapes: PyTree = None
    law: LawNumbers = NO_NUMBERS
    budget: Budget | None = None
    at_batch: AtBatch = UNCHANGED

    @property
    def is_traced(self) -> bool:
        """Whether runs of any recipe with the same rule may be trained by it."""
        return self.units is not None

    @property
    def rule(self) -> str:
        """The rule, but for how its constants scale where the law is traced."""
        arguments, entry = self.recipe.arguments, self.recipe.entry
        if isinstance(entry, Entry):
            # How constants scale is among the numbers.
            arguments = [(k, x) for k, x in arguments if not k.endswith("_scaling")]
        return call_text(entry.name, dict(arguments))

    @property
    def signature(self) -> tuple[object, ...]:
        """Equal for programs of one size that are the same, where the law is traced."""
        return self.rule, self.is_deep, tuple(name for name, _ in self.at_batch.arguments)

    @property
    def is_deep(self) -> bool:
        """Whether the law for the depth has something to change."""
        return self.recipe.law.branch is not None and self.sizes.get("depth") != self.base.get(
            "depth"
        )

    def numbers(self, learning_rate: float, seed: int) -> RunNumbers:
        """Those of a run of the recipe; the learning rate is that at the base."""
        found = self.at_batch
        return run_numbers(found.rate * learning_rate, seed, self.law, dict(found.arguments))

    @functools.cached_property
    def state(self) -> State:
        """The shapes of what training changes, the same for all runs."""
        return eqx.filter_eval_shape(self.start, self._any_run)

    @property
    def _any_run(self) -> RunNumbers:
        return self.numbers(0.0, 0)

    @functools.cached_property
    def _static(self) -> PyTree:
        return eqx.filter(self.shapes, lambda x: isinstance(x, jax.ShapeDtypeStruct), inverse=True)

    def start(self, run: RunNumbers) -> State:
        """The initial state."""
        key = jax.random.fold_in(jax.random.key(run.seed), 0)
        model = self.built(self.recipe.law if self.units is None else self._law_one, key)
        if self.units is not None:
            model = with_spreads(at_law_one(model), run.law.spread)
        arrays = eqx.filter(model, eqx.is_array)
        return State(arrays, self._optimizer(run).init(_trainable(arrays)))

    def built(self, law: Parameterization, key: Any) -> PyTree:
        """The model under a law, as a key draws it."""
        depths: dict[str, Any] = {}
        if self.is_deep and law.branch is not None:
            depths = {"depth": self.sizes["depth"], "base_depth": self.base["depth"]}

        def make(width: int, depth: int | None = self.sizes.get("depth")) -> PyTree:
            sizes = {"width": width} if depth is None else {"width": width, "depth": depth}
            return self.problem.build(sizes, key)

        model = parameterize(
            make,
            width=self.sizes["width"],
            base_width=self.base["width"],
            parameterization=law,
            **depths,
        )
        inverse_density = self.sizes.get(INVERSE_DENSITY.name)
        if inverse_density is None:
            return model
        density, masks = Fraction(1, inverse_density), jax.random.fold_in(key, 1)
        return sparsify(model, density, key=masks, pattern="balanced")

    @property
    def _law_one(self) -> Parameterization:
        """The law that the program is built with, for all recipes."""
        # A law for the depth also takes what a layer's own spread had of it.
        return standard.deep(1) if self.is_deep else standard

    def _optimizer(self, run: RunNumbers) -> optax.GradientTransformation:
        def rate(count: Any) -> Any:
            return run.learning_rate * self.schedule(jnp.asarray(count))

        if self.units is None:
            return self.recipe.transformation(rate, budget=self.budget, shape=self.schedule)
        return traced(self.recipe, rate, self.units, run, self.schedule)

    def advance(
        self, state: State, run: RunNumbers, data: PyTree, steps: PyTree
    ) -> tuple[State, Float[Array, " chunk"]]:
        """Trains for some steps; returns the loss before each.

        **Arguments:**

        - `data`: the problem's.
        - `steps`: their numbers, and where the problem reads its batches, those too.
        """
        key = data_key(run.seed)
        optimizer = self._optimizer(run)

        def step(state: State, source: Any) -> tuple[State, Float[Array, ""]]:
            index, batch = source
            if batch is None:
                batch = self.problem.drawn(data, jax.random.fold_in(key, index))
            value, gradient, extra = self._gradient(state.model, run, batch)
            updates, optimizer_state = optimizer.update(
                gradient, state.optimizer, _trainable(state.model), **extra
            )
            return State(eqx.apply_updates(state.model, updates), optimizer_state), value

        return jax.lax.scan(step, state, steps)

    def _gradient(
        self, model: PyTree, run: RunNumbers, batch: Any
    ) -> tuple[Float[Array, ""], PyTree, dict[str, Any]]:
        """The loss of a batch, its gradient, and what the update rule needs beside them."""

        def loss(model: PyTree, batch: Any) -> Float[Array, ""]:
            return self.problem.mean_loss(self._plain(model, run), batch)

        def of_example(model: PyTree, example: Any) -> Float[Array, ""]:
            return self.problem.example_loss(self._plain(model, run), example)

        return step_gradient(loss, of_example, model, batch, self.needed)

    @functools.cached_property
    def needed(self) -> dict[str, Any]:
        """What the update rule needs to know of the gradients of the batch's examples."""
        model = _trainable(self.state.model)
        return statistics_needed(self.recipe.transformation(1.0), model)

    def evaluate(
        self, state: State, run: RunNumbers, held_out: PyTree
    ) -> dict[str, Float[Array, ""]]:
        """The metrics of the trained model."""
        return self.problem.judged(self._plain(state.model, run), held_out)

    def check(self) -> None:
        """Raises `UsageError` unless loss and metrics are numbers, found from shapes alone.

        A rule that needs the examples' gradients is tried on a batch: the loss has to be their
        mean.
        """
        self.problem.check(eqx.filter_eval_shape(self._plain, self.state.model, self._any_run))
        if self.needed:
            plain = eqx.filter_jit(lambda run: self._plain(self.start(run).model, run))
            check_examples(self.problem, plain(self._any_run))

    def _plain(self, model: PyTree, run: RunNumbers) -> PyTree:
        if self.units is not None:
            model = multiplied(model, run.law.multiplier)
        return resolve(eqx.combine(model, self._static))


def _trainable(model: PyTree) -> PyTree:
    """What the update rule sees: integers and keys, which have no gradient, are left out."""
    return eqx.filter(model, is_trainable)


def build(
    problem: Problem,
    sizes: Mapping[str, int],
    base: Mapping[str, int],
    schedule: Schedule,
    recipe: Recipe,
    budget: Budget | None = None,
) -> Program:
    """The program that trains a recipe's runs at some sizes.

    **Arguments:**

    - `budget`: of the recipe's rule for the batch size, where that changes anything.

    **Raises:** `UsageError` if the recipe doesn't fit the model, or its rule the batch size.
    """
    own = Program(problem, sizes, base, schedule, recipe, budget=budget)
    key = jax.random.key(0)
    with parameterizing():
        model = eqx.filter_eval_shape(own.built, recipe.law, key)
    check_on(recipe, _trainable(model), budget)
    known, found = _units(recipe), _at_batch(recipe, budget)
    if known is None or found is None or not is_traceable(model):
        return dataclasses.replace(own, shapes=model)
    built = model
    if recipe.law != own._law_one:
        built = eqx.filter_eval_shape(own.built, own._law_one, key)
    numbers = law_numbers(model, built, _scaling_rule(recipe, _trainable(model)), known)
    return dataclasses.replace(
        own, units=known, shapes=at_law_one(built), law=numbers, at_batch=found
    )


def _at_batch(recipe: Recipe, budget: Budget | None) -> AtBatch | None:
    if budget is None or not isinstance(recipe.entry, Entry):
        return UNCHANGED
    return at_batch(recipe.entry, dict(recipe.arguments), budget)


def _units(recipe: Recipe) -> Units | None:
    if not isinstance(recipe.entry, Entry):
        return NO_UNITS
    return units(recipe.entry.rule(**dict(recipe.arguments)))


def _scaling_rule(recipe: Recipe, model: PyTree) -> Rule:
    """The rule of the optimizer that holds how its learning rates follow the law."""
    state = blank_state(recipe.transformation(1.0), model)
    (scaling,) = [part.rule for part in parts(state) if part.rule and part.rule.family]
    return scaling


def traced(
    recipe: Recipe,
    learning_rate: ScalarOrSchedule,
    units: Units,
    run: RunNumbers,
    shape: optax.Schedule | None = None,
) -> optax.GradientTransformation:
    """The recipe's optimizer for weights at the ratio 1, with a run's numbers in its places."""
    law, entry = run.law, recipe.entry
    arguments = {**dict(recipe.arguments), **run.arguments}
    if not isinstance(entry, Entry):
        plain = dataclasses.replace(recipe, rates=global_rate, multipliers=())
        return optax.chain(plain.transformation(learning_rate), at_rates(law.rate))
    chain = [in_units(entry.rule(**arguments), units, law)]
    decay = entry.decay_options(shape=shape, **arguments)
    coefficient = decay.get("weight_decay")
    mode = decay.get("decay_mode")
    if coefficient is not None and is_coupled(mode):
        chain.append(add_weight_decay(coefficient, cautious=is_cautious(mode)))
    chain += [at_rates(law.rate), scale_by_learning_rate(learning_rate)]
    if coefficient is not None and not is_coupled(mode):
        schedule = decay["weight_decay_schedule"]
        chain.append(add_weight_decay(-coefficient, schedule, cautious=is_cautious(mode)))
    return optax.chain(*chain)
