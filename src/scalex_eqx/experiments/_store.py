"""Runs in one SQLite file, a row a run, so that no finished run is lost or repeated.

The file is in WAL mode: a transaction that was committed survives the death of the process, and
reports can be read while a sweep is writing.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from ._errors import UsageError, shown
from ._rows import (
    RESULT_VERSION as RESULT_VERSION,
    Row as Row,
    SweepRow as SweepRow,
    canonical,
    now,
    run_key as run_key,
)

# Raise it when the tables change.
LAYOUT_VERSION = 1
# "SCLX" in ASCII, in the header of the file.
APPLICATION_ID = 0x53434C58

_BUSY_SECONDS = 30.0
# SQLite limits the number of parameters of a statement, to 999 in older versions.
_KEYS_PER_QUERY = 500
_REMEDY = "name another folder with --out, or remove the file"
_NO_RUN = "name the store of a transfer run, or its folder, which was its --out"
_TABLES = (
    """CREATE TABLE runs (
        key TEXT PRIMARY KEY,
        specification TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('ok', 'diverged')),
        held_out_loss REAL,
        result TEXT NOT NULL,
        created TEXT NOT NULL
    )""",
    """CREATE TABLE sweeps (
        key TEXT PRIMARY KEY,
        configuration TEXT NOT NULL,
        environment TEXT NOT NULL,
        created TEXT NOT NULL,
        updated TEXT NOT NULL
    )""",
    f"PRAGMA application_id = {APPLICATION_ID}",
)


@dataclass(frozen=True)
class Store:
    """The results in one file; a context manager that closes it."""

    path: Path
    _connection: sqlite3.Connection = field(repr=False)

    @classmethod
    def open(cls, path: Path | str, *, create: bool) -> "Store":
        """Opens the results, or with `create` begins them where there are none.

        A file that is not ours to write raises `UsageError` and is left as it was.
        """
        path = Path(path)
        with _reported(path):
            _check_file(path, create=create)
            connection = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode={'rwc' if create else 'rw'}",
                uri=True,
                timeout=_BUSY_SECONDS,
                # Transactions are begun explicitly.
                isolation_level=None,
            )
            try:
                _prepare(connection, path, create=create)
            except BaseException:
                connection.close()
                raise
        return cls(path, connection)

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

    def add(self, rows: Sequence[Row]) -> None:
        """Keeps all the rows or none; a run that is there already stays as it is."""
        values = [_row_values(row) for row in rows]
        # Not `INSERT OR IGNORE`, which would also pass over a row that breaks a constraint.
        statement = "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING"
        with self._transaction():
            self._connection.executemany(statement, values)

    def rows(self, keys: Iterable[str]) -> dict[str, Row]:
        """Those of the runs that are there, by key, in the order asked for."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, Row] = {}
        for start in range(0, len(wanted), _KEYS_PER_QUERY):
            part = wanted[start : start + _KEYS_PER_QUERY]
            marks = ", ".join("?" * len(part))
            for values in self._select(f"SELECT * FROM runs WHERE key IN ({marks})", part):
                found[values[0]] = _row(*values)
        return {key: found[key] for key in wanted if key in found}

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of the runs that are not there, each once, in the order asked for."""
        wanted = list(dict.fromkeys(keys))
        found = self.rows(wanted)
        return [key for key in wanted if key not in found]

    def add_sweep(
        self, configuration: Mapping[str, object], environment: Mapping[str, object]
    ) -> str:
        """Records that a sweep was started, once for each environment; returns its key."""
        texts = canonical(configuration, "configuration"), canonical(environment, "environment")
        key = run_key({"configuration": texts[0], "environment": texts[1]})
        statement = """INSERT INTO sweeps VALUES (?, ?, ?, ?, ?)
            ON CONFLICT (key) DO UPDATE SET updated = excluded.updated"""
        with self._transaction():
            time = now()
            self._connection.execute(statement, (key, *texts, time, time))
        return key

    def sweeps(self) -> list[SweepRow]:
        """All sweeps, the one that was started last first."""
        values = self._select("SELECT * FROM sweeps ORDER BY updated DESC, rowid DESC", ())
        return [_sweep(*entry) for entry in values]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _reported(self.path), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            yield

    def _select(self, query: str, values: Sequence[str]) -> list[tuple[Any, ...]]:
        with _reported(self.path):
            return self._connection.execute(query, values).fetchall()


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except (sqlite3.DatabaseError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"results file {shown(path)}: {reason}; expected a file that can be written, on a disk "
            "that has space; make it so, or name another folder with --out"
        ) from error


def fold_in(path: Path) -> None:
    """Moves what stands in the WAL into the file itself, which then is complete without it.

    For a process that is about to end without closing its store.
    """
    with closing(
        sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=1)
    ) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _check_file(path: Path, *, create: bool) -> None:
    """Refuses a file that another program or version wrote, before anything can change it."""
    if not path.exists():
        if not create:
            raise UsageError(f"results file {shown(path)} does not exist; {_NO_RUN}")
        path.parent.mkdir(parents=True, exist_ok=True)
    elif not path.is_file():
        raise UsageError(f"{shown(path)} is not a file; {_REMEDY}")
    # An empty file is what is left of a store whose creation was interrupted.
    elif path.stat().st_size > 0:
        _check_identifiers(path, _REMEDY if create else _NO_RUN)


def _check_identifiers(path: Path, remedy: str) -> None:
    try:
        application, version = _identifiers(path)
    except sqlite3.OperationalError:
        # It could not be read, which says nothing of what it is.
        raise
    except sqlite3.DatabaseError as error:
        raise UsageError(f"{shown(path)} is not a results file: {error}; {remedy}") from error
    if application != APPLICATION_ID:
        raise UsageError(
            f"{shown(path)} is a database of another application (identifier {application:#x}, "
            f"expected {APPLICATION_ID:#x}); {remedy}"
        )
    if version != LAYOUT_VERSION:
        raise UsageError(
            f"results file {shown(path)} has layout version {version}, this scalex_eqx reads "
            f"version {LAYOUT_VERSION}; {remedy}"
        )


def _identifiers(path: Path) -> tuple[int, int]:
    """The two numbers in the header.

    Read through SQLite: to open and close the file otherwise would drop the locks that this
    process's connections hold on it.
    """
    uri = f"{path.resolve().as_uri()}?mode=ro"
    try:
        # An immutable file is opened without locks and without making files beside it.
        return _header(f"{uri}&immutable=1")
    except sqlite3.DatabaseError:
        # Pages that are still in the WAL are overlooked, and the file can seem corrupt.
        return _header(uri)


def _header(uri: str) -> tuple[int, int]:
    with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS)) as connection:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    return application, version


def _prepare(connection: sqlite3.Connection, path: Path, *, create: bool) -> None:
    if create:
        _create_tables(connection)
    elif _is_blank(connection):
        raise UsageError(f"results file {shown(path)} is empty; {_NO_RUN}")
    # Fails only while another process does the same, and the mode is the file's for good.
    with suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.execute("PRAGMA synchronous = NORMAL")


def _create_tables(connection: sqlite3.Connection) -> None:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _TABLES if _is_blank(connection) else ():
            connection.execute(statement)
        # Written in any case: what cannot be written fails now, and not after the first runs.
        connection.execute(f"PRAGMA user_version = {LAYOUT_VERSION}")


def _is_blank(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def _row_values(row: Row) -> tuple[str | float | None, ...]:
    specification = canonical(row.specification, "specification")
    result = canonical(row.result, "result")
    return row.key, specification, row.status, row.held_out_loss, result, row.created


def _row(
    key: str, specification: str, status: str, loss: float | None, result: str, created: str
) -> Row:
    return Row(key, json.loads(specification), status, loss, json.loads(result), created)


def _sweep(key: str, configuration: str, environment: str, created: str, updated: str) -> SweepRow:
    return SweepRow(key, json.loads(configuration), json.loads(environment), created, updated)
