"""Damaged rows, files that go away, full disks, places that can only be read, and claims."""

import importlib.util
import io
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

import scalex_eqx
from scalex_eqx import experiments, problems
from scalex_eqx._usage import UsageError
from scalex_eqx.experiments import _claims, report
from scalex_eqx.experiments._rows import Row
from scalex_eqx.experiments._store import Store
from scalex_eqx.experiments._transfer import STORE

HERE = Path(__file__).parent


def make_row(seed: int, status: str = "ok", loss: float = 2.5) -> Row:
    return Row.of(
        {"seed": seed},
        status=status,
        metrics={"held_out_loss": loss if status == "ok" else None},
        result={"seconds": 1.0},
        curves={"training_losses": [3.0, float("nan"), 0.1 + seed]},
    )


def keys(count: int) -> list[str]:
    return [make_row(seed).key for seed in range(count)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / STORE


def change(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement, values).rowcount == 1


# Rows


@pytest.mark.parametrize(
    "changed",
    [
        "specification = replace(specification, '1', '2')",
        "status = 'diverged'",
        "metrics = replace(metrics, '2.5', '2.4')",
        "metrics = 7",
        "metrics = CAST(x'ff' AS TEXT)",
        "result = '{}'",
        "created = replace(created, '20', '21')",
        "checksum = x'0102030405060708'",
        "checksum = NULL",
        "checksum = ''",
    ],
)
def test_a_row_that_was_changed_counts_as_missing_and_is_named(path, changed):
    lines: list[str] = []
    with Store.open(path, create=True, warn=lines.append) as store:
        store.add([make_row(seed) for seed in range(3)])
        assert lines == []
    if "NULL" in changed:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute(
                "UPDATE sqlite_master SET sql = replace(sql, 'checksum BLOB NOT NULL', "
                "'checksum BLOB')"
            )
    change(path, f"UPDATE runs SET {changed} WHERE key = ?", keys(3)[1])
    with Store.open(path, create=True, warn=lines.append) as store:
        assert store.missing(keys(3)) == [keys(3)[1]]
        (line,) = lines
        assert str(path) in line and keys(3)[1][:16] in line and "1 run " in line
        again = make_row(1)
        store.add([again, make_row(0, loss=9.0)])
        lines.clear()
        rows = store.rows(keys(3))
        assert rows[again.key] == again
        assert rows[keys(1)[0]].held_out_loss == 2.5
    assert lines == []


def test_a_sweep_that_was_changed_is_named_and_written_again(path):
    lines: list[str] = []
    with Store.open(path, create=True, warn=lines.append) as store:
        store.add_sweep({"widths": [32]}, {})
    change(path, "UPDATE sweeps SET configuration = replace(configuration, '3', '4')")
    with Store.open(path, create=True, warn=lines.append) as store:
        assert store.sweeps() == []
        assert "1 sweep " in lines[0]
        store.add_sweep({"widths": [32]}, {})
        assert [sweep.configuration for sweep in store.sweeps()] == [{"widths": [32]}]
    assert len(lines) == 1


def test_a_curve_that_was_changed_is_left_out(path):
    with Store.open(path, create=True) as store:
        store.add([make_row(0), make_row(1)])
    change(path, "UPDATE curves SET float32 = x'00000000' WHERE key = ?", keys(1)[0])
    with Store.open(path, create=False) as store:
        curves = [row.curves for row in store.rows(keys(2), curves=True).values()]
    assert [list(one) for one in curves] == [[], ["training_losses"]]
    assert curves[1]["training_losses"].tolist() == pytest.approx(
        [3, float("nan"), 1.1], nan_ok=True
    )


def test_single_bits_of_a_store(tmp_path):
    """A small part of what `tests/robustness/store_flips.py` does."""
    script = robustness("store_flips")
    found = script.run(24, tmp_path)
    assert sum(sum(outcomes.values()) for outcomes in found.values()) == 48
    assert {outcome for outcomes in found.values() for outcome in outcomes} <= set(script.GOOD)
    # The control: each flip in a row that is reported is seen.
    assert found["report, text of a row"] == {"one line": 12}


def robustness(name: str) -> ModuleType:
    file = HERE.parent / "robustness" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_that_contradict_each_other_are_not_written_into(path):
    with Store.open(path, create=True) as store:
        store.add([make_row(seed) for seed in range(200)])
    content = bytearray(path.read_bytes())
    page = int.from_bytes(content[16:18])
    # The number of cells of each page but the first.
    for start in range(page, len(content), page):
        content[start + 3 : start + 5] = b"\xff\xff"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=f"{path} is damaged: .*; move it away, and `scalex merge"):
        Store.open(path, create=True)
    assert path.read_bytes() == content


