"""Puts the runs of other files into a store: of shards, of other stores, of damaged ones."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .._usage import UsageError, shown
from ._files_store import Entry, files, read_entries
from ._layout import Warn
from ._rows import Row, SweepRow
from ._store import Store

_AT_ONCE = 500
_MAGIC = b"SQLite format 3\0"


@dataclass
class Merged:
    """How many runs were new, there already, or there with other numbers; how many files, and
    how many lines were said of what was left out."""

    files: int = 0
    added: int = 0
    there: int = 0
    differing: int = 0
    warnings: int = 0


def merge(path: Path, sources: Sequence[Path], warn: Warn) -> Merged:
    """Adds the runs and sweeps in `sources` to the store, which is begun if it isn't there.

    A run that has ended stays as it is in the store, and one that has other numbers there than in
    a source is named.

    **Arguments:**

    - `path`: of the store.
    - `sources`: files of runs, folders of these, and other stores.
    - `warn`: is told in one line each what is left out or differs.

    **Raises:** `UsageError` if a source isn't there, or the store can't be written.
    """
    found = Merged()

    def noted(line: str) -> None:
        found.warnings += 1
        warn(line)

    every = list(files(sources))
    with Store.open(path, create=True, warn=noted) as store:
        for source in every:
            if os.path.samefile(source, path):
                raise UsageError(f"{shown(source)} is the store itself; name what to add to it")
            found.files += 1
            _merge_one(store, source, found, noted)
    return found


def _merge_one(store: Store, source: Path, found: Merged, warn: Warn) -> None:
    waiting: list[Row] = []
    for entry in _entries(source, warn):
        if isinstance(entry, SweepRow):
            store.put_sweep(entry)
            continue
        waiting.append(entry)
        if len(waiting) == _AT_ONCE:
            _add(store, waiting, source, found, warn)
            waiting = []
    _add(store, waiting, source, found, warn)


def _entries(source: Path, warn: Warn) -> Iterator[Entry]:
    with source.open("rb") as file:
        is_store = file.read(len(_MAGIC)) == _MAGIC
    if not is_store:
        yield from read_entries([source], warn)
        return
    try:
        with Store.open(source, create=False, warn=warn) as other:
            yield from reversed(other.sweeps())
            yield from other.saved()
    except UsageError as error:
        warn(f"{error}")


def _add(store: Store, rows: list[Row], source: Path, found: Merged, warn: Warn) -> None:
    there = store.rows([row.key for row in rows])
    new: dict[str, Row] = {}
    for row in rows:
        other = there.get(row.key) or new.get(row.key)
        if other is None or other.status == "stopped":
            new[row.key] = row
        else:
            found.there += 1
        if other is not None and _differs(other, row):
            found.differing += 1
            warn(
                f"{shown(source)}: run {row.key[:16]} {_said(row)}, and {_said(other)} in what is "
                f"there already, which stays ({_named(row)})"
            )
    store.add(list(new.values()))
    found.added += len(new)


def _differs(one: Row, other: Row) -> bool:
    if "stopped" in (one.status, other.status):
        return False
    return (one.status, one.metrics) != (other.status, other.metrics)


def _said(row: Row) -> str:
    return f"is {row.status} with {row.held_out_loss}"


def _named(row: Row) -> str:
    names = ("recipe", "sizes", "learning_rate", "seed")
    return ", ".join(
        f"{name} {row.specification[name]}" for name in names if name in row.specification
    )
