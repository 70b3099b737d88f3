"""The tables of a store, and runs and sweeps as their rows.

Every row carries a checksum, made here and not by SQLite, whose files have none: a bit that flips
in a loss would be another loss.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ._rows import Curves, Row, SweepRow, canonical, checksum

# Raise it when the tables change.
LAYOUT_VERSION = 2
# "SCLX" in ASCII, in the header of the file.
APPLICATION_ID = 0x53434C58

Values = tuple[Any, ...]
# Told in one line what is damaged and left out.
Warn = Callable[[str], object]
TABLES = (
    # The rows are in the tree of their keys itself: an index beside it could lose a row.
    """CREATE TABLE runs (
        key TEXT PRIMARY KEY NOT NULL,
        specification TEXT NOT NULL,
        status TEXT NOT NULL,
        metrics TEXT NOT NULL,
        result TEXT NOT NULL,
        created TEXT NOT NULL,
        checksum BLOB NOT NULL
    ) WITHOUT ROWID""",
    # Apart, since they are most of the bytes and no report reads them.
    """CREATE TABLE curves (
        key TEXT NOT NULL,
        name TEXT NOT NULL,
        float32 BLOB NOT NULL,
        checksum BLOB NOT NULL,
        PRIMARY KEY (key, name)
    )""",
    """CREATE TABLE sweeps (
        key TEXT PRIMARY KEY NOT NULL,
        configuration TEXT NOT NULL,
        environment TEXT NOT NULL,
        created TEXT NOT NULL,
        updated TEXT NOT NULL,
        checksum BLOB NOT NULL
    )""",
    """CREATE TABLE claims (
        key TEXT PRIMARY KEY NOT NULL,
        owner TEXT NOT NULL,
        since REAL NOT NULL,
        until REAL NOT NULL
    ) WITHOUT ROWID""",
    f"PRAGMA application_id = {APPLICATION_ID}",
)


def row_values(row: Row) -> Values:
    """A run as its table has it."""
    texts = (
        row.key,
        canonical(row.specification, "specification"),
        row.status,
        canonical(row.metrics, "metrics"),
        canonical(row.result, "result"),
        row.created,
    )
    return *texts, checksum(*texts)


def curve_values(key: str, curves: Curves) -> Iterator[Values]:
    """The curves of a run as their table has them: little-endian float32."""
    for name, values in curves.items():
        content = np.asarray(values, "<f4").tobytes()
        yield key, name, content, checksum(key, name, content)


def sweep_values(sweep: SweepRow) -> Values:
    """A sweep as its table has it."""
    texts = (
        sweep.key,
        canonical(sweep.configuration, "configuration"),
        canonical(sweep.environment, "environment"),
        sweep.created,
        sweep.updated,
    )
    return *texts, checksum(*texts)


def read_row(values: Values) -> Row | None:
    """The run of a row whose values were read as bytes, or `None` if it is damaged."""
    if not intact(values):
        return None
    key, specification, status, metrics, result, created, _ = values
    return Row(
        key.decode(),
        json.loads(specification.decode()),
        status.decode(),
        json.loads(metrics.decode()),
        json.loads(result.decode()),
        created.decode(),
    )


def read_curves(rows: Iterable[Values]) -> Curves:
    """The curves of one run; one that is damaged is left out."""
    return {
        values[1].decode(): np.frombuffer(values[2], "<f4").astype(np.float32)
        for values in rows
        if intact(values)
    }


def read_sweep(values: Values) -> SweepRow | None:
    """The sweep of a row whose values were read as bytes, or `None` if it is damaged."""
    if not intact(values):
        return None
    key, configuration, environment, created, updated, _ = values
    return SweepRow(
        key.decode(),
        json.loads(configuration),
        json.loads(environment),
        created.decode(),
        updated.decode(),
    )


def intact(values: Values) -> bool:
    """Whether the last value is the checksum of the others, all of them bytes."""
    return all(type(value) is bytes for value in values) and checksum(*values[:-1]) == values[-1]


def named(damaged: Sequence[Values], noun: str) -> str:
    """How many rows, and the beginnings of the keys of some: for one line of text."""
    keys = [
        str(values[0]) if type(values[0]) is not bytes else _legible(values[0])
        for values in damaged
    ]
    shown = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
    return f"{len(keys)} {noun}{'s' if len(keys) > 1 else ''} ({shown})"


def _legible(key: bytes) -> str:
    return ascii(key[:16].decode("utf-8", "replace"))[1:-1]
