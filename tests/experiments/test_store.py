import dataclasses
import math
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from scalex_eqx._usage import UsageError
from scalex_eqx.experiments import _store
from scalex_eqx.experiments._rows import Row, run_key
from scalex_eqx.experiments._store import APPLICATION_ID, LAYOUT_VERSION, Store


def make_row(seed: int, loss: float = 2.5) -> Row:
    specification = {"learning_rate": 0.1, "seed": seed, "recipe": {"name": "standard"}}
    result = {"curve": [3.0, None, 0.1 + 0.2], "seconds": 1.5}
    return Row.of(specification, status="ok", metrics={"held_out_loss": loss}, result=result)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.sqlite"


# Rows


def test_rows_are_read_as_they_were_written(path):
    diverged = Row.of({"seed": 9}, status="diverged", metrics={}, result={"step": 7})
    rows = [make_row(0), diverged, make_row(1, loss=0.1 + 0.2)]
    with Store.open(path, create=True) as store:
        store.add(rows)
    with Store.open(str(path), create=False) as store:
        keys = [row.key for row in rows]
        assert store.rows([*keys, "unknown"]) == {row.key: row for row in rows}
        assert list(store.rows(reversed(keys))) == keys[::-1]


def test_a_number_is_stored_to_the_last_bit(path):
    """Text and bits: `repr` for floats in JSON, eight bytes for the loss."""
    loss = 2.0794415416798357
    row = Row.of(
        {"rate": 2**-4.8}, status="ok", metrics={"held_out_loss": loss}, result={"x": loss / 3}
    )
    with Store.open(path, create=True) as store:
        store.add([row])
        read = store.rows([row.key])[row.key]
    assert run_key(read.specification) == row.key
    assert (read.held_out_loss, read.result) == (loss, {"x": loss / 3})


def test_missing_keeps_the_order_and_names_each_once(path):
    with Store.open(path, create=True) as store:
        store.add([make_row(seed) for seed in range(0, 2000, 2)])
        keys = [make_row(seed).key for seed in range(2000)]
        assert store.missing([*keys, *keys]) == keys[1::2]
        assert len(store.rows(keys)) == 1000
        assert store.missing([]) == []
        assert store.rows([]) == {}


def test_a_run_that_is_there_stays_as_it_is(path):
    first, second = make_row(0, loss=1.0), make_row(0, loss=2.0)
    with Store.open(path, create=True) as store:
        store.add([first])
        store.add([second, make_row(1), make_row(1)])
        assert store.rows([first.key]) == {first.key: first}
        assert store.missing([make_row(1).key]) == []


def test_rows_are_added_all_or_none(path):
    with Store.open(path, create=True) as store:
        broken = Row.of({"seed": 1}, status="diverged", metrics={}, result={})
        store._connection.execute(
            "CREATE TRIGGER planted BEFORE INSERT ON runs WHEN new.status = 'diverged' "
            "BEGIN SELECT RAISE(ABORT, 'planted'); END"
        )
        with pytest.raises(UsageError, match="planted"):
            store.add([make_row(0), broken])
        assert len(store.missing([make_row(0).key, broken.key])) == 2
        infinite = dataclasses.replace(make_row(2), result={"curve": [math.inf]})
        with pytest.raises(UsageError, match=r"result.curve\[0\] is inf; expected a finite"):
            store.add([make_row(0), infinite])
        assert store.missing([make_row(0).key])
        store.add([make_row(0)])
        store.add([])


# Sweeps


def test_sweeps_are_kept_once_and_listed_newest_first(path, monkeypatch):
    times = iter(f"2026-01-0{day}T00:00:00.000000+00:00" for day in range(1, 10))
    monkeypatch.setattr(_store, "now", lambda: next(times))
    one, two = {"widths": [32, 64], "name": "one"}, {"widths": [128], "name": "two"}
    here, there = {"jax": "0.10.2"}, {"jax": "0.11.0"}
    with Store.open(path, create=True) as store:
        assert store.sweeps() == []
        key = store.add_sweep(one, here)
        assert store.add_sweep(two, here) != key
        assert [sweep.configuration for sweep in store.sweeps()] == [two, one]
        assert store.add_sweep(dict(reversed(one.items())), here) == key
        assert store.add_sweep(two, there) != key
    with Store.open(path, create=False) as store:
        sweeps = store.sweeps()
    assert [sweep.configuration for sweep in sweeps] == [two, one, two]
    assert [sweep.environment for sweep in sweeps] == [there, here, here]
    assert [sweep.created[9] + sweep.updated[9] for sweep in sweeps] == ["44", "13", "22"]


