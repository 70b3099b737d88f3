"""Tuning a recipe's constants: trains what is missing, and keeps every run as any other."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._usage import UsageError
from .._weight import weights_with_paths
from ..problems import Problem
from ._config import Member
from ._course import Course, Curve
from ._engines import Engine, Reporter, environment
from ._gain import Gain, Holds, gain, judge_gain
from ._members import losses_in, train_members
from ._samplers import TOGETHER
from ._store import Store
from ._train import Kept, Pack, packs
from ._transfer import STORE, Round, Silent
from ._tuning import Octaves, Tuning


@dataclasses.dataclass(frozen=True)
class Best:
    """A recipe at its best learning rate.

    **Arguments:**

    - `recipe`, `learning_rate`: what to train with, at the base width.
    - `loss`, `spread`: mean and standard deviation over the seeds, in nats.
    """

    recipe: str
    learning_rate: float
    loss: float
    spread: float | None


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What a tuning has found.

    **Arguments:**

    - `tuning`: what was asked for.
    - `untuned`, `tuned`: by the seeds of the trials. The tuned loss is the lowest of many, and so
        is lower than it will be with other seeds.
    - `octaves`: the logarithms of the constants to the base 2, by role.
    - `trials`: the loss of all constants that were tried; infinite where a run diverged.
    - `rates`: losses by the logarithm of the learning rate, without and with the constants.
    - `gains`: with seeds that no trial has seen, at the base width and the wider ones.
    - `verdict`, `reason`: whether the gain holds at the largest; `None` where it wasn't asked.
    """

    tuning: Tuning
    untuned: Best
    tuned: Best
    octaves: dict[str, int]
    trials: dict[Octaves, float]
    rates: tuple[dict[float, float], dict[float, float]]
    gains: tuple[Gain, ...]
    verdict: Holds | None
    reason: str


def tune(
    tuning: Tuning,
    problem: Problem,
    folder: Path,
    reporter: Reporter | None = None,
    *,
    engine: Engine | None = None,
) -> Tuned:
    """Finds the constants. Every run is kept in the store of `folder`, and none is made twice.

    **Arguments:**

    - `tuning`, `problem`: what to tune, on what.
    - `folder`: where `runs.sqlite` is, or will be.
    - `reporter`: is told of progress, if given.
    - `engine`: who trains, if not this process.

    **Raises:** `UsageError` if the store can't be used, a role has no weight, Optuna is needed and
    missing, or nothing trains without diverging.
    """
    tuning = dataclasses.replace(tuning, setting=tuning.setting.of(problem))
    reporter = reporter or Silent()
    losses: dict[Member, float | None] = {}
    course = Course(tuning, losses)
    kept = Kept(expected=TOGETHER * len(tuning.seeds))
    work = work_by_width(tuning, problem, kept)
    with Store.open(folder / STORE, create=True) as store:
        facts = {"problem": problem.facts, "said": dict(problem.said)}
        store.add_sweep({"tuning": tuning.to_json(), **facts}, environment())
        for members in course.rounds():
            known = losses_in(tuning, problem.facts, store, members)
            total = _expected(course, work, [*losses, *members])
            done = math.fsum(work[one.size] for one in [*losses, *known])
            reporter.begin(len(losses) + len(members), len(losses) + len(known), total, done)
            if len(known) < len(members):
                told = Round(reporter)
                train_members(tuning, problem, members, store, told, kept=kept, engine=engine)
                known = losses_in(tuning, problem.facts, store, members)
            losses |= known
    return conclusion(course)


def gone_through(
    tuning: Tuning, known: Callable[[list[Member]], Mapping[Member, float | None]]
) -> tuple[Course, list[Member]]:
    """How far a tuning is: its course up to the first runs that are missing, and these.

    **Arguments:**

    - `known`: the losses of those of the runs that have ended.

    **Raises:** `UsageError` if Optuna is needed and missing, or nothing trains without diverging.
    """
    losses: dict[Member, float | None] = {}
    course = Course(tuning, losses)
    for members in course.rounds():
        losses |= known(members)
        missing = [one for one in members if one not in losses]
        if missing:
            return course, missing
    return course, []


def work_by_width(tuning: Tuning, problem: Problem, kept: Kept | None = None) -> dict[int, float]:
    """The work of one run, from shapes.

    **Raises:** `UsageError` for a recipe that doesn't fit the model, and a role without a weight.
    """
    setting, every = tuning.setting.of(problem), tuning.with_constants((1,) * len(tuning.roles))
    rate, seed = tuning.learning_rate, tuning.seeds[0]
    members = [Member(every, width, rate, seed) for width in tuning.widths]
    found = packs(problem, setting, members, kept)
    _check_roles(tuning, problem, found[0])
    return {pack.members[0].size: pack.work for pack in found}


def _check_roles(tuning: Tuning, problem: Problem, pack: Pack) -> None:
    weights = weights_with_paths(pack.program.shapes).values()
    there = {str(weight.spec.role) for weight in weights}
    for role in tuning.roles:
        if role not in there:
            having = ", ".join(sorted(there))
            raise UsageError(
                f"--roles has {role}, but no weight of the problem {problem.name} has that role; "
                f"choose from {having}"
            )


def _expected(course: Course, work: Mapping[int, float], members: Sequence[Member]) -> float:
    """How much work there will be: what the course usually asks for, or what it has asked for."""
    tuning = course.tuning
    # Seven rates of the first curve, five of the others; two rounds of neighbours.
    at_base = 7 + tuning.trials + 4 * len(tuning.roles) + 5
    total = at_base * len(tuning.seeds) * work[tuning.widths[0]]
    if tuning.check_widths:
        total += sum(2 * 5 * tuning.check_seeds * work[width] for width in tuning.widths)
    return max(total, math.fsum(work[one.size] for one in members))


def conclusion(course: Course) -> Tuned:
    """What a tuning that is through has found."""
    tuning = course.tuning
    gains = tuple(
        gain(width, *(course.by_seed(c, course.best_step(c)) for c in pair))
        for width, pair in course.checks.items()
    )
    verdict, reason = judge_gain(gains) if gains else _nothing_to_hold(course)
    return Tuned(
        tuning=tuning,
        untuned=_best(course, course.untuned),
        tuned=_best(course, course.tuned),
        octaves=dict(zip(tuning.roles, course.best, strict=True)),
        trials=dict(course.trials),
        rates=(_rates(course, course.untuned), _rates(course, course.tuned)),
        gains=gains,
        verdict=verdict,
        reason=reason,
    )


def _nothing_to_hold(course: Course) -> tuple[Holds | None, str]:
    if not course.tuning.check_widths:
        return None, ""
    return Holds.CANNOT_TELL, "no constants were better than those given: there is no gain"


def _best(course: Course, curve: Curve) -> Best:
    step = course.best_step(curve)
    losses: list[Any] = list(course.by_seed(curve, step).values())
    spread = float(np.std(losses, ddof=1)) if len(losses) > 1 else None
    return Best(str(curve.recipe), course.tuning.rate(step), course.mean(curve, step), spread)


def _rates(course: Course, curve: Curve) -> dict[float, float]:
    steps = sorted(course.steps[curve])
    return {math.log2(course.tuning.rate(step)): course.mean(curve, step) for step in steps}
