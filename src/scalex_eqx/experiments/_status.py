"""How far a store's last sweep is, and who is training."""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ._axes import WIDTH, Axis
from ._config import AbstractRuns, Member, Sweep
from ._grid import Grid, gone_through
from ._layout import Warn
from ._members import losses_in
from ._recipe import Recipe
from ._rows import SweepRow
from ._sharing import of_the_living
from ._store import Claim, Store
from ._transfer import saved_sweep
from ._tune import gone_through as tuning_gone_through
from ._tuning import Tuning
from ._until import Until, gone_through as searches_gone_through, wanted

Group = tuple[str, int]  # A recipe and a size.


@dataclass
class GroupStatus:
    """The runs of one recipe and size: each counts once, and the claimed ones are training."""

    planned: int = 0
    ok: int = 0
    diverged: int = 0
    stopped: int = 0
    claimed: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def finished(self) -> int:
        """Those that have reached their end, or diverged."""
        return self.ok + self.diverged


@dataclass(frozen=True)
class Owner:
    """Who holds how many claims, and since when the oldest of them, in Unix time."""

    name: str
    runs: int
    since: float


@dataclass(frozen=True)
class Status:
    """The last sweep of a store, over the sizes of `axis`.

    `seconds_left` is the time that the missing runs take if as many processes as hold claims go
    on, and `None` before the first run has finished.
    """

    groups: Mapping[Group, GroupStatus]
    owners: Sequence[Owner]
    seconds_left: float | None
    started: str
    axis: Axis = WIDTH


def status(path: Path, warn: Warn) -> Status:
    """What is finished and what is missing of the sweep that was started last.

    **Raises:** `UsageError` if there is no store, or no sweep in it.
    """
    with Store.open(path, create=False, warn=warn) as store:
        saved = saved_sweep(store)
        runs, members = _needed(store, saved)
        keys = runs.keys_of(members, saved.configuration["problem"])
        names = _names(runs, members)
        places = {key: (names[one.recipe], one.size) for one, key in keys.items()}
        groups = {place: GroupStatus() for place in places.values()}
        for place in places.values():
            groups[place].planned += 1
        living = of_the_living(path, store.claims())
        claims = [claim for claim in living if claim.key in places]
        for claim in claims:
            groups[places[claim.key]].claimed += 1
        for row in store.read(places):
            group = groups[places[row.key]]
            setattr(group, row.status, getattr(group, row.status) + 1)
            if row.status != "stopped" and "seconds" in row.result:
                group.seconds.append(row.result["seconds"])
    owners = _owners(claims)
    left = _seconds_left(groups, max(len(owners), 1))
    return Status(groups, owners, left, saved.updated, runs.setting.axis)


def _needed(store: Store, saved: SweepRow) -> tuple[AbstractRuns, list[Member]]:
    """What a sweep consists of, and its runs: of grids, tunings and searches for a verdict those
    that are known to be needed."""
    configuration = dict(saved.configuration)
    problem = configuration["problem"]
    if "tuning" in configuration:
        tuning = Tuning.from_json(configuration["tuning"])
        known = functools.partial(losses_in, tuning, problem, store)
        course, missing = tuning_gone_through(tuning, known)
        return tuning, [*course.losses, *missing]
    if "grid" in configuration:
        grid = Grid.from_json(configuration)
        known = functools.partial(losses_in, grid.sweep, problem, store)
        losses, missing = gone_through(grid, known)
        return grid.sweep, [*losses, *missing]
    sweep = Sweep.from_json(configuration)
    if "until_decided" not in configuration:
        return sweep, sweep.members()
    search = Until.from_json(configuration["until_decided"]).search(sweep)
    known = functools.partial(losses_in, sweep, problem, store)
    decisions, losses = searches_gone_through(sweep.recipes, search, known)
    return sweep, [*losses, *wanted(decisions)]


def _names(runs: AbstractRuns, members: Sequence[Member]) -> dict[Recipe, str]:
    """Of the recipes, by which runs are counted; all constants of a tuning are one."""
    recipes = dict.fromkeys(one.recipe for one in members)
    if isinstance(runs, Tuning):
        return dict.fromkeys(recipes, f"{runs.recipe} and its constants")
    return {recipe: str(recipe) for recipe in recipes}


def _owners(claims: Sequence[Claim]) -> list[Owner]:
    counts = Counter(claim.owner for claim in claims)
    since = {name: min(one.since for one in claims if one.owner == name) for name in counts}
    return [Owner(name, count, since[name]) for name, count in counts.items()]


def _seconds_left(groups: Mapping[Group, GroupStatus], processes: int) -> float | None:
    """A missing run takes the mean time of those of its recipe and size, or else of its size,
    or else of all."""
    by_size: dict[int, list[float]] = {}
    for (_, size), group in groups.items():
        by_size.setdefault(size, []).extend(group.seconds)
    every = [seconds for values in by_size.values() for seconds in values]
    if not every:
        return None
    left = sum(
        (group.planned - group.finished) * float(np.mean(group.seconds or by_size[size] or every))
        for (_, size), group in groups.items()
    )
    return left / processes