# Opening


def test_file_is_ours_in_wal_mode_and_alone_when_closed(path):
    with Store.open(path, create=True) as store:
        store.add([make_row(0)])
    assert os.listdir(path.parent) == [path.name]
    header = path.read_bytes()[:100]
    assert int.from_bytes(header[60:64]) == LAYOUT_VERSION
    assert int.from_bytes(header[68:72]) == APPLICATION_ID
    # The format's read and write versions, both 2 in WAL mode.
    assert header[18:20] == b"\2\2"


def test_folders_are_made_and_any_name_will_do(tmp_path):
    path = tmp_path / "new folder" / "100% ?of #them&mode=ro" / "ünï.sqlite"
    for _ in range(2):
        with Store.open(path, create=True) as store:
            store.add([make_row(0)])
    assert path.is_file()


def test_reading_makes_nothing(path):
    missing = path.parent / "folder" / "results.sqlite"
    for absent in (path, missing):
        with pytest.raises(UsageError, match="does not exist; name the store of a transfer run"):
            Store.open(absent, create=False)
    assert os.listdir(path.parent) == []


def test_a_creation_that_was_interrupted_is_taken_up(path):
    path.touch()
    with pytest.raises(UsageError, match="is empty; name the store of a transfer run"):
        Store.open(path, create=False)
    assert path.read_bytes() == b""
    with Store.open(path, create=True) as store:
        store.add([make_row(0)])


def make_database(path: Path, application: int, version: int) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE runs (key TEXT)")
        connection.execute(f"PRAGMA application_id = {application}")
        connection.execute(f"PRAGMA user_version = {version}")


# By whether runs are to be written: a file that only was to be read is not to be removed.
REMEDY = {
    True: "name another folder with --out, or remove the file",
    False: "name the store of a transfer run, or its folder",
}


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize(
    ("application", "version", "message"),
    [
        (APPLICATION_ID, LAYOUT_VERSION + 5, "layout version 7, this scalex_eqx reads versions 1"),
        (APPLICATION_ID, 0, "layout version 0, this scalex_eqx reads versions 1 to 2"),
        (0, 0, "database of another application (identifier 0x0, expected 0x53434c58)"),
        (0x47504B47, LAYOUT_VERSION, "database of another application (identifier 0x47504b47"),
    ],
)
def test_other_databases_are_left_as_they_are(path, create, mode, application, version, message):
    make_database(path, application, version)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
    before, time_before = path.read_bytes(), path.stat().st_mtime_ns
    with pytest.raises(UsageError) as caught:
        Store.open(path, create=create)
    for part in (str(path), message, REMEDY[create]):
        assert part in str(caught.value)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, time_before)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("content", [b"x", b"notes\n" * 99, b"SQLite format 3\0", bytes(5000)])
def test_files_that_are_no_databases_are_left_as_they_are(path, create, content):
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        Store.open(path, create=create)
    assert str(path) in str(caught.value)
    assert "--out" in str(caught.value)
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == [path.name]


def test_paths_that_cannot_hold_a_file(path):
    path.write_text("text")
    with pytest.raises(UsageError, match=r"(File exists|Not a directory); .* --out"):
        Store.open(path / "results.sqlite", create=True)
    with pytest.raises(UsageError, match=f"{path.parent} is not a file; .* --out"):
        Store.open(path.parent, create=True)
    path.unlink()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_unwritable_folder_and_file(tmp_path):
    folder = tmp_path / "folder"
    with Store.open(folder / "results.sqlite", create=True):
        pass
    (folder / "results.sqlite").chmod(0o400)
    with pytest.raises(UsageError, match="can be written"):
        Store.open(folder / "results.sqlite", create=True)
    folder.chmod(0o500)
    with pytest.raises(UsageError, match="can be written"):
        Store.open(folder / "others.sqlite", create=True)
    folder.chmod(0o700)


def test_a_closed_store_is_no_users_mistake(path):
    with Store.open(path, create=True) as store:
        pass
    with pytest.raises(sqlite3.ProgrammingError):
        store.rows(["key"])
