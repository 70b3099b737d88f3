"""Runs in files of shards, and what becomes of them in a store."""

import dataclasses
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import scalex_eqx
from scalex_eqx import experiments, problems
from scalex_eqx._usage import UsageError
from scalex_eqx.experiments._files_store import RowWriter, read_rows
from scalex_eqx.experiments._merge import Merged, merge
from scalex_eqx.experiments._rows import Row
from scalex_eqx.experiments._store import Store


def make_row(seed: int, status: str = "ok", loss: float = 0.1 + 0.2) -> Row:
    return Row.of(
        {"recipe": "mup:adam:full", "seed": seed},
        status=status,
        metrics={"held_out_loss": loss if status == "ok" else None},
        result={"seconds": 1.5, "environment": {"jax": "0.10.2"}},
        curves={"training_losses": [1 / 3, np.nan, np.inf]},
    )


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return tmp_path / "shards"


def test_runs_are_read_as_they_were_written(shards):
    rows = [make_row(0), make_row(1, status="diverged"), make_row(2, status="stopped")]
    with RowWriter(shards, shard="3/16") as writer:
        writer.add_sweep({"widths": [32]}, {"cores": 2})
        writer.add(rows[:2])
        writer.add(rows[2:])
    assert writer.path.parent == shards and f"-{os.getpid()}-3-16-" in writer.path.name
    lines: list[str] = []
    found = list(read_rows([shards], lines.append))
    assert found == list(read_rows([writer.path], lines.append)) == rows
    assert [row.key for row in found] == [row.key for row in rows]
    np.testing.assert_array_equal(
        found[0].curves["training_losses"], np.array([1 / 3, np.nan, np.inf], np.float32)
    )
    assert lines == []


def test_two_writers_have_two_files(shards):
    with RowWriter(shards) as one, RowWriter(shards) as two:
        one.add([make_row(0)])
        two.add([make_row(1)])
    assert {row.key for row in read_rows([shards], print)} == {make_row(s).key for s in range(2)}


# Says what is on the disk, for ever.
WRITE = f"""
import itertools, sys, types
for name, path in (
    ("scalex_eqx", {list(scalex_eqx.__path__)!r}),
    ("scalex_eqx.experiments", {list(experiments.__path__)!r}),
    ("scalex_eqx.problems", {list(problems.__path__)!r}),
):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = path
from scalex_eqx.experiments._files_store import RowWriter
from scalex_eqx.experiments._rows import Row
with RowWriter(sys.argv[1]) as writer:
    for seed in itertools.count():
        metrics = {{"held_out_loss": 2.5}}
        writer.add([Row.of({{"seed": seed}}, status="ok", metrics=metrics, result={{}})])
        print(seed, flush=True)
"""


def test_what_a_killed_writer_has_added_is_there(shards):
    command = [sys.executable, "-c", WRITE, str(shards)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for _ in range(30):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        said = 30 + len(process.stdout.readlines())
    lines: list[str] = []
    found = [row.specification["seed"] for row in read_rows([shards], lines.append)]
    assert len(found) in (said, said + 1) and found == list(range(len(found)))
    assert all("torn" in line for line in lines)


def test_what_is_torn_damaged_or_foreign_is_named_and_left_out(shards):
    with RowWriter(shards) as writer:
        writer.add([make_row(seed) for seed in range(5)])
    content = writer.path.read_bytes().splitlines(keepends=True)
    changes = {
        1: content[1].replace(b"0.30000000000000004", b"0.30000000000000001"),
        2: content[2].replace(b'"seed":2', b'"seed":7'),
        3: b'[["run"]]\n',
    }
    assert all(changes[place] != content[place] for place in changes)
    for place, line in changes.items():
        content[place] = line
    writer.path.write_bytes(b"".join(content)[:-20])
    (shards / "notes.jsonl").write_bytes(b"\xff not runs\n")
    (shards / "empty.jsonl").touch()
    (shards / "others.txt").write_text("not read at all")
    lines: list[str] = []
    assert [row.specification["seed"] for row in read_rows([shards], lines.append)] == [0]
    said = "\n".join(lines)
    assert "3 of 5 lines are damaged (line 2, 3, 4), left out" in said
    assert f"{writer.path}: its last line is torn" in said
    assert f"{shards / 'notes.jsonl'} is not a file of runs" in said
    assert len(lines) == 3


def test_a_flipped_bit_is_never_another_number(shards):
    with RowWriter(shards) as writer:
        writer.add([make_row(0)])
    content = writer.path.read_bytes()
    lines: list[str] = []
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        writer.path.write_bytes(changed)
        lines.clear()
        assert [*read_rows([shards], lines.append)] == ([] if lines else [make_same(content)])


def make_same(content: bytes) -> Row:
    fields = json.loads(content)["run"]
    return Row(**{**fields, "curves": {}})


def test_a_file_that_goes_away_is_not_written_into(shards):
    with RowWriter(shards) as writer:
        writer.path.unlink()
        with pytest.raises(UsageError, match=f"{writer.path} was deleted or replaced while"):
            writer.add([make_row(0)])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_is_named_and_tears_nothing(shards, monkeypatch):
    with RowWriter(shards) as writer:
        writer.add([make_row(0)])
        write = os.write

        def full(descriptor: int, content: bytes) -> int:
            write(descriptor, content[:10])
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as context:
            context.setattr(os, "write", full)
            with pytest.raises(
                UsageError, match=f"{writer.path}: No space left on device; .* space"
            ):
                writer.add([make_row(1)])
        writer.add([make_row(2)])
    lines: list[str] = []
    assert [row.specification["seed"] for row in read_rows([shards], lines.append)] == [0, 2]
    assert lines == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        UsageError, match=r"file.*: (Not a directory|File exists); expected a folder"
    ):
        RowWriter(tmp_path / "file" / "shards")
    with pytest.raises(UsageError, match="is no file and no folder"):
        list(read_rows([tmp_path / "nowhere"], print))


