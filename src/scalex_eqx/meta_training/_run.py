"""A meta-training from start to end, which may be killed and started again."""

import dataclasses
import functools
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from .._files import written_whole
from .._usage import UsageError, shown
from ..optim import LearnedRule
from ._outer import Learner, Outer, RuleOf, Settings, as_vector, learner
from ._task import Task

_KEPT_EVERY = 25

Progress = Callable[[int, float], None]
"""`progress(steps, loss)`: how many outer steps are done, and the tasks' mean loss at the last."""


class MetaTrained(NamedTuple):
    """What a meta-training has found.

    - `rule`: the learned rule.
    - `losses`: each task's mean loss at each outer step, shape `[steps, tasks]`.
    """

    rule: LearnedRule
    losses: np.ndarray


def meta_train(
    tasks: Sequence[Task],
    settings: Settings | None = None,
    *,
    rule: LearnedRule | None = None,
    keep: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> MetaTrained:
    r"""Trains an update rule to train others.

    $$\phi \leftarrow \phi - \text{Adam}(\hat g), \qquad
    \hat g \approx \nabla_\phi\, \operatorname{mean}_t L(w_t(\phi))$$

    The mean is over the steps of trainings of all tasks, which go on through several outer steps;
    see [`scalex_eqx.meta_training.pes`][]. The trainings of all tasks are one compiled call for
    each outer step, on all devices that share them evenly.

    A loss of more than 10, or that is not a number, counts 10; a gradient that is not finite moves
    nothing.

    **Arguments:**

    - `tasks`: what the rule is tried on.
    - `settings`: the usual ones if not given.
    - `rule`: where it starts; a random one of 953 parameters if not given.
    - `keep`: a file for the state, written every 25 steps. If it is there the training goes on
        from it, to the result that it would have had.
    - `progress`: called after every outer step.

    **Raises:** `UsageError` if `keep` is of another meta-training.
    """
    settings = settings or Settings()
    if not tasks:
        raise UsageError("there are no tasks to train the rule on; give at least one")
    rule = rule or LearnedRule(key=jax.random.key(settings.seed))
    vector, rule_of = as_vector(rule)
    found = _learner(tuple(tasks), dataclasses.replace(settings, seed=0), _Kind(rule))
    facts = _facts(tasks, settings, rule)
    outer, losses = found.start(vector, settings.seed), []
    if keep is not None and Path(keep).exists():
        outer, losses = _resumed(Path(keep), outer, facts)
    while len(losses) < settings.steps:
        outer, loss = found.step(outer, settings.seed)
        losses.append(np.asarray(loss))
        if progress is not None:
            progress(len(losses), float(losses[-1].mean()))
        if keep is not None and _is_kept(len(losses), settings):
            _keep(keep, outer, losses, facts)
    return MetaTrained(rule_of(jnp.asarray(np.asarray(outer.phi))), np.array(losses))


def _is_kept(done: int, settings: Settings) -> bool:
    return done % _KEPT_EVERY == 0 or done == settings.steps


class _Kind:
    """What all rules of one architecture have in common, for a cache."""

    def __init__(self, rule: LearnedRule):
        self.rule_of: RuleOf = as_vector(rule)[1]
        self._key = rule.features, rule.form, rule.layers[0].weight.shape

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kind) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@functools.lru_cache(maxsize=4)
def _learner(tasks: tuple[Task, ...], settings: Settings, kind: _Kind) -> Learner:
    """Compiled once for all seeds."""
    return learner(tasks, settings, kind.rule_of)


def _facts(tasks: Sequence[Task], settings: Settings, rule: LearnedRule) -> str:
    """A digest of what decides the result."""
    start = [np.asarray(x).tobytes().hex() for x in jax.tree.leaves(rule) if hasattr(x, "shape")]
    facts = {
        "tasks": [task.facts for task in tasks],
        "settings": repr(settings),
        "rule": [repr(rule.features), rule.form, *start],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _keep(path: Any, outer: Outer, losses: list[np.ndarray], facts: str) -> None:
    leaves = {f"leaf{i}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(outer))}
    named: dict[str, Any] = {"facts": np.array(facts), "losses": np.array(losses), **leaves}
    with written_whole(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, **named)


def _resumed(path: Path, outer: Outer, facts: str) -> tuple[Outer, list[np.ndarray]]:
    """The state of a file, placed as `outer` is."""
    leaves, treedef = jtu.tree_flatten(outer)
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["facts"]) != facts:
                raise UsageError(
                    f"{shown(path)} is the state of another meta-training: tasks, settings or the "
                    "first rule differ. Name another file, or remove it"
                )
            kept = [file[f"leaf{i}"] for i in range(len(leaves))]
            losses = list(file["losses"])
    except (KeyError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"{shown(path)} is no state of a meta-training ({error}); remove it, or name another"
        ) from None
    placed = [jax.device_put(x, like.sharding) for x, like in zip(kept, leaves, strict=True)]
    return jtu.tree_unflatten(treedef, placed), losses
