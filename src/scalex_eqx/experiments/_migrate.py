"""Stores of layout 1 become stores of this one: in place, or in a copy that is only read."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np

from .._usage import shown
from . import _version1
from ._layout import TABLES, Values, Warn, curve_values, named, row_values, sweep_values
from ._rows import JUDGED, Row, SweepRow, run_key, sweep_key

_ADD_RUN = "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_ADD_CURVE = "INSERT INTO curves VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_ADD_SWEEP = "INSERT INTO sweeps VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"


def migrate(connection: sqlite3.Connection, path: Path, warn: Warn) -> None:
    """Rewrites the tables within the transaction that is open: all of it happens, or nothing.

    Rows that can't be translated stay where they are, in tables of another name.
    """
    for table in ("runs", "sweeps"):
        connection.execute(f"ALTER TABLE {table} RENAME TO {table}_1")
    for statement in TABLES:
        connection.execute(statement)
    left = _copy(connection, "_1", connection)
    for table, damaged in left.items():
        if damaged:
            connection.execute(f"CREATE TABLE {table}_unread AS SELECT * FROM {table}_1 LIMIT 0")
            marks = ", ".join("?" * len(damaged[0]))
            connection.executemany(f"INSERT INTO {table}_unread VALUES ({marks})", damaged)
        connection.execute(f"DROP TABLE {table}_1")
    _warn_of(left, path, warn)


def translated(
    source: sqlite3.Connection, target: sqlite3.Connection, path: Path, warn
) -> sqlite3.Connection:
    """`target`, an empty database, with what `source` holds."""
    for statement in TABLES:
        target.execute(statement)
    target.execute("BEGIN")
    _warn_of(_copy(source, "", target), path, warn)
    target.execute("COMMIT")
    return target


def _copy(
    source: sqlite3.Connection, ending: str, target: sqlite3.Connection
) -> dict[str, list[Values]]:
    """Copies runs and sweeps, and returns the rows of each table that are damaged."""
    left: dict[str, list[Values]] = {"runs": [], "sweeps": []}
    # The first of two that were the same but for a number that their rule didn't take.
    for values in source.execute(f"SELECT * FROM runs{ending} ORDER BY created"):
        row = _run(values)
        if row is None:
            left["runs"].append(values)
            continue
        target.execute(_ADD_RUN, row_values(row))
        target.executemany(_ADD_CURVE, curve_values(row.key, row.curves))
    for values in source.execute(f"SELECT * FROM sweeps{ending} ORDER BY rowid"):
        sweep = _sweep(values)
        if sweep is None:
            left["sweeps"].append(values)
        else:
            target.execute(_ADD_SWEEP, sweep_values(sweep))
    return left


def _warn_of(left: dict[str, list[Values]], path: Path, warn: Warn) -> None:
    for damaged, noun in ((left["runs"], "run"), (left["sweeps"], "sweep")):
        if damaged:
            warn(
                f"results file {shown(path)}: {named(damaged, noun)} of layout version 1 can't be "
                "read, and count as missing: they are damaged, or no sweep wrote them"
            )


def _run(values: Values) -> Row | None:
    try:
        key, specification, status, loss, result, created = values
        fields = json.loads(specification)
        # The key is a checksum of the specification; for the rest there was none.
        if _version1.key_of(fields).encode() != key:
            return None
        specification = _version1.specification_of(fields)
        rest = json.loads(result)
        losses = rest.pop("training_losses", None)
        curves = {} if losses is None else {"training_losses": np.array(losses, np.float32)}
        return Row(
            run_key(specification),
            specification,
            status.decode(),
            {JUDGED: loss},
            rest,
            created.decode(),
            curves,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _sweep(values: Values) -> SweepRow | None:
    try:
        key, configuration, environment, created, updated = values
        fields: dict[str, Any] = json.loads(configuration)
        hardware: dict[str, Any] = json.loads(environment)
        if _version1.sweep_key_of(fields, hardware).encode() != key:
            return None
        configuration = _version1.configuration_of(fields)
        return SweepRow(
            sweep_key(configuration, hardware),
            configuration,
            hardware,
            created.decode(),
            updated.decode(),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
