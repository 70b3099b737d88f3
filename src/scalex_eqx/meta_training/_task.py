"""What a learned rule is trained on: a problem at a size, under a law."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._parameterize import parameterize
from .._weight import Weight, is_trainable, map_weights, rebuilt, resolve
from ..optim import LearnedRule, Rates, learned
from ..problems import Problem
from ..theory import Parameterization, Role, full_alignment, mup

RATE = 0.01
r"""$\lambda_1$ of the published rules."""

WORST = 10.0
"""What a loss counts at most, and what one counts that is not a number."""


class Inner(NamedTuple):
    """What a rule changes: the model's arrays, and what the rule remembers."""

    model: PyTree
    optimizer: PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    r"""A problem that a rule is tried on.

    **Arguments:**

    - `problem`: a [`scalex_eqx.problems.Problem`][] with data on the device.
    - `sizes`: of the model, `width` and, if it can be built of several, `depth`.
    - `base_width`: the width at which the law's factors are one.
    - `parameterization`, `rates`: the law.
    - `learning_rate`: $\lambda_1$.
    - `role_multipliers`: as for [`scalex_eqx.scale_by_width`][].
    - `zero_readout`: whether the readout starts at zero, as in every published experiment.
    """

    problem: Problem
    sizes: Mapping[str, int]
    base_width: int
    parameterization: Parameterization = mup
    rates: Rates = full_alignment
    learning_rate: float = RATE
    role_multipliers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    zero_readout: bool = True

    def model(self, key: PRNGKeyArray) -> PyTree:
        """The model as a key draws it, with its law."""

        def make(width: int) -> PyTree:
            return self.problem.build({**self.sizes, "width": width}, key)

        model = parameterize(
            make,
            width=self.sizes["width"],
            base_width=self.base_width,
            parameterization=self.parameterization,
        )
        return map_weights(_without_readout, model) if self.zero_readout else model

    def learned(self, rule: LearnedRule) -> optax.GradientTransformation:
        """The optimizer that a rule is in this task."""
        return learned(
            self.learning_rate,
            self.rates,
            weights=rule,
            role_multipliers=self.role_multipliers or None,
        )

    def begin(self, tx: optax.GradientTransformation, key: PRNGKeyArray) -> Inner:
        """Before the first step."""
        arrays = eqx.filter(self.model(key), eqx.is_array)
        return Inner(arrays, tx.init(eqx.filter(arrays, is_trainable)))

    def train(
        self,
        tx: optax.GradientTransformation,
        inner: Inner,
        data: PyTree,
        keys: Any,
    ) -> tuple[Inner, Float[Array, " steps"]]:
        """One step for each key, which draws its batch; returns the loss before each.

        **Arguments:**

        - `data`: the problem's.
        """
        static = self._static()

        def loss(model: PyTree, batch: Any) -> Float[Array, ""]:
            return self.problem.mean_loss(resolve(eqx.combine(model, static)), batch)

        def step(inner: Inner, key: PRNGKeyArray) -> tuple[Inner, Float[Array, ""]]:
            batch = self.problem.drawn(data, key)
            value, gradient = eqx.filter_value_and_grad(loss)(inner.model, batch)
            weights = eqx.filter(inner.model, is_trainable)
            updates, optimizer = tx.update(gradient, inner.optimizer, weights)
            return Inner(eqx.apply_updates(inner.model, updates), optimizer), value

        return jax.lax.scan(step, inner, keys)

    def _static(self) -> PyTree:
        shapes = eqx.filter_eval_shape(self.model, jax.random.key(0))
        return eqx.filter(shapes, lambda x: isinstance(x, jax.ShapeDtypeStruct), inverse=True)

    @property
    def name(self) -> str:
        """For people to read."""
        return ", ".join([self.problem.name, *(f"{k} {n}" for k, n in self.sizes.items())])

    @property
    def facts(self) -> dict[str, Any]:
        """What decides a result, as JSON."""
        return {
            "problem": self.problem.facts,
            "sizes": dict(self.sizes),
            "base_width": self.base_width,
            "parameterization": repr(self.parameterization),
            "rates": repr(self.rates),
            "learning_rate": self.learning_rate,
            "role_multipliers": {str(k): float(x) for k, x in self.role_multipliers.items()},
            "zero_readout": self.zero_readout,
        }


def courses(
    task: Task,
    make: Callable[[Any], optax.GradientTransformation],
    numbers: Any,
    *,
    steps: int,
    seeds: int,
    seed: int = 0,
) -> Float[Array, "seeds steps"]:
    """The losses of some trainings, a step each; not a number from where one has diverged.

    **Arguments:**

    - `make`: `make(numbers)`, the optimizer; traced, and compiled once for all numbers.
    - `numbers`: a [`scalex_eqx.optim.LearnedRule`][] for `task.learned`, or what else `make` takes.
    - `seeds`: how many are trained, one after the other: a large model's need no memory together.
    - `seed`: of the first.
    """
    run = _course(task, make, steps)
    data = jax.tree.map(jnp.asarray, task.problem.data)
    keys = [jax.random.key(seed + i) for i in range(seeds)]
    return jnp.stack([run(numbers, key, data) for key in keys])


@functools.lru_cache(maxsize=16)
def _course(task: Task, make: Callable[[Any], optax.GradientTransformation], steps: int) -> Any:
    @eqx.filter_jit
    def course(numbers: Any, key: PRNGKeyArray, data: PyTree) -> Float[Array, " steps"]:
        tx = make(numbers)
        start, order = jax.random.split(key)
        keys = jax.random.split(order, steps)
        return task.train(tx, task.begin(tx, start), data, keys)[1]

    return course


def bounded(losses: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Losses of which none counts more than `WORST`."""
    return jnp.where(jnp.isfinite(losses), jnp.minimum(losses, WORST), WORST)


def _without_readout(weight: Weight) -> Weight:
    if weight.spec.role is not Role.readout:
        return weight
    return rebuilt(weight, jnp.zeros_like(weight.value))
