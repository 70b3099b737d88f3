"""Measurements as tables that can be kept, printed and compared between devices."""

import dataclasses
import json
import math
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata

from ._device import Device, describe_device

Value = str | int | float | bool | None
Row = Mapping[str, Value]

FORMAT = "scalex_eqx results"
# Raise it when files of this version can no longer be read by the code of the last.
FORMAT_VERSION = 1

_PACKAGES = ("scalex_eqx", "jax", "jaxlib", "equinox", "optax", "numpy")


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of measured values, each identified by its keys.

    **Arguments:**

    - `name`: of the table; distinct in a file.
    - `keys`: the columns that identify a row. All others are measured.
    - `columns`: all of them, in the order in which they are shown.
    - `rows`: a value for each column: text, a whole number, a float, a truth value or `None`.
    - `tolerance`: the relative difference up to which two floats count as equal when results are
        compared. Anything but a float is compared exactly.

    **Raises:** `ValueError` if a row lacks a column or has one too many, or two have equal keys.
    """

    name: str
    keys: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[Row]
    tolerance: float = 0.05

    def __post_init__(self):
        for field in ("keys", "columns", "rows"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        strange = [key for key in self.keys if key not in self.columns]
        if strange:
            raise ValueError(f"table {self.name!r}: keys {strange} are not among the columns")
        for row in self.rows:
            _check_row(self, row)
        if len(self.by_key()) < len(self.rows):
            raise ValueError(
                f"table {self.name!r}: two rows have the same {', '.join(self.keys)}; add a key"
            )

    def by_key(self) -> dict[tuple[Value, ...], Row]:
        """The rows by the values of their keys."""
        return {tuple(row[key] for key in self.keys): row for row in self.rows}

    def to_markdown(self) -> str:
        """A heading and a Markdown table."""
        lines = [self.columns, ["---"] * len(self.columns)]
        lines += [[shown(row[column]) for column in self.columns] for row in self.rows]
        cells = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"## {self.name}\n\n{cells}\n"


@dataclasses.dataclass(frozen=True)
class Results:
    """What was measured on one device.

    **Arguments:**

    - `device`: where.
    - `versions`: of the packages that matter, by name.
    - `date`: the day, in ISO format.
    - `command`: that measures it again.
    - `tables`: what came out.
    """

    device: Device
    versions: Mapping[str, str]
    date: str
    command: str
    tables: Sequence[Table]

    def __post_init__(self):
        object.__setattr__(self, "tables", tuple(self.tables))
        names = [table.name for table in self.tables]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two tables are named {twice[0]!r}; give each its own name")

    def table(self, name: str) -> Table:
        """The table of a name."""
        for table in self.tables:
            if table.name == name:
                return table
        known = ", ".join(table.name for table in self.tables)
        raise ValueError(f"there is no table {name!r}; there are: {known}")

    def to_json(self) -> str:
        """JSON, a row a line, so that a later version of the file differs in few lines."""
        head = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "device": dataclasses.asdict(self.device),
            "versions": dict(self.versions),
            "date": self.date,
            "command": self.command,
        }
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
        tables = ",\n".join(map(_table_json, self.tables))
        return "{\n" + ",\n".join(lines) + f',\n"tables": [\n{tables}\n]\n}}\n'

    @staticmethod
    def from_json(text: str) -> "Results":
        """The results that [`to_json`][scalex_eqx.diagnostics.Results.to_json] wrote.

        **Raises:** `ValueError` if the text is something else, or from a newer version.
        """
        content = _checked(text)
        tables = [
            Table(**{**table, "rows": [_decoded(row) for row in table["rows"]]})
            for table in content["tables"]
        ]
        device = Device(**content["device"])
        return Results(device, content["versions"], content["date"], content["command"], tables)

    def to_markdown(self) -> str:
        """Where, when and how, and every table."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        head = f"{self.device.chip} ({self.device.platform}), {self.date}; {versions}.\n\n"
        return head + f"`{self.command}`\n\n" + "\n".join(map(Table.to_markdown, self.tables))


def record(tables: Sequence[Table], command: str) -> Results:
    """The tables as results of this device, of the packages installed, and of today.

    **Arguments:**

    - `tables`: what was measured.
    - `command`: that measures it again.
    """
    versions = {"python": platform.python_version()}
    versions |= {package: metadata.version(package) for package in _PACKAGES}
    date = datetime.now(UTC).date().isoformat()
    return Results(describe_device(), versions, date, command, tables)


def shown(value: Value) -> str:
    """A value as a table shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", r"\|").replace("\n", " ")


def _check_row(table: Table, row: Row) -> None:
    if set(row) != set(table.columns):
        difference = sorted(set(row) ^ set(table.columns))
        raise ValueError(f"table {table.name!r}: a row and the columns differ in {difference}")
    for column, value in row.items():
        if value is not None and not isinstance(value, str | int | float):
            raise ValueError(
                f"table {table.name!r}: {column} is of type {type(value).__name__}; convert it to "
                "text, int, float or bool"
            )


def _table_json(table: Table) -> str:
    head = {
        "name": table.name,
        "keys": table.keys,
        "columns": table.columns,
        "tolerance": table.tolerance,
    }
    rows = ",\n".join(json.dumps(_encoded(row), allow_nan=False) for row in table.rows)
    return json.dumps(head)[:-1] + f', "rows": [\n{rows}\n]}}'


def _encoded(row: Row) -> dict:
    """A row with `{"float": "nan"}` for what JSON has no number for."""
    return {name: _encoded_value(value) for name, value in row.items()}


def _encoded_value(value: Value):
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(float(value))}
    return value


def _decoded(row: Mapping) -> Row:
    return {k: float(v["float"]) if isinstance(v, dict) else v for k, v in row.items()}


def _checked(text: str) -> dict:
    """The content of a file if it is ours."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"the file is not JSON ({error}); expected {FORMAT}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"the file has no format {FORMAT!r}; expected what Results.to_json wrote")
    if content.get("version") != FORMAT_VERSION:
        raise ValueError(
            f"the file has version {content.get('version')} of its format, this scalex_eqx reads "
            f"{FORMAT_VERSION}; install the scalex_eqx that wrote it, or measure again"
        )
    return content
