"""The training of a rule: settings, state, and one step on all devices."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._usage import UsageError
from ..optim import LearnedRule, adam, global_rate
from ._estimators import ESTIMATORS, Episode, Estimator, first_particle
from ._task import Inner, Task, bounded

_AXIS = "particles"
# Apart from all numbers of trainings.
_NOW = 1 << 30

RuleOf = Callable[[Float[Array, " n"]], LearnedRule]


@dataclasses.dataclass(frozen=True)
class Settings:
    r"""How a rule is trained.

    **Arguments:**

    - `steps`: of the outer optimizer, Adam.
    - `unroll`: the steps of a training; `truncation`: those between two outer steps.
    - `pairs`: trainings of each task at a time, in antithetic pairs for `"pes"`.
    - `sigma`: the size of the perturbations.
    - `estimator`: `"pes"`, or `"unrolled"` for gradients through one truncation.
    - `learning_rate`, `warmup`, `last`: of Adam: its largest, after how many steps it is reached,
        and what share of it a cosine ends at.
    - `clip`: the largest norm of a gradient.
    - `seed`: of everything that is drawn.
    """

    steps: int = 300
    unroll: int = 100
    truncation: int = 20
    pairs: int = 8
    sigma: float = 0.01
    estimator: Estimator = "pes"
    learning_rate: float = 3e-3
    warmup: int = 20
    last: float = 1 / 3
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "unroll", "truncation", "pairs"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.unroll % self.truncation:
            raise UsageError(
                f"unroll is {self.unroll} and truncation {self.truncation}; expected a multiple, "
                "as 100 and 20"
            )
        for name in ("sigma", "learning_rate", "clip"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"{name} is {getattr(self, name)}; expected a positive number")
        if self.estimator not in get_args(Estimator):
            raise UsageError(f"estimator is {self.estimator!r}; expected 'pes' or 'unrolled'")

    def schedule(self, count: Any) -> Float[Array, ""]:
        """Adam's learning rate: a linear rise, then a cosine."""
        time = jnp.asarray(count).astype(jnp.float32) + 1
        fall = jnp.clip((time - self.warmup) / max(1, self.steps - self.warmup), 0, 1)
        cosine = self.last + (1 - self.last) * 0.5 * (1 + jnp.cos(jnp.pi * fall))
        return self.learning_rate * jnp.minimum(time / max(1, self.warmup), cosine)


class Outer(NamedTuple):
    """All that meta-training changes; the rule's numbers are one vector."""

    phi: Float[Array, " n"]
    optimizer: PyTree
    particles: tuple[PyTree, ...]
    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]


class Learner(NamedTuple):
    """A meta-training, compiled for some tasks.

    - `start`: `start(phi, seed)`, the state before the first step, on all devices.
    - `step`: `step(outer, seed)`, the state after one more, and each task's mean loss.
    """

    start: Callable[[Float[Array, " n"], int], Outer]
    step: Callable[[Outer, int], tuple[Outer, Float[Array, " tasks"]]]


def as_vector(rule: LearnedRule) -> tuple[Float[Array, " n"], RuleOf]:
    """A rule's numbers, and the function that makes a rule of them."""
    arrays, static = eqx.partition(rule, eqx.is_array)
    vector, unravel = ravel_pytree(arrays)
    return vector, lambda phi: eqx.combine(unravel(phi), static)


