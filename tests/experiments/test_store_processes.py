"""The results under several processes, and under their sudden death."""

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import scalex_eqx
from scalex_eqx import experiments, problems
from scalex_eqx._usage import UsageError
from scalex_eqx.experiments import _opening
from scalex_eqx.experiments._rows import Row
from scalex_eqx.experiments._store import Store

# The packages are entered without their `__init__`s, which would import JAX in every process.
PROGRAM = f"""
import sys, types
for name, path in (
    ("scalex_eqx", {list(scalex_eqx.__path__)!r}),
    ("scalex_eqx.experiments", {list(experiments.__path__)!r}),
    ("scalex_eqx.problems", {list(problems.__path__)!r}),
):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = path
from scalex_eqx.experiments._store import Row, Store

def make_row(seed, writer=0):
    result = {{"writer": writer, "curve": [1.0] * 50}}
    return Row.of({{"seed": seed}}, status="ok", metrics={{"held_out_loss": 2.5}}, result=result)

def say(*words):
    print(*words, flush=True)

path = sys.argv[1]
"""
WRITE_FOR_EVER = """
from itertools import count
with Store.open(path, create=True) as store:
    for batch in count(int(sys.argv[2])):
        store.add([make_row(3 * batch + member) for member in range(3)])
        say(batch)
"""
STOP_INSIDE_A_TRANSACTION = """
import time
from scalex_eqx.experiments._layout import row_values
with Store.open(path, create=True) as store, store._transaction():
    for seed in range(100, 103):
        values = row_values(make_row(seed))
        store._connection.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)", values)
    say("inside")
    time.sleep(600)
"""
START_TOGETHER_AND_WRITE_THE_SAME = """
say("ready")
sys.stdin.readline()
with Store.open(path, create=True) as store:
    for seed in range(100):
        store.add([make_row(seed, writer=int(sys.argv[2]))])
"""
OPEN_AND_CLOSE = """
with Store.open(path, create=True) as store:
    store.add([make_row(1000)])
"""


@contextmanager
def running(program: str, path: Path, *arguments: object):
    command = [sys.executable, "-c", PROGRAM + program, str(path), *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def make_row(seed: int) -> Row:
    return Row.of({"seed": seed}, status="ok", metrics={"held_out_loss": 2.5}, result={})


def keys(count: int) -> list[str]:
    return [make_row(seed).key for seed in range(count)]


def line(process: subprocess.Popen) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def answer(process: subprocess.Popen) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def check_integrity(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.sqlite"


def test_committed_rows_survive_a_kill(path):
    """Killed three times at no particular moment, and each time taken up where it was."""
    batches = 0
    for wait in (0.0, 0.013, 0.131):
        with running(WRITE_FOR_EVER, path, batches) as process:
            said = [int(line(process)) for _ in range(20)]
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
            said += [int(word) for word in iter(lambda: line(process), "")]
        assert said == list(range(batches, batches + len(said)))
        assert process.returncode == -signal.SIGKILL
        acknowledged = batches + len(said)
        with Store.open(path, create=False) as store:
            found = store.rows(keys(3 * acknowledged + 30))
        # Every batch that was acknowledged, at most one more, and each of them whole.
        assert set(keys(3 * acknowledged)) <= set(found)
        assert len(found) in (3 * acknowledged, 3 * acknowledged + 3)
        assert all(row.held_out_loss == 2.5 for row in found.values())
        check_integrity(path)
        batches = len(found) // 3


def test_a_kill_within_a_transaction_leaves_none_of_it(path):
    with Store.open(path, create=True) as store:
        store.add([make_row(0)])
    with running(STOP_INSIDE_A_TRANSACTION, path) as process:
        assert line(process) == "inside"
        process.send_signal(signal.SIGKILL)
    with Store.open(path, create=True) as store:
        assert list(store.rows(keys(200))) == keys(1)
        store.add([make_row(100)])
        assert len(store.rows(keys(200))) == 2
    check_integrity(path)


def test_processes_that_start_together_share_the_file(path):
    """Each row is written by one of them whole, and none of them fails."""
    with (
        running(START_TOGETHER_AND_WRITE_THE_SAME, path, 0) as first,
        running(START_TOGETHER_AND_WRITE_THE_SAME, path, 1) as second,
        running(START_TOGETHER_AND_WRITE_THE_SAME, path, 2) as third,
    ):
        processes = (first, second, third)
        assert [line(process) for process in processes] == ["ready"] * 3
        for process in processes:
            answer(process)
        assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    with Store.open(path, create=False) as store:
        assert store.missing(keys(100)) == []
        assert len(store.rows(keys(200))) == 100
    check_integrity(path)


def test_reading_while_another_process_writes(path):
    with running(WRITE_FOR_EVER, path, 0) as process:
        line(process)
        sizes = []
        deadline = time.monotonic() + 60
        while len(set(sizes)) < 20 and time.monotonic() < deadline:
            with Store.open(path, create=False) as store:
                assert store.missing(keys(3)) == []
                sizes += store._select("SELECT count(*) FROM runs", ())[0]
    assert len(set(sizes)) == 20
    assert sizes == sorted(sizes)
    assert all(size % 3 == 0 for size in sizes)


def test_reading_while_a_transaction_is_open(path):
    with (
        Store.open(path, create=True) as writer,
        Store.open(path, create=False) as reader,
    ):
        writer.add([make_row(0)])
        with writer._transaction():
            writer._connection.execute("DELETE FROM runs")
            assert list(reader.rows(keys(1))) == keys(1)
            with Store.open(path, create=False) as another:
                assert list(another.rows(keys(1))) == keys(1)
        assert reader.rows(keys(1)) == {}


def test_a_lock_that_is_never_given_back_is_reported(path, monkeypatch):
    monkeypatch.setattr(_opening, "BUSY_SECONDS", 0.05)
    with Store.open(path, create=True) as holder, Store.open(path, create=True) as waiting:
        with holder._transaction():
            with pytest.raises(UsageError, match=f"{path}: database is locked; .*--out"):
                waiting.add([make_row(0)])
            with pytest.raises(UsageError, match="database is locked"):
                Store.open(path, create=True)
        waiting.add([make_row(0)])


def test_a_second_store_in_this_process_does_not_drop_the_locks_of_the_first(path):
    """Without them, another process would remove the WAL under the first store."""
    with Store.open(path, create=True) as store:
        store.add([make_row(0)])
        Store.open(path, create=True).close()
        with running(OPEN_AND_CLOSE, path) as process:
            assert process.wait(timeout=60) == 0
        assert path.with_name(path.name + "-wal").exists()
        store.add([make_row(1)])
    with Store.open(path, create=False) as store:
        assert store.missing([*keys(2), make_row(1000).key]) == []
    check_integrity(path)


def test_the_wal_of_a_dead_process_is_read_even_if_the_file_looks_corrupt(path, tmp_path):
    """As after a kill while pages were moved: the header counts pages not yet in the file."""
    copy = tmp_path / "copy" / path.name
    copy.parent.mkdir()
    with Store.open(path, create=True) as store:
        store.add([make_row(seed) for seed in range(500)])
        for end in ("", "-wal"):
            shutil.copy(f"{path}{end}", f"{copy}{end}")
    content = bytearray(copy.read_bytes())
    content[28:32] = (1000).to_bytes(4)
    copy.write_bytes(content)
    with pytest.raises(sqlite3.DatabaseError, match="malformed"):
        _opening.header(f"{copy.as_uri()}?mode=ro&immutable=1")
    with Store.open(copy, create=False) as store:
        assert store.missing(keys(500)) == []
    check_integrity(copy)