# Runs that were stopped early


def test_a_run_that_was_stopped_is_never_taken_for_finished(path):
    stopped, finished = make_row(0, status="stopped"), make_row(0)
    with Store.open(path, create=True) as store:
        store.add([stopped])
        assert store.rows([stopped.key]) == {}
        assert store.missing([stopped.key]) == [stopped.key]
        assert store.rows([stopped.key], stopped=True) == {stopped.key: stopped}
        assert store.claim([stopped.key], "me", 60.0) == [stopped.key]
        later = make_row(0, status="stopped")
        store.add([later])
        assert store.rows([stopped.key], stopped=True) == {stopped.key: later}
        store.add([finished])
        assert store.rows([stopped.key]) == {stopped.key: finished}
        store.add([stopped])
        assert store.rows([stopped.key], stopped=True) == {stopped.key: finished}


# Files


@pytest.mark.parametrize(("act", "said"), [("delete", "deleted"), ("replace", "replaced")])
@pytest.mark.parametrize("name", [STORE, f"{STORE}-wal"])
def test_a_store_that_goes_away_is_not_written_into(path, act, said, name):
    with Store.open(path, create=True) as store:
        store.add([make_row(0)])
        store.check()
        target = path.with_name(name)
        if act == "replace":
            shutil.copy(target, path.with_name("copy"))
            path.with_name("copy").replace(target)
        else:
            target.unlink()
        for write in (
            store.check,
            lambda: store.add([make_row(1)]),
            lambda: store.add_sweep({}, {}),
            lambda: store.claim(keys(2), "me", 60.0),
        ):
            with pytest.raises(UsageError, match=f"{target} was {said}.* while this process"):
                write()


def test_a_full_disk_is_named_and_loses_nothing(path):
    with Store.open(path, create=True) as store:
        store.add([make_row(0)])
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(UsageError, match=f"{path}: database or disk is full; .* has space"):
            store.add([make_row(seed) for seed in range(1, 100)])
        assert store.missing(keys(2)) == keys(2)[1:]


