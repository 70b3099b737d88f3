"""Runs in one SQLite file, a row a run, so that no finished run is lost or repeated.

The file is in WAL mode: a transaction that was committed survives the death of the process, and
reports can be read while a sweep is writing.
"""

import os
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from .._usage import UsageError, shown
from . import _claims
from ._claims import Claim as Claim
from ._layout import (
    APPLICATION_ID as APPLICATION_ID,
    LAYOUT_VERSION as LAYOUT_VERSION,
    Values,
    Warn,
    curve_values,
    intact,
    named,
    read_curves,
    read_row,
    read_sweep,
    row_values,
    sweep_values,
)
from ._opening import fold_in as fold_in, reported, to_read, to_write
from ._rows import (
    RESULT_VERSION as RESULT_VERSION,
    Curves,
    Row as Row,
    SweepRow as SweepRow,
    now,
    run_key as run_key,
    sweep_key,
)

# SQLite limits the number of parameters of a statement, to 999 in older versions.
_KEYS_PER_QUERY = 500


def _tell(line: str) -> None:
    print(f"scalex: {line}", file=sys.stderr)


@dataclass(frozen=True)
class Store:
    """The results in one file; a context manager that closes it."""

    path: Path
    _connection: sqlite3.Connection = field(repr=False)
    _warn: Warn = field(repr=False)
    # Device and inode of the file and of its WAL, once they are known.
    _files: dict[Path, tuple[int, int]] = field(repr=False)

    @classmethod
    def open(cls, path: Path | str, *, create: bool, warn: Warn = _tell) -> "Store":
        """Opens the results to read them, or with `create` to write, and begins them where there
        are none.

        A file of layout version 1 is rewritten when it is opened to write. A file that is not
        ours to write raises `UsageError` and is left as it was.

        **Arguments:**

        - `path`: of the file.
        - `create`: whether to write. Without, the file isn't changed, and may be where nothing
            can be written.
        - `warn`: is told in one line of rows that are damaged. They count as missing.
        """
        path = Path(path)
        connection = (to_write if create else to_read)(path, warn)
        files = {path: _identity(path)} if create else {}
        return cls(path, connection, warn, {name: one for name, one in files.items() if one})

    def close(self) -> None:
        """Closes the file; nothing can be read or written afterwards."""
        self._connection.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def check(self) -> None:
        """Refuses to go on with a file that is no longer where it was opened.

        What is written into a file without a name is gone with the process that writes.
        """
        for path, identity in self._files.items():
            found = _identity(path)
            if found != identity:
                what = "replaced by another file" if found else "deleted"
                raise UsageError(
                    f"results file {shown(path)} was {what} while this process wrote into it; "
                    "nothing more can be kept there: put it back, or start again"
                )

    def add(self, rows: Sequence[Row]) -> None:
        """Keeps all the rows or none; a run that is there already stays as it is.

        A run that was stopped early gives way to any other, and so does a row that is damaged.
        The claims on the runs that have ended are given back.
        """
        values = [row_values(row) for row in rows]
        with self._transaction():
            for row, texts in zip(rows, values, strict=True):
                if not self._has_ended(row.key):
                    self._replace(row, texts)
            _claims.drop(self._connection, [row.key for row in rows])

    def rows(
        self, keys: Iterable[str], *, stopped: bool = False, curves: bool = False
    ) -> dict[str, Row]:
        """Those of the runs that are there, by key, in the order asked for.

        **Arguments:**

        - `keys`: of the runs.
        - `stopped`: whether to give runs that were stopped early as well.
        - `curves`: whether to read the curves too.
        """
        wanted = list(dict.fromkeys(keys))
        found = {row.key: row for row in self.read(wanted) if stopped or row.status != "stopped"}
        if curves:
            found = {key: self._with_curves(row) for key, row in found.items()}
        return {key: found[key] for key in wanted if key in found}

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of the runs that are not there, each once, in the order asked for.

        A run that was stopped early is missing, and so is one whose row is damaged.
        """
        wanted = list(dict.fromkeys(keys))
        found = {row.key for row in self.read(wanted) if row.status != "stopped"}
        return [key for key in wanted if key not in found]

    def read(self, keys: Iterable[str] | None = None) -> Iterator[Row]:
        """The runs of these keys that are there, or all, one after the other in any order.

        Runs that were stopped early are among them. Those that are damaged are left out, with
        one line for all of them.
        """
        return self._intact(self._values(keys))

    def saved(self) -> Iterator[Row]:
        """All runs with their curves, as far as they can be read in a file whose pages are
        damaged."""
        for row in self._intact(self._readable()):
            try:
                yield self._with_curves(row)
            except UsageError:
                yield row

    def curves(self, key: str) -> Curves:
        """The curves of a run, by name."""
        return read_curves(self._select("SELECT * FROM curves WHERE key = ?", (key,)))

    def add_sweep(
        self, configuration: Mapping[str, object], environment: Mapping[str, object]
    ) -> str:
        """Records that a sweep was started, once for each environment; returns its key."""
        key, time = sweep_key(configuration, environment), now()
        self.put_sweep(SweepRow(key, configuration, environment, time, time))
        return key

    def put_sweep(self, sweep: SweepRow) -> None:
        """Keeps a sweep, from its first start to its last if it is there already."""
        with self._transaction():
            query = "SELECT * FROM sweeps WHERE key = ?"
            for values in self._connection.execute(query, (sweep.key,)).fetchall():
                known = read_sweep(values)
                if known is not None:
                    created = min(known.created, sweep.created)
                    updated = max(known.updated, sweep.updated)
                    sweep = replace(sweep, created=created, updated=updated)
            self._connection.execute("DELETE FROM sweeps WHERE key = ?", (sweep.key,))
            self._connection.execute(
                "INSERT INTO sweeps VALUES (?, ?, ?, ?, ?, ?)", sweep_values(sweep)
            )

    def sweeps(self) -> list[SweepRow]:
        """All sweeps, the one that was started last first."""
        found, damaged = [], []
        for values in self._select("SELECT * FROM sweeps ORDER BY rowid DESC", ()):
            sweep = read_sweep(values)
            if sweep is None:
                damaged.append(values)
            else:
                found.append(sweep)
        if damaged:
            self._warn(
                f"results file {shown(self.path)}: {named(damaged, 'sweep')} damaged, and left "
                "out; the same `scalex transfer` command notes it again"
            )
        return sorted(found, key=lambda sweep: sweep.updated, reverse=True)

    # Claims

    def claim(
        self, keys: Iterable[str], owner: str, seconds: float, *, at_most: int | None = None
    ) -> list[str]:
        """Takes those of the runs that have not ended and that nobody else holds.

        In one transaction: of two processes that ask for the same run, one gets it. What is held
        already by `owner` is given again.

        **Arguments:**

        - `keys`: of the runs that are wanted, each of which is given or not.
        - `owner`: who takes them; as good as `process 12 on host`.
        - `seconds`: how long they are held. `renew` goes on from then; a process that was killed
            does not, and others can take them. Clocks of machines that share a file must agree
            better than that.
        - `at_most`: how many are taken; all that there are unless given.

        **Returns:** the keys, in the order asked for.
        """
        wanted = list(dict.fromkeys(keys))
        with self._transaction():
            missing = self.missing(wanted)
            return _claims.take(self._connection, missing, owner, seconds, at_most)

    def renew(self, owner: str, seconds: float) -> list[str]:
        """Holds what `owner` has claimed for `seconds` from now; returns what that still is.

        A claim that has expired is renewed as long as nobody else has taken it.
        """
        with self._transaction():
            return _claims.renew(self._connection, owner, seconds)

    def release(self, owner: str) -> None:
        """Gives back what `owner` has claimed."""
        with self._transaction():
            _claims.release(self._connection, owner)

    def claims(self) -> list[Claim]:
        """All claims that have not expired."""
        with reported(self.path):
            return _claims.held(self._connection)

    # Inside

    def _has_ended(self, key: str) -> bool:
        """Whether there is a row of a run that was not stopped, and that is as it was written."""
        query = "SELECT * FROM runs WHERE key = ?"
        return any(
            intact(values) and values[2] != b"stopped"
            for values in self._connection.execute(query, (key,))
        )

    def _replace(self, row: Row, values: Values) -> None:
        for table in ("runs", "curves"):
            self._connection.execute(f"DELETE FROM {table} WHERE key = ?", (row.key,))
        self._connection.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        self._connection.executemany(
            "INSERT INTO curves VALUES (?, ?, ?, ?)", curve_values(row.key, row.curves)
        )

    def _with_curves(self, row: Row) -> Row:
        return replace(row, curves=self.curves(row.key))

    def _intact(self, found: Iterable[Values]) -> Iterator[Row]:
        damaged: list[Values] = []
        for values in found:
            row = read_row(values)
            if row is None:
                damaged.append(values)
            else:
                yield row
        if damaged:
            self._warn(
                f"results file {shown(self.path)}: {named(damaged, 'run')} damaged, since the "
                "checksum doesn't match, and missing therefore: the same command trains it again"
            )

    def _readable(self) -> Iterator[Values]:
        """All rows but those in parts of the tree that can't be read."""
        unread = ""
        for part in range(256):
            ends = f"{part:02x}", f"{part + 1:02x}" if part < 255 else "fg"
            try:
                yield from self._select("SELECT * FROM runs WHERE key >= ? AND key < ?", ends)
            except UsageError as error:
                unread = str(error)
        if unread:
            self._warn(f"some runs can't be read: {unread}")

    def _values(self, keys: Iterable[str] | None) -> Iterator[Values]:
        if keys is None:
            with reported(self.path):
                yield from self._connection.execute("SELECT * FROM runs")
            return
        # In the order in which they stand in the file.
        wanted = sorted(set(keys))
        for start in range(0, len(wanted), _KEYS_PER_QUERY):
            part = wanted[start : start + _KEYS_PER_QUERY]
            marks = ", ".join("?" * len(part))
            yield from self._select(f"SELECT * FROM runs WHERE key IN ({marks})", part)

    def _select(self, query: str, values: Sequence[str]) -> list[tuple[Any, ...]]:
        with reported(self.path):
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.check()
        with reported(self.path), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
        # It is made by the first transaction, and stays as long as the store is open.
        wal = Path(f"{self.path}-wal")
        identity = _identity(wal)
        if identity and wal not in self._files:
            self._files[wal] = identity


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
