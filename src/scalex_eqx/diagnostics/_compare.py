import dataclasses
import math

from ._results import Results, Row, Table, Value


@dataclasses.dataclass(frozen=True)
class TableDifference:
    """In what two tables of a name differ.

    **Arguments:**

    - `name`: the tables'.
    - `cells`: for each that differs its row's keys, its column, and the two values as `first` and
        `second`.
    - `only_first`, `only_second`: the keys of rows that only one has. A table that one lacks
        has no rows there.
    """

    name: str
    cells: tuple[Row, ...]
    only_first: tuple[Row, ...]
    only_second: tuple[Row, ...]


def compare(first: Results, second: Results) -> tuple[TableDifference, ...]:
    """The tables in which two results differ, with the cells that do; empty if none does.

    Floats within the table's `tolerance` of each other count as equal, and so do two NaN.
    """
    names = dict.fromkeys(table.name for table in (*first.tables, *second.tables))
    differences = [_difference(name, _find(first, name), _find(second, name)) for name in names]
    return tuple(d for d in differences if d.cells or d.only_first or d.only_second)


def _find(results: Results, name: str) -> Table | None:
    return next((table for table in results.tables if table.name == name), None)


def _difference(name: str, first: Table | None, second: Table | None) -> TableDifference:
    known = first or second
    assert known is not None
    if first and second and first.keys != second.keys:
        raise ValueError(
            f"table {name!r} has the keys {first.keys} in one file and {second.keys} in the "
            "other; measure both with one version"
        )
    a, b = ({} if table is None else table.by_key() for table in (first, second))
    cells = [cell for key in a if key in b for cell in _cells(known, dict(a[key]), dict(b[key]))]
    return TableDifference(
        name,
        tuple(cells),
        tuple(_keys_of(known, key) for key in a if key not in b),
        tuple(_keys_of(known, key) for key in b if key not in a),
    )


def _keys_of(table: Table, key: tuple[Value, ...]) -> Row:
    return dict(zip(table.keys, key, strict=True))


def _cells(table: Table, a: Row, b: Row) -> list[Row]:
    """The cells of a row in which two results differ."""
    keys = {key: a[key] for key in table.keys}
    columns = [column for column in dict.fromkeys((*a, *b)) if column not in keys]
    return [
        {**keys, "column": column, "first": a.get(column), "second": b.get(column)}
        for column in columns
        if not _equal(a.get(column), b.get(column), table.tolerance)
    ]


def _equal(a: Value, b: Value, tolerance: float) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        both_nan = math.isnan(a) and math.isnan(b)
        return both_nan or math.isclose(a, b, rel_tol=tolerance)
    return type(a) is type(b) and a == b
