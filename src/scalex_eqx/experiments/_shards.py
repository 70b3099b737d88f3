"""A part of a sweep for each of several machines that share nothing but a folder."""

import dataclasses
import heapq
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from .._usage import UsageError
from ..problems import Problem
from ._config import Member, Sweep
from ._engines import Engine, Reporter, environment
from ._files_store import RowWriter, read_rows
from ._layout import Warn
from ._members import train_members
from ._rows import Row
from ._train import Pack, packs


@dataclasses.dataclass(frozen=True)
class Shard:
    """One of `count` parts of a sweep; `index` counts from 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_shard(text: str) -> Shard:
    """A shard written as `3/16`.

    **Raises:** `UsageError` if it is not, or there is no such one.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--shard is {text!r}; expected one of N, from 1/N to N/N, as 3/16")
    return Shard(int(found[1]), int(found[2]))


def dealt(packs: Sequence[Pack], count: int) -> list[list[Member]]:
    """The runs of each of `count` shards, the same on every machine.

    Heavy runs first, each goes to the shard that has the least work so far. So the work of two
    shards differs by at most one run's, and each has as many runs of each size as the others, to
    one: how fast a size trains need not be known. Runs with equal numbers, which are trained once,
    stay together.
    """
    shards: list[list[Member]] = [[] for _ in range(count)]
    loads = [(0.0, index) for index in range(count)]
    for pack in sorted(packs, key=lambda pack: -pack.work):
        for group in pack.same:
            load, index = heapq.heappop(loads)
            shards[index] += [pack.members[i] for i in group]
            heapq.heappush(loads, (load + pack.work, index))
    return shards


def train_shard(
    sweep: Sweep,
    problem: Problem,
    shard: Shard,
    folder: Path,
    reporter: Reporter,
    *,
    engine: Engine,
) -> int:
    """Trains those of a shard's runs that no file in the folder holds; returns how many it has.

    **Raises:** `UsageError` if the folder can't be written.
    """
    sweep = sweep.of(problem)
    shards = dealt(packs(problem, sweep.setting, sweep.members()), shard.count)
    members = shards[shard.index - 1]
    with appending(folder, shard, sweep.configuration(problem), reporter.say) as files:
        train_members(sweep, problem, members, files, reporter, engine=engine)
    return len(members)


@contextmanager
def appending(
    folder: Path, shard: Shard, configuration: Mapping[str, Any], warn: Warn
) -> Iterator["InFiles"]:
    """The files of a folder, to which this process adds one if it has something to train."""
    files = InFiles(folder, shard, configuration, warn)
    try:
        yield files
    finally:
        files.close()


class InFiles:
    """The runs in the files of a folder, whoever wrote them; this process appends to its own."""

    def __init__(self, folder: Path, shard: Shard, configuration: Mapping[str, Any], warn: Warn):
        self.folder = folder
        self._shard, self._configuration = shard, configuration
        self._writer: RowWriter | None = None
        found = read_rows([folder], warn) if folder.is_dir() else iter(())
        self._ended = {row.key for row in found if row.status != "stopped"}

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of the runs that were in no file in the beginning, nor added since."""
        return [key for key in dict.fromkeys(keys) if key not in self._ended]

    def add(self, rows: Sequence[Row]) -> None:
        """Appends the runs; they are on the disk when it returns."""
        assert self._writer is not None
        self._writer.add(rows)
        self._ended.update(row.key for row in rows)

    def claims(self, keys: Mapping[Member, str]) -> AbstractContextManager["Alone"]:
        """All that is missing: no other process has this shard."""
        # What can't be written fails now, and not after the first runs.
        if self._writer is None and self.missing(keys.values()):
            self._writer = RowWriter(self.folder, str(self._shard))
            self._writer.add_sweep(self._configuration, environment())
        return nullcontext(Alone(self, keys))

    def close(self) -> None:
        """Closes the file, if there is one."""
        if self._writer is not None:
            self._writer.close()


class Alone:
    """The claims of a process that shares its runs with nobody."""

    def __init__(self, files: InFiles, keys: Mapping[Member, str]):
        self._files, self._keys = files, keys

    def free(self, members: Sequence[Member]) -> list[Member]:
        """Those that have not ended."""
        missing = set(self._files.missing([self._keys[one] for one in members]))
        return [one for one in members if self._keys[one] in missing]

    take = free

    def holders(self, members: Sequence[Member]) -> dict[str, int]:
        """Nobody."""
        del members
        return {}

    def look_again(self) -> None:
        """Nobody is waited for."""

    def give_back(self, members: Sequence[Member]) -> None:
        """Nothing is held."""
        del members