@contextmanager
def unprivileged() -> Iterator[None]:
    """As somebody who owns nothing, if this is the superuser, who may write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that others may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.mark.parametrize("left_by", ["a process that ended", "a process that was killed"])
@pytest.mark.parametrize("layout", [1, 2])
def test_a_report_from_where_nothing_can_be_written(open_folder, tmp_path, left_by, layout):
    folder = open_folder / "read only"
    folder.mkdir()
    shutil.copy(HERE / "store_version_1.sqlite", folder / STORE)
    if layout == 2:
        Store.open(folder / STORE, create=True).close()
    if left_by == "a process that was killed":
        # Its last transaction is in the WAL alone.
        with closing(sqlite3.connect(folder / STORE)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            with connection:
                connection.execute(
                    "DELETE FROM sweeps WHERE rowid < (SELECT max(rowid) FROM sweeps)"
                )
            for end in ("", "-wal"):
                shutil.copy(folder / f"{STORE}{end}", tmp_path / f"kept{end}")
        for end in ("", "-wal"):
            shutil.move(tmp_path / f"kept{end}", folder / f"{STORE}{end}")
    content = {one.name: one.read_bytes() for one in folder.iterdir()}
    for one in folder.iterdir():
        one.chmod(0o444)
    folder.chmod(0o555)
    said = io.StringIO()
    with unprivileged():
        assert not os.access(folder, os.W_OK)
        analyses = report(folder, Console(file=said, width=200))
        with Store.open(folder / STORE, create=False) as store:
            assert len(store.sweeps()) == (1 if "killed" in left_by else 2)
    folder.chmod(0o755)
    assert [one.recipe for one in analyses] == ["standard:adam:full", "mup:sgd:none"]
    assert "can't be written: no files are" in said.getvalue()
    assert {one.name: one.read_bytes() for one in folder.iterdir()} == content


# Claims


def test_a_claim_is_held_until_it_expires_or_the_run_ends(path, monkeypatch):
    time = 1e9
    monkeypatch.setattr(_claims.time, "time", lambda: time)
    with Store.open(path, create=True) as store:
        store.add([make_row(0)])
        assert store.claim(keys(4)[:3], "me", 60.0) == keys(3)[1:]
        assert store.claim(keys(4), "you", 60.0) == keys(4)[3:]
        assert store.claim(keys(4), "me", 60.0) == keys(3)[1:]
        time += 50
        assert store.renew("me", 60.0) == sorted(keys(3)[1:])
        time += 50
        # Yours has expired, and nobody has taken it.
        assert [claim.owner for claim in store.claims()] == ["me", "me"]
        assert store.renew("you", 60.0) == keys(4)[3:]
        store.add([make_row(1)])
        assert store.claim(keys(4), "they", 60.0) == []
        time += 61
        assert store.claim(keys(4), "they", 60.0) == keys(4)[2:]
        assert store.renew("me", 60.0) == store.renew("you", 60.0) == []
        assert {claim.since for claim in store.claims()} == {time}
        store.release("they")
        assert store.claims() == []


def test_a_claim_that_damage_made_endless_is_nobodys(path):
    with Store.open(path, create=True) as store:
        store.claim(keys(1), "me", 60.0)
        store._connection.execute("UPDATE claims SET until = 1e300")
        assert store.claims() == []
        assert store.claim(keys(1), "you", 60.0) == keys(1)


# Claims two runs at a time, "trains" each for a moment, and says what it trained.
TRAIN = f"""
import os, sys, time, types
for name, path in (
    ("scalex_eqx", {list(scalex_eqx.__path__)!r}),
    ("scalex_eqx.experiments", {list(experiments.__path__)!r}),
    ("scalex_eqx.problems", {list(problems.__path__)!r}),
):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = path
from scalex_eqx.experiments._store import Row, Store

def make_row(seed):
    metrics = {{"held_out_loss": 2.5}}
    return Row.of({{"seed": seed}}, status="ok", metrics=metrics, result={{"by": os.getpid()}})

rows = {{row.key: row for row in map(make_row, range(60))}}
owner = f"process {{os.getpid()}}"
with Store.open(sys.argv[1], create=True) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    while missing := store.missing(rows):
        for key in store.claim(missing, owner, 1.0, at_most=2):
            print(key, flush=True)
            if len(sys.argv) > 2:
                time.sleep(600)
            time.sleep(0.002)
            store.add([rows[key]])
"""


def test_two_processes_never_train_the_same_run(path):
    """A third one is killed in the middle, and what it held is trained by the others."""

    def start(*arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-c", TRAIN, str(path), *arguments]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert process.stdout and process.stdout.readline() == "ready\n"
        return process

    def begin(process: subprocess.Popen) -> None:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()

    killed = start("and be killed")
    begin(killed)
    assert killed.stdout
    lost = killed.stdout.readline().strip()
    others = [start(), start()]
    killed.kill()
    killed.communicate()
    for process in others:
        begin(process)
    trained = [process.communicate(timeout=60)[0].split() for process in others]
    assert [process.returncode for process in others] == [0, 0]
    assert sorted(trained[0] + trained[1]) == sorted(keys(60))
    assert lost in trained[0] + trained[1]
    # Or the one had waited until the other was done.
    assert all(trained)
