"""Several processes on one store: none trains what another holds, and the dead hold nothing."""

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import datetime

import pytest

from scalex_eqx.experiments import Setting, Sweep, _alive, _sharing, parse_recipe, transfer
from scalex_eqx.experiments._alive import dead, living
from scalex_eqx.experiments._sharing import of_the_living, sharing
from scalex_eqx.experiments._store import Store
from scalex_eqx.experiments._transfer import STORE

SWEEP = Sweep(
    recipes=(parse_recipe("standard:adam:full"),),
    sizes=(8, 16),
    learning_rates=(0.01, 0.02, 0.04),
    seeds=(0,),
    setting=Setting(base_width=8, steps=4),
)


@pytest.fixture(scope="module")
def rows(tiny, tmp_path_factory):
    """All rows of the sweep, of a process that was alone."""
    folder = tmp_path_factory.mktemp("alone")
    transfer(SWEEP, tiny, folder, at_once=1)
    with Store.open(folder / STORE, create=False) as store:
        return list(store.saved())


def begun(folder, rows, count):
    """A store with all rows but the first `count`, and the keys of these."""
    with Store.open(folder / STORE, create=True) as store:
        store.add(rows[count:])
    return [row.key for row in rows[:count]]


def test_what_another_holds_is_waited_for(tiny, rows, noted, tmp_path):
    keys = begun(tmp_path, rows, 3)
    with Store.open(tmp_path / STORE, create=True) as store, living(tmp_path) as other:
        store.claim(keys[:2], other, 1000.0)
        told = noted()
        ended = threading.Event()

        def train():
            transfer(SWEEP, tiny, tmp_path, told, at_once=1)
            ended.set()

        thread = threading.Thread(target=train)
        thread.start()
        deadline = time.monotonic() + 120
        while not told.lines and time.monotonic() < deadline:
            time.sleep(0.02)
        assert told.lines == [f"waiting for what others train: 2 runs by {other}"]
        assert not ended.is_set()
        store.add(rows[:2])
        thread.join(timeout=120)
    assert ended.is_set()
    # It has trained the one that was free.
    assert [runs for _, runs in told.groups] == [1]
    assert told.count[0] == (3, 6) and told.count[-1] == (6, 6)
    assert told.work == pytest.approx(told.all)


@pytest.mark.parametrize("seconds", [3.0, 1000.0])
def test_what_a_dead_process_held_is_taken_over(tiny, rows, noted, tmp_path, seconds, monkeypatch):
    """At once where there are locks, and else when its claims have expired."""
    keys = begun(tmp_path, rows, 2)
    with Store.open(tmp_path / STORE, create=True) as store:
        with living(tmp_path) as owner:
            pass
        if seconds > 100:
            (tmp_path / f".trains-{owner.split(', ')[1]}").touch()
        else:
            owner = "process 1 on elsewhere"
            monkeypatch.setattr(_alive, "fcntl", None)
        store.claim(keys, owner, seconds)
        until = store.claims()[0].until
        assert len(of_the_living(tmp_path / STORE, store.claims())) == (0 if seconds > 100 else 2)
        told = noted()
        transfer(SWEEP, tiny, tmp_path, told, at_once=1)
        assert sum(runs for _, runs in told.groups) == 2
        assert store.claims() == []
        if seconds < 100:  # Nobody knew better than to wait.
            began = min(row.created for row in store.read(keys))
            assert datetime.fromisoformat(began).timestamp() > until
        assert {row.key: row.metrics for row in store.read()} == {
            row.key: row.metrics for row in rows
        }
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".trains")] == []


def test_claims_are_renewed_and_given_back(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(_sharing, "HELD", 1000.0)
    monkeypatch.setattr(_sharing, "_RENEWED", 0.05)
    keys = begun(tmp_path, rows, 2)
    members = dict(zip(SWEEP.members(), keys, strict=False))
    with Store.open(tmp_path / STORE, create=True) as store:
        with sharing(store, members) as claims:
            assert claims.free(list(members)) == claims.take(list(members)) == list(members)
            first = {claim.key: claim.until for claim in store.claims()}
            assert set(first) == set(keys)
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                if all(claim.until > first[claim.key] for claim in store.claims()):
                    break
                time.sleep(0.02)
            assert all(claim.until > first[claim.key] for claim in store.claims())
            claims.give_back(list(members)[:1])
            assert [claim.key for claim in store.claims()] == keys[1:]
        assert store.claims() == []
    assert dead(tmp_path) == []


TRAIN = """
import sys
from pathlib import Path
from scalex_eqx.experiments import Setting, Sweep, parse_recipe, transfer
from scalex_eqx.problems import load_problem

sweep = Sweep((parse_recipe("standard:adam:full"),), (8, 16), (0.01, 0.02, 0.04), (0, 1, 2, 3),
              Setting(base_width=8, steps=2000))
transfer(sweep, load_problem(sys.argv[1]), Path(sys.argv[2]), at_once=1)
"""


def owners(path):
    """How many runs each process has stored so far, by the claims that were seen."""
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        try:
            found = connection.execute("SELECT created, key FROM runs").fetchall()
            return {key: created for created, key in found}
        except sqlite3.OperationalError:
            return {}


def test_of_two_processes_one_is_killed(tiny_file, tmp_path):
    command = [sys.executable, "-c", TRAIN, f"{tiny_file}:problem", str(tmp_path)]
    first, second = (subprocess.Popen(command) for _ in range(2))
    try:
        deadline = time.monotonic() + 300
        while len(before := owners(tmp_path / STORE)) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
        first.wait()
        before = owners(tmp_path / STORE)
        assert second.wait(timeout=300) == 0
    finally:
        for process in (first, second):
            process.kill()
            process.wait()
    after = owners(tmp_path / STORE)
    assert 3 <= len(before) < 24 and len(after) == 24
    assert before.items() <= after.items()
    with Store.open(tmp_path / STORE, create=False) as store:
        assert store.claims() == [] and store.missing(after) == []
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".trains")] == []
