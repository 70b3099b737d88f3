import json
import math

import numpy as np
import pytest

from scalex_eqx.diagnostics import Device, Results, Table, compare, describe_device, record

COLUMNS = ("rule", "scale", "ratio", "verdict", "fine", "missing")


def table(name="first", /, **changes):
    rows: list[dict] = [
        {"rule": "a", "scale": 1, "ratio": 0.25, "verdict": "x | y", "fine": True, "missing": None},
        {"rule": "a", "scale": 2, "ratio": math.nan, "verdict": "", "fine": False, "missing": None},
        {"rule": "b", "scale": 1, "ratio": -math.inf, "verdict": "", "fine": True, "missing": 3},
    ]
    rows[0] |= changes
    return Table(name, ("rule", "scale"), COLUMNS, rows)


def results(*tables):
    return Results(Device("Chip(R) X-1", "cpu"), {"jax": "1.2"}, "2020-01-02", "make it", tables)


def test_json_gives_back_what_went_in():
    written = results(table(), Table("empty", ("a",), ("a", "b"), []))
    read = Results.from_json(written.to_json())
    assert compare(written, read) == ()
    assert read.device == written.device and read.date == written.date
    assert read.command == "make it" and read.versions == {"jax": "1.2"}
    assert [(t.name, t.keys, t.columns) for t in read.tables] == [
        (t.name, t.keys, t.columns) for t in written.tables
    ]
    values = [float(str(row["ratio"])) for row in read.table("first").rows]
    assert values[0] == 0.25 and math.isnan(values[1]) and values[2] == -math.inf
    first = read.table("first").rows[0]
    assert first["fine"] is True and first["missing"] is None and first["scale"] == 1


def test_json_is_strict_and_a_row_a_line():
    text = results(table()).to_json()

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    json.loads(text, parse_constant=refuse)
    assert sum(line.startswith('{"rule"') for line in text.splitlines()) == 3


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "is not JSON"),
        ("[]", "no format"),
        ('{"format": "other"}', "no format"),
        ('{"format": "scalex_eqx results", "version": 99}', "version 99"),
    ],
)
def test_foreign_and_newer_files_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Results.from_json(text)


def test_what_differs_is_found_and_nothing_else():
    # Within the tolerance of 5 %, and beyond it.
    assert compare(results(table()), results(table(ratio=0.26))) == ()
    (found,) = compare(results(table()), results(table(ratio=0.28)))
    assert found.cells == (
        {"rule": "a", "scale": 1, "column": "ratio", "first": 0.25, "second": 0.28},
    )
    # Whole numbers, text and truth are compared exactly; 1 is not True.
    changes: list[dict] = [{"verdict": "x"}, {"fine": False}, {"missing": 1}, {"fine": 1}]
    for change in changes:
        (found,) = compare(results(table()), results(table(**change)))
        assert [cell["column"] for cell in found.cells] == list(change)
    (found,) = compare(results(table()), results(table(ratio=math.nan)))
    assert len(found.cells) == 1


def test_rows_and_tables_of_only_one_are_listed():
    (found,) = compare(results(table()), results(table(scale=7)))
    assert found.only_first == ({"rule": "a", "scale": 1},)
    assert found.only_second == ({"rule": "a", "scale": 7},)
    assert found.cells == ()
    (found,) = compare(results(table()), results(table(), table("second")))
    assert found.name == "second" and len(found.only_second) == 3 and not found.only_first


def test_tables_whose_keys_differ_are_refused():
    other = Table("first", ("rule",), ("rule", "scale"), [{"rule": "a", "scale": 1}])
    with pytest.raises(ValueError, match="has the keys"):
        compare(results(table()), results(other))


@pytest.mark.parametrize(
    "keys, rows, message",
    [
        (("z",), [], "keys \\['z'\\] are not among the columns"),
        (("a",), [{"a": 1}], "differ in \\['b'\\]"),
        (("a",), [{"a": 1, "b": 2}, {"a": 1, "b": 3}], "two rows have the same a"),
    ],
)
def test_a_wrong_table_is_refused(keys, rows, message):
    with pytest.raises(ValueError, match=message):
        Table("wrong", keys, ("a", "b"), rows)


def test_numpy_numbers_are_no_values():
    with pytest.raises(Exception, match="float32"):
        row: dict = {"a": np.float32(1)}
        Table("wrong", ("a",), ("a",), [row])


def test_two_tables_of_a_name_and_an_unknown_name_are_refused():
    with pytest.raises(ValueError, match="two tables are named 'first'"):
        results(table(), table())
    with pytest.raises(ValueError, match="there are: first"):
        results(table()).table("third")


def test_markdown():
    text = results(table()).to_markdown()
    assert text.startswith("Chip(R) X-1 (cpu), 2020-01-02; jax 1.2.")
    assert "| a | 1 | 0.25 | x \\| y | yes |  |" in text
    assert "| b | 1 | -inf |  | yes | 3 |" in text


def test_a_device_is_named_by_its_chip():
    assert Device("Intel(R) Xeon(R) CPU @ 2.20GHz", "cpu").slug == "cpu-intel-xeon-cpu-2-20ghz"
    assert Device("NVIDIA H100 80GB HBM3", "gpu").slug == "gpu-nvidia-h100-80gb-hbm3"
    device = describe_device()
    assert device.chip and record([], "x").device == device