# Merging


def test_shards_are_merged_and_what_differs_is_named(tmp_path, shards):
    path, lines = tmp_path / "store" / "runs.sqlite", []
    for shard in range(2):
        with RowWriter(shards, shard=f"{shard}/2") as writer:
            writer.add_sweep({"widths": [32]}, {"host": shard})
            writer.add([make_row(seed) for seed in range(shard, 10, 2)])
    assert merge(path, [shards], lines.append) == Merged(files=2, added=10)
    assert merge(path, [shards], lines.append) == Merged(files=2, there=10)
    assert lines == []
    with Store.open(path, create=False) as store:
        assert len(store.sweeps()) == 2
        rows = store.rows([make_row(seed).key for seed in range(10)], curves=True)
        assert len(rows) == 10 and all(
            list(row.curves) == ["training_losses"] for row in rows.values()
        )

    other = tmp_path / "other.jsonl"
    with RowWriter(tmp_path / "others") as writer:
        writer.add([make_row(0, loss=9.0), make_row(1, status="diverged"), make_row(2)])
        writer.add([make_row(3, status="stopped"), make_row(10, status="stopped"), make_row(10)])
    writer.path.rename(other)
    found = merge(path, [other], lines.append)
    assert (found.added, found.there, found.differing) == (1, 4, 2)
    assert len(lines) == 2 and all(str(other) in line and "mup:adam:full" in line for line in lines)
    assert "is ok with 9.0, and is ok with 0.30000000000000004 in what is there" in lines[0]
    with Store.open(path, create=False) as store:
        kept = store.rows([make_row(seed).key for seed in (0, 1, 10)], curves=True)
        assert [row.held_out_loss for row in kept.values()] == [0.1 + 0.2] * 3


def test_a_store_is_merged_as_far_as_it_can_be_read(tmp_path):
    path, damaged = tmp_path / "new.sqlite", tmp_path / "damaged.sqlite"
    with Store.open(damaged, create=True) as store:
        store.add([make_row(seed) for seed in range(200)])
        store.add_sweep({"widths": [32]}, {})
    whole = tmp_path / "whole.sqlite"
    shutil.copy(damaged, whole)
    with closing(sqlite3.connect(damaged)) as connection, connection:
        connection.execute("UPDATE runs SET metrics = '{}' WHERE key = ?", (make_row(0).key,))
    content = bytearray(damaged.read_bytes())
    size = int.from_bytes(content[16:18])
    # A leaf of the tree of runs, whose pages begin with ten.
    pages = (content.index(make_row(seed).key.encode()) // size * size for seed in range(1, 200))
    place = next(start for start in pages if content[start] == 10)
    content[place : place + 8] = b"\xff" * 8
    damaged.write_bytes(content)
    lines: list[str] = []
    found = merge(path, [damaged], lines.append)
    assert 150 < found.added < 199 and len(lines) == 2
    assert any("1 run " in line and make_row(0).key[:16] in line for line in lines)
    assert any("some runs can't be read" in line for line in lines)
    assert merge(path, [whole], lines.append) == Merged(
        files=1, added=200 - found.added, there=found.added
    )
    with Store.open(path, create=False) as store:
        assert len(store.sweeps()) == 1


def test_a_store_is_not_merged_into_itself(tmp_path):
    path = tmp_path / "runs.sqlite"
    Store.open(path, create=True).close()
    with pytest.raises(UsageError, match="is the store itself"):
        merge(path, [path], print)


def test_a_row_of_another_build_keeps_its_key(shards):
    """Its result may mean something else under the same specification."""
    row = dataclasses.replace(make_row(0), key="0" * 64)
    with RowWriter(shards) as writer:
        writer.add([row])
    assert [one.key for one in read_rows([shards], print)] == [row.key]
