"""A store that a sweep of layout version 1 has left: read as it is, rewritten, gone on with.

`store_version_1.sqlite` was written by the build before version 2, in two sweeps on `TEXT`, one
of which gave a weight decay; `store_version_1.json` is what that build reported of the second.
"""

import io
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import scalex_eqx
from scalex_eqx import experiments, problems
from scalex_eqx.experiments import Sweep, load_corpus, report, transfer
from scalex_eqx.experiments._rows import run_key
from scalex_eqx.experiments._store import Store
from scalex_eqx.experiments._transfer import STORE
from scalex_eqx.experiments._version1 import recipe_of

HERE = Path(__file__).parent
TEXT = "All happy families are alike; " * 200


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(HERE / "store_version_1.sqlite", tmp_path / STORE)
    return tmp_path


def table(path: Path, name: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT * FROM {name}").fetchall()


def as_it_was(path: Path) -> dict[str, tuple]:
    """Status, loss, training losses and the rest of each run, by the key that it has to have
    now: the specifications are taken apart here by hand."""
    found = {}
    for _, specification, status, loss, result, created in sorted(
        table(path, "runs"), key=lambda values: values[-1]
    ):
        old, rest = json.loads(specification), json.loads(result)
        decay = "(weight_decay=0.0001)" if old["optimizer"] == "adamw" else ""
        new = {
            "problem": {
                "kind": "text",
                "data": old["data"],
                "sequence_length": 8,
                "batch_size": 2,
                "head_dimension": 8,
            },
            "sizes": {"width": old["width"], "depth": 1},
            "base": {"width": 8},
            "recipe": f"{old['parameterization']}:{old['optimizer']}{decay}:{old['rates']}",
            "steps": 2,
            "learning_rate": old["learning_rate"],
            "seed": 0,
        }
        curve = np.array(rest.pop("training_losses"), np.float32)
        found.setdefault(run_key(new), (new, status, loss, rest, created, curve))
    return found


def check(store: Store, before: dict[str, tuple]) -> None:
    rows = store.rows(before, curves=True)
    assert len(rows) == len(before) == 20  # Of 24, of which four differ in an unused decay alone.
    for key, (specification, status, loss, result, created, curve) in before.items():
        row = rows[key]
        assert (row.specification, row.status, row.held_out_loss) == (specification, status, loss)
        assert (row.result, row.created) == (result, created)
        np.testing.assert_array_equal(row.curves["training_losses"], curve)


def test_it_is_read_without_being_changed(folder):
    path = folder / STORE
    before, content = as_it_was(path), path.read_bytes()
    with Store.open(path, create=False) as store:
        check(store, before)
        recipes = [sweep.configuration["recipes"] for sweep in store.sweeps()]
    assert recipes == [
        ["standard:adam:full", "mup:sgd:none"],
        ["standard:adamw(weight_decay=0.0001):full", "standard:adam:full"],
    ]
    assert path.read_bytes() == content
    assert [one.name for one in folder.iterdir()] == [STORE]


def test_it_is_rewritten_when_it_is_opened_to_write(folder):
    path = folder / STORE
    before = as_it_was(path)
    for _ in range(2):
        with Store.open(path, create=True) as store:
            check(store, before)
            assert len(store.sweeps()) == 2
    names = {values[1] for values in table(path, "sqlite_master") if values[0] == "table"}
    assert names == {"runs", "curves", "sweeps", "claims"}


def test_it_is_reported_and_gone_on_with(folder):
    expected = json.loads((HERE / "store_version_1.json").read_text(encoding="utf-8"))
    del expected["facts"]["training time"]
    text = folder / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    for resumed in (False, True):
        if resumed:
            with Store.open(folder / STORE, create=False) as store:
                sweep = Sweep.from_json(dict(store.sweeps()[0].configuration))
            # A run that had to be trained would be another, a moment or a version later.
            problem = problems.text(
                load_corpus(text), head_dimension=8, sequence_length=8, batch_size=2
            )
            transfer(sweep, problem, folder)
        report(folder, Console(file=io.StringIO()))
        found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        # Runs that both sweeps had trained are there once, with the time of the first.
        del found["facts"]["training time"]
        # Two seeds say nothing of use, and reports of that time said nothing of it.
        assert {one["verdict"] for one in found.pop("useful").values()} == {"can't be told"}
        assert found == expected


def test_a_recipe_holds_the_unusual_numbers_that_its_rule_took():
    usual = {"b1": 0.9, "b2": 0.95, "eps": 1e-12, "weight_decay": 0.0}
    unusual = {"b1": 0.8, "b2": 0.99, "eps": 1e-8, "weight_decay": 0.01}
    for rule, said in {
        "adam": "(b1=0.8,b2=0.99,eps=1e-08)",
        "adamw": "(b1=0.8,b2=0.99,eps=1e-08,weight_decay=0.01)",
        "adam_atan2": "(b1=0.8,b2=0.99)",
        "adam_parameter_scaling": "(b1=0.8,b2=0.99,eps=1e-08)",
        "adafactor": "",
        "lion": "",
        "muon": "(b1=0.8,b2=0.99,eps=1e-08)",
        "sgd": "(momentum=0.8)",
    }.items():
        assert recipe_of(f"mup:{rule}:full", usual) == f"mup:{rule}:full"
        assert recipe_of(f"mup:{rule}:full", unusual) == f"mup:{rule}{said}:full"


# Stops once half of the runs are rewritten. The packages are entered without their `__init__`s,
# which would import JAX.
STOP = f"""
import sys, time, types
for name, path in (
    ("scalex_eqx", {list(scalex_eqx.__path__)!r}),
    ("scalex_eqx.experiments", {list(experiments.__path__)!r}),
    ("scalex_eqx.problems", {list(problems.__path__)!r}),
):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = path
from scalex_eqx.experiments import _migrate
from scalex_eqx.experiments._store import Store
rewritten = 0
def stopping(row, original=_migrate.row_values):
    global rewritten
    rewritten += 1
    if rewritten == 12:
        print("inside", flush=True)
        time.sleep(600)
    return original(row)
_migrate.row_values = stopping
Store.open(sys.argv[1], create=True)
"""


def test_a_kill_in_the_middle_leaves_the_old_file(folder):
    path = folder / STORE
    rows, before = table(path, "runs"), as_it_was(path)
    command = [sys.executable, "-c", STOP, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "inside\n"
        process.send_signal(signal.SIGKILL)
    assert table(path, "runs") == rows
    with Store.open(path, create=True) as store:
        check(store, before)


def test_what_cannot_be_read_is_named_and_kept(folder):
    path = folder / STORE
    before = as_it_was(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        (key,) = connection.execute("SELECT key FROM runs ORDER BY key").fetchone()
        change = "UPDATE runs SET specification = replace(specification, '0', '1') WHERE key = ?"
        connection.execute(change, (key,))
    for create in (False, True):
        lines: list[str] = []
        with Store.open(path, create=create, warn=lines.append) as store:
            found = store.rows(before)
        assert len(found) >= 19 and all(
            row.held_out_loss == before[one][2] for one, row in found.items()
        )
        assert len(lines) == 1 and key[:16] in lines[0] and str(path) in lines[0]
    assert [values[0] for values in table(path, "runs_unread")] == [key.encode()]
