"""A grid's training, rule by rule, in rounds that each begin where the last one's losses point."""

import dataclasses
import functools
import time
from collections.abc import Iterator
from pathlib import Path

from ..problems import Problem
from ._config import Member, Setting
from ._engines import Engine, Reporter
from ._grid import Cell, Grid, gone_through
from ._members import losses_in, train_members
from ._slots import Slots, train
from ._store import Store
from ._train import Kept, check_packs, packs
from ._transfer import STORE, Round, environment


def train_grid(
    grid: Grid, problem: Problem, folder: Path, reporter: Reporter, *, engine: Engine
) -> tuple[Path, str]:
    """Trains what a grid needs and the store in `folder` lacks; other processes may do so too.

    **Returns:** the store's path, and the key of the grid's sweep in it.
    """
    sweep = grid.sweep.of(problem)
    grid = dataclasses.replace(grid, sweep=sweep)
    work = _work(grid, problem, engine)
    with Store.open(folder / STORE, create=True) as store:
        configuration = {**sweep.configuration(problem), "grid": grid.to_json()}
        key = store.add_sweep(configuration, environment())
        known = functools.partial(losses_in, sweep, problem.facts, store)
        rule, kept = "", Kept(0)
        while True:
            losses, missing = gone_through(grid, known)
            done = sum((work[one.recipe, one.size] for one in losses), start=0.0)
            left = sum((work[one.recipe, one.size] for one in missing), start=0.0)
            reporter.begin(len(losses) + len(missing), len(losses), done + left, done)
            if not missing:
                return folder / STORE, key
            if missing[0].recipe.optimizer != rule:
                # What is compiled stays in memory, and is of no use to another rule.
                rule, kept = missing[0].recipe.optimizer, Kept(len(grid.sweep.seeds))
            members = [one for one in missing if one.recipe.optimizer == rule]
            train_members(sweep, problem, members, store, Round(reporter), engine=engine, kept=kept)


def _work(grid: Grid, problem: Problem, engine: Engine) -> dict[Cell, float]:
    """The work of one run of each cell, for a grid that is found to fit."""
    setting, rate, seed = grid.sweep.setting, grid.sweep.learning_rates[0], grid.sweep.seeds[0]
    found = packs(problem, setting, [Member(*cell, rate, seed) for cell in grid.cells()])
    engine.check(found)
    return {(one.recipe, one.size): pack.work for pack in found for one in pack.members}


# Two chunks of steps: the second one is measured.
_MEASURED = 38


@dataclasses.dataclass(frozen=True)
class Foreseen:
    """What the first round of a grid takes at one width.

    **Arguments:**

    - `width`: the width.
    - `runs`, `trainings`: how many it has, and how many are left where equal ones are one.
    - `programs`: how many are compiled.
    - `seconds`, `compilation`: of one training, from a measured step, and of one program.
    """

    width: int
    runs: int
    trainings: int
    programs: int
    seconds: float
    compilation: float

    @property
    def total(self) -> float:
        """In seconds, of all trainings and compilations."""
        return self.trainings * self.seconds + self.programs * self.compilation


def foresee(grid: Grid, problem: Problem, *, at_once: int | None) -> Iterator[Foreseen]:
    """Measures a step at each width, with the first rule, and says what the first round takes.

    Nothing is stored.
    """
    setting = grid.sweep.setting.of(problem)
    rule = next(iter(grid.first))
    for width in sorted(grid.sweep.sizes):
        cells = [cell for cell in grid.cells() if cell[1] == width]
        members = [one for cell in cells for one in grid.needed(cell, {})]
        found = packs(problem, setting, members)
        check_packs(found, at_once)
        trainings = sum(len(pack.same) for pack in found)
        own = [one for one in members if one.recipe.optimizer == rule]
        seconds, compilation = _measured(own, problem, setting, at_once)
        yield Foreseen(width, len(members), trainings, len(found), seconds, compilation)


def _measured(
    members: list[Member], problem: Problem, setting: Setting, at_once: int | None
) -> tuple[float, float]:
    """Seconds of the machine for one training among many, and for the compilation."""
    (pack,) = packs(problem, dataclasses.replace(setting, steps=_MEASURED), members)
    runs = [pack.runs[first] for first, *_ in pack.same]
    slots = Slots(pack.program, runs, at_once)
    together = len(slots.slots)
    passes = []
    for _ in range(2):
        times = [time.perf_counter()]

        def progress(steps: int, loss: float, times: list[float] = times) -> None:
            times.append(time.perf_counter())

        for _ in train(
            pack.program, runs[:together], at_once=at_once, progress=progress, slots=slots
        ):
            pass
        passes.append([*times, time.perf_counter()])
    compiling, (begun, *_, before, after, ended) = passes
    step = (after - before) / slots.chunk
    # What a run takes beside its steps: its beginning and its evaluation.
    beside = max(ended - begun - _MEASURED * step, 0.0)
    seconds = (beside + setting.steps * step) / together
    return seconds, max(compiling[-1] - compiling[0] - (ended - begun), 0.0)
