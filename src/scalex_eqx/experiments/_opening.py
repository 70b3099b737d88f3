"""How a store's file is opened, to write or only to read it, and what is refused."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from .._usage import UsageError, in_shell, shown
from ._layout import APPLICATION_ID, LAYOUT_VERSION, TABLES, Warn
from ._migrate import migrate, translated

BUSY_SECONDS = 30.0
_REMEDY = "name another folder with --out, or remove the file"
_NO_RUN = "name the store of a transfer run, or its folder, which was its --out"
_DAMAGED = ("malformed", "not a database", "no such table", "no such column", "UTF-8", "corrupt")


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Errors of SQLite and of the system become a `UsageError` that names the file."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except (sqlite3.DatabaseError, OSError) as error:
        said = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        reason = " ".join(said.split())
        if isinstance(error, sqlite3.DatabaseError) and any(one in reason for one in _DAMAGED):
            raise _damaged(path, reason) from error
        raise UsageError(
            f"results file {shown(path)}: {reason}; expected a file that can be written, on a disk "
            "that has space; make it so, or name another folder with --out"
        ) from error


def _damaged(path: Path, reason: str) -> UsageError:
    return UsageError(
        f"results file {shown(path)} is damaged: {reason}; move it away, and "
        f"`scalex merge {in_shell(path)} MOVED` saves the runs in it that can be read"
    )


def to_write(path: Path, warn: Warn) -> sqlite3.Connection:
    """Opens a file that is a store then: begun if there is none, rewritten if it is of an older
    layout."""
    with reported(path):
        _check_file(path, create=True)
        with _closed_on_failure(_connect(path, "rwc")) as connection:
            _prepare(connection, path, warn)
    return connection


def to_read(path: Path, warn: Warn) -> sqlite3.Connection:
    """Opens a store without changing it; one of an older layout is translated in a copy."""
    with reported(path):
        _check_file(path, create=False)
        with _closed_on_failure(_readable(path)) as connection:
            if _is_blank(connection):
                raise UsageError(f"results file {shown(path)} is empty; {_NO_RUN}")
            if _value(connection, "PRAGMA user_version") == LAYOUT_VERSION:
                return connection
        with closing(connection), _closed_on_failure(_nameless()) as copy:
            return translated(connection, copy, path, warn)


@contextmanager
def _closed_on_failure(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    try:
        yield connection
    except BaseException:
        connection.close()
        raise


def fold_in(path: Path) -> None:
    """Moves what stands in the WAL into the file itself, which then is complete without it.

    For a process that is about to end without closing its store.
    """
    with closing(_connect(path, "rw", seconds=1)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def aside(path: Path, act: Callable[[sqlite3.Connection], object], *, seconds: float) -> None:
    """Does something in a transaction of a connection of its own, as other threads must.

    **Arguments:**

    - `seconds`: how long it waits for others' transactions.

    **Raises:** `sqlite3.Error`.
    """
    with closing(_connect(path, "rw", seconds=seconds)) as connection, connection:
        connection.execute("BEGIN IMMEDIATE")
        act(connection)


def _connect(path: Path, mode: str, *, seconds: float | None = None) -> sqlite3.Connection:
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    timeout = BUSY_SECONDS if seconds is None else seconds
    # Transactions are begun explicitly.
    return _configured(sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None))


def _configured(connection: sqlite3.Connection) -> sqlite3.Connection:
    # Damaged text need not be text.
    connection.text_factory = bytes
    return connection


def _value(connection: sqlite3.Connection, query: str) -> int:
    (value,) = connection.execute(query).fetchone()
    return value


def _readable(path: Path) -> sqlite3.Connection:
    """A connection that writes nothing into the file, wherever that is.

    Readers of a WAL need a file of locks beside it. Where none can be made nobody can write, so
    the file is read without; with a WAL that a dead process has left there, as a copy.
    """
    try:
        with _closed_on_failure(_connect(path, "rw")) as connection:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
            raise
        return _unlocked(path)
    return connection


def _unlocked(path: Path) -> sqlite3.Connection:
    wal = Path(f"{path}-wal")
    if not wal.exists() or wal.stat().st_size == 0:
        return _connect(path, "ro&immutable=1")
    with tempfile.TemporaryDirectory(prefix="scalex-") as folder:
        copy = Path(folder) / "copy.sqlite"
        shutil.copyfile(path, copy)
        shutil.copyfile(wal, f"{copy}-wal")
        with closing(_connect(copy, "rw")) as source, _closed_on_failure(_nameless()) as nameless:
            source.backup(nameless)
    return nameless


def _nameless() -> sqlite3.Connection:
    """A database on the disk that ends with its connection."""
    return _configured(sqlite3.connect("", isolation_level=None))


def _check_file(path: Path, *, create: bool) -> None:
    """Refuses a file that another program or version wrote, before anything can change it."""
    remedy = _REMEDY if create else _NO_RUN
    if not path.exists():
        if not create:
            raise UsageError(f"results file {shown(path)} does not exist; {_NO_RUN}")
        path.parent.mkdir(parents=True, exist_ok=True)
    elif not path.is_file():
        raise UsageError(f"{shown(path)} is not a file; {remedy}")
    # An empty file is what is left of a store whose creation was interrupted.
    elif path.stat().st_size > 0:
        _check_identifiers(path, remedy)


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
    if not 1 <= version <= LAYOUT_VERSION:
        raise UsageError(
            f"results file {shown(path)} has layout version {version}, this scalex_eqx reads "
            f"versions 1 to {LAYOUT_VERSION}; {remedy}"
        )


def _identifiers(path: Path) -> tuple[int, int]:
    """The two numbers in the header.

    Read through SQLite: to open and close the file otherwise would drop the locks that this
    process's connections hold on it.
    """
    uri = f"{path.resolve().as_uri()}?mode=ro"
    try:
        # An immutable file is opened without locks and without making files beside it.
        return header(f"{uri}&immutable=1")
    except sqlite3.DatabaseError:
        # Pages that are still in the WAL are overlooked, and the file can seem corrupt.
        return header(uri)


def header(uri: str) -> tuple[int, int]:
    """Application and layout version."""
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as connection:
        application = _value(connection, "PRAGMA application_id")
        return application, _value(connection, "PRAGMA user_version")


def _prepare(connection: sqlite3.Connection, path: Path, warn: Warn) -> None:
    if not _is_blank(connection):
        _check_structure(connection, path)
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        if _is_blank(connection):
            for statement in TABLES:
                connection.execute(statement)
        elif _value(connection, "PRAGMA user_version") < LAYOUT_VERSION:
            migrate(connection, path, warn)
        # Written in any case: what cannot be written fails now, and not after the first runs.
        connection.execute(f"PRAGMA user_version = {LAYOUT_VERSION}")
    # Fails only while another process does the same, and the mode is the file's for good.
    with suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.execute("PRAGMA synchronous = NORMAL")


def _check_structure(connection: sqlite3.Connection, path: Path) -> None:
    """To write into a file whose pages contradict each other would damage more of them."""
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != b"ok":
        raise _damaged(path, " ".join(found.decode("utf-8", "replace").split()))


def _is_blank(connection: sqlite3.Connection) -> bool:
    return _value(connection, "SELECT count(*) FROM sqlite_master") == 0