def learner(tasks: Sequence[Task], settings: Settings, rule_of: RuleOf) -> Learner:
    """What trains rules on some tasks, on all devices.

    **Arguments:**

    - `rule_of`: the rule of a vector.
    """
    outer_adam = _adam(settings)
    mesh = _mesh(settings.pairs)
    by_particle, everywhere = PartitionSpec(_AXIS), PartitionSpec()
    data = tuple(jax.tree.map(jnp.asarray, task.problem.data) for task in tasks)
    estimator = ESTIMATORS[settings.estimator]

    def episodes(data: Any) -> list[Episode]:
        pairs = zip(tasks, data, strict=True)
        return [episode_of(task, settings, rule_of, own) for task, own in pairs]

    @jax.jit
    def start(phi: Float[Array, " n"], seed: Any, data: Any) -> Outer:
        key, kind = jax.random.key(seed), settings.estimator

        def first(n: int, episode: Episode) -> PyTree:
            return jax.vmap(
                lambda i: first_particle(episode, phi, _training_key(key, n, i), i, kind)
            )(jnp.arange(settings.pairs))

        particles = tuple(first(n, episode) for n, episode in enumerate(episodes(data)))
        return Outer(phi, outer_adam.init(phi), particles, jnp.zeros((), jnp.int32))

    def estimates(phi, particles, count, seed, data, indices):
        key = jax.random.key(seed)

        def of_task(n: int, episode: Episode) -> Any:
            def one(particle, i):
                training = _training_key(key, n, i)
                now = jax.random.fold_in(jax.random.fold_in(training, _NOW), count)
                return estimator(episode, phi, particle, (training, now), settings.sigma)

            moved, gradient, loss = jax.vmap(one)(particles[n], indices)
            return moved, jnp.mean(gradient, axis=0), jnp.mean(loss)

        found = [of_task(n, episode) for n, episode in enumerate(episodes(data))]
        moved, gradients, losses = zip(*found, strict=True)
        gradient = jnp.mean(jnp.stack(gradients), axis=0)
        return moved, *jax.lax.pmean((gradient, jnp.stack(losses)), _AXIS)

    over_devices = jax.shard_map(
        estimates,
        mesh=mesh,
        in_specs=(everywhere, by_particle, everywhere, everywhere, everywhere, by_particle),
        out_specs=(by_particle, everywhere, everywhere),
        check_vma=False,
    )

    @jax.jit
    def step(outer: Outer, seed: Any, data: Any) -> tuple[Outer, Float[Array, " tasks"]]:
        particles, gradient, losses = over_devices(
            outer.phi, outer.particles, outer.count, seed, data, jnp.arange(settings.pairs)
        )
        gradient = clipped(gradient, settings.clip)
        updates, optimizer = outer_adam.update(gradient, outer.optimizer, outer.phi)
        phi: Any = optax.apply_updates(outer.phi, updates)
        return Outer(phi, optimizer, particles, outer.count + 1), losses

    def placed(phi: Float[Array, " n"], seed: int) -> Outer:
        outer = start(phi, jnp.asarray(seed, jnp.int32), data)
        split, whole = (NamedSharding(mesh, spec) for spec in (by_particle, everywhere))
        rest = jax.device_put(outer._replace(particles=()), whole)
        return rest._replace(particles=jax.device_put(outer.particles, split))

    return Learner(placed, lambda outer, seed: step(outer, jnp.asarray(seed, jnp.int32), data))


def episode_of(
    task: Task,
    settings: Settings,
    rule_of: RuleOf,
    data: PyTree,
) -> Episode:
    """A task's training as a function of the rule's numbers."""

    def begin(phi: Float[Array, " n"], key: PRNGKeyArray) -> Inner:
        return task.begin(task.learned(rule_of(phi)), key)

    def advance(phi, inner: Inner, key: PRNGKeyArray) -> tuple[Inner, Float[Array, ""]]:
        keys = jax.random.split(key, settings.truncation)
        inner, losses = task.train(task.learned(rule_of(phi)), inner, data, keys)
        return inner, jnp.mean(bounded(losses))

    return Episode(begin, advance, settings.unroll // settings.truncation)


def clipped(gradient: Float[Array, " n"], most: float) -> Float[Array, " n"]:
    """A gradient no longer than `most`; zero if it is not finite."""
    finite = jnp.all(jnp.isfinite(gradient))
    gradient = jnp.where(finite, gradient, 0)
    norm = jnp.linalg.norm(gradient)
    return gradient * jnp.minimum(1, most / jnp.where(norm == 0, 1, norm))


def _adam(settings: Settings) -> optax.GradientTransformation:
    return adam(
        settings.schedule,
        global_rate,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        eps_scaling="constant",
        unannotated="constant",
    )


def _training_key(key: PRNGKeyArray, task: int, index: Int[Array, ""]) -> PRNGKeyArray:
    return jax.random.fold_in(jax.random.fold_in(key, task), index)


def _mesh(pairs: int) -> Mesh:
    """As many devices as share the trainings evenly."""
    devices = jax.local_devices()
    count = max(n for n in range(1, len(devices) + 1) if pairs % n == 0)
    return Mesh(np.array(devices[:count]), (_AXIS,))
