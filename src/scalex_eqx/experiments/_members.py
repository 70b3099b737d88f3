"""Runs of a sweep by an engine: what a store lacks is trained, and kept as soon as it has ended."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from .. import _process
from .._usage import shown
from ..problems import Problem
from ._config import AbstractRuns, Member
from ._engines import Claims, Done, Engine, Local, Reporter
from ._rows import JUDGED, Row
from ._sharing import sharing
from ._store import Store
from ._train import Kept, packs

# How often it is looked what other processes have finished, in seconds; and how many times longer
# than the look itself takes.
_LOOKS = 5.0
_SELDOM = 50


@runtime_checkable
class Results(Protocol):
    """Where runs are kept: a store that processes share, or files of this process."""

    @property
    def folder(self) -> Path: ...

    def missing(self, keys: Iterable[str]) -> list[str]: ...

    def add(self, rows: Sequence[Row]) -> None: ...

    def claims(self, keys: Mapping[Member, str]) -> AbstractContextManager[Claims]: ...


class InStore:
    """A store, in which other processes may keep runs of the same sweep."""

    def __init__(self, store: Store):
        self.missing = store.missing
        self.add = store.add
        self._store = store

    @property
    def folder(self) -> Path:
        """Of the store."""
        return self._store.path.parent

    def claims(self, keys: Mapping[Member, str]) -> AbstractContextManager[Claims]:
        """What this process may train."""
        return sharing(self._store, keys)


def train_members(
    sweep: AbstractRuns,
    problem: Problem,
    members: Sequence[Member],
    store: Store | Results,
    reporter: Reporter,
    *,
    at_once: int | None = None,
    kept: Kept | None = None,
    engine: Engine | None = None,
) -> None:
    """Trains those of the runs that the store lacks; each is kept as soon as it has ended.

    Runs that other processes train are waited for, and taken over from those that die.

    **Arguments:**

    - `at_once`: how many runs train together on this process's devices.
    - `kept`: what is compiled, from one call to the next.
    - `engine`: who trains, if not this process.
    """
    results = InStore(store) if isinstance(store, Store) else store
    engine = Local(at_once) if engine is None else engine
    facts = sweep.setting.facts(problem, {one.size for one in members})
    keys = sweep.keys_of(members, facts)
    everything = packs(problem, sweep.setting, members, kept)
    left = _Left(keys, {one: x.work for x in everything for one in x.members}, results, reporter)
    waiting = [pack.of(left.members.__contains__) for pack in everything]
    waiting = [pack for pack in waiting if pack.members]
    engine.check(waiting)
    stays = (
        f"finished runs are kept in {shown(results.folder)}; the same command goes on from there"
    )
    with _process.keeping(stays), results.claims(keys) as claims:
        while waiting:
            before = len(left.members)
            for done in engine(waiting, claims, reporter, kept):
                results.add([row(sweep.specification(done.member, facts), done)])
                left.ended_here(done.member)
                left.look(claims)
            left.look(claims, at_once=True)
            waiting = [pack.of(left.members.__contains__) for pack in waiting]
            waiting = [pack for pack in waiting if pack.members]
            if waiting and len(left.members) == before:
                left.wait(claims)


def loss_of(row: Row) -> float | None:
    """What a run is judged by."""
    return row.held_out_loss


def losses_in(
    sweep: AbstractRuns,
    problem: Mapping[str, object],
    store: Store,
    members: Sequence[Member],
    noted: Callable[[Row], float | None] = loss_of,
) -> dict[Member, float | None]:
    """The losses of those of the runs that have ended.

    **Arguments:**

    - `problem`: the facts of the problem, as the sweep's setting has them.
    - `noted`: takes from each row its loss. Of a row no more is kept: there may be many.
    """
    keys = sweep.keys_of(members, problem)
    rows = store.read(keys.values())
    losses = {row.key: noted(row) for row in rows if row.status != "stopped"}
    return {one: losses[key] for one, key in keys.items() if key in losses}


class _Left:
    """The runs that have not ended, here or elsewhere."""

    def __init__(
        self,
        keys: Mapping[Member, str],
        work: Mapping[Member, float],
        results: Results,
        reporter: Reporter,
    ):
        self._keys, self._work = keys, work
        self._results, self._reporter = results, reporter
        self._said = ""
        self._due = time.monotonic() + _LOOKS
        missing = set(results.missing(keys.values()))
        self.members = {one for one, key in keys.items() if key in missing}
        done = sum((work[one] for one in keys if one not in self.members), start=0.0)
        reporter.begin(len(keys), len(keys) - len(self.members), sum(work.values()), done)

    def ended_here(self, member: Member) -> None:
        self.members.discard(member)
        self._reporter.ended(1, 0.0)

    def look(self, claims: Claims, *, at_once: bool = False) -> None:
        """Sees what others have finished, now and then or at once."""
        began = time.monotonic()
        if not at_once and (began < self._due or not claims.holders(list(self.members))):
            return
        missing = set(self._results.missing([self._keys[one] for one in self.members]))
        ended = [one for one in self.members if self._keys[one] not in missing]
        if ended:
            self._reporter.ended(len(ended), sum(self._work[one] for one in ended))
        self.members.difference_update(ended)
        now = time.monotonic()
        self._due = now + max(_LOOKS, _SELDOM * (now - began))

    def wait(self, claims: Claims) -> None:
        """Waits for a moment, since others train all that is left."""
        holders = claims.holders(list(self.members))
        said = ", ".join(f"{_counted(count)} by {name}" for name, count in holders.items())
        if said and said != self._said:
            self._reporter.say(f"waiting for what others train: {said}")
        self._said = said
        claims.look_again()


def row(specification: Mapping[str, object], done: Done) -> Row:
    """What is kept of a run that has ended."""
    trained = done.trained
    bad = ~np.isfinite(trained.training_losses)
    diverged = not trained.metrics
    return Row.of(
        specification,
        status="diverged" if diverged else "ok",
        metrics=trained.metrics or {JUDGED: None},
        result={
            "diverged_at_step": int(bad.argmax()) if bad.any() else None,
            "seconds": trained.seconds,
            "environment": dict(done.environment),
        },
        curves={"training_losses": trained.training_losses},
    )


def _counted(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"
