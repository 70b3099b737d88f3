import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from scalex_eqx import problems
from scalex_eqx.experiments import (
    Setting,
    Sweep,
    UsageError,
    load_corpus,
    parse_recipe,
    report,
    transfer,
)
from scalex_eqx.experiments._engines import Done
from scalex_eqx.experiments._members import row
from scalex_eqx.experiments._rows import Row
from scalex_eqx.experiments._slots import Trained
from scalex_eqx.experiments._store import Store
from scalex_eqx.experiments._transfer import STORE, environment

SMALL = "--widths 8 16 --head-dimension 8 --depth 1 --steps 2 --sequence-length 8 --batch-size 2"
RATES = "--learning-rates 2^-9 2^-6 1e30 --recipes standard:adam:full mup:adam:none --seeds 0"
RUNS = 2 * 2 * 3


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "text.txt"
    path.write_text("All happy families are alike; " * 200, encoding="utf-8")
    return path


def scalex(*arguments):
    command = [sys.executable, "-c", "from scalex_eqx.cli import main; main()", *arguments]
    environment = {**os.environ, "COLUMNS": "100"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def created(path):
    connection = sqlite3.connect(path)
    try:
        return dict(connection.execute("SELECT key, created FROM runs"))
    except sqlite3.OperationalError:
        return {}
    finally:
        connection.close()


@pytest.fixture(scope="module")
def finished(text, tmp_path_factory):
    """A sweep that was killed in the middle and started again, and what both have left."""
    folder = tmp_path_factory.mktemp("sweep")
    arguments = ["transfer", *SMALL.split(), *RATES.split(), "--data", str(text)]
    arguments += ["--out", str(folder)]
    first = scalex(*arguments)
    deadline = time.monotonic() + 300
    while first.poll() is None and time.monotonic() < deadline:
        if (folder / STORE).exists() and created(folder / STORE):
            break
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before = created(folder / STORE)
    second = scalex(*arguments)
    output, errors = second.communicate(timeout=300)
    assert second.returncode == 0, errors
    return folder, before, output


def test_a_killed_sweep_goes_on_where_it_was(finished):
    folder, before, output = finished
    after = created(folder / STORE)
    assert 0 < len(before) < RUNS
    assert len(after) == RUNS
    assert before.items() <= after.items()  # Nothing was trained twice.
    assert f"{len(before)} of {RUNS} runs are in the store, " in output


def test_the_report_is_written_and_names_every_recipe(finished):
    folder, _, output = finished
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert len(results["runs"]) == RUNS
    diverged = [run for run in results["runs"] if run["held_out_loss"] is None]
    assert {run["learning_rate"] for run in diverged} == {1e30}
    assert len(diverged) == RUNS // 3
    page = (folder / "report.html").read_text(encoding="utf-8")
    for recipe in ("standard:adam:full", "mup:adam:none"):
        assert recipe in page
        assert recipe in output
    assert (folder / "transfer.png").stat().st_size > 10_000
    for fact in ("data", "machine", "versions", "finished"):
        assert results["facts"][fact]


def test_a_report_is_rebuilt_without_training(finished):
    folder, _, _ = finished
    before = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    for name in ("results.json", "report.html", "transfer.png"):
        (folder / name).unlink()
    report(folder, Console(file=io.StringIO(), width=80))
    assert json.loads((folder / "results.json").read_text(encoding="utf-8")) == before
    assert (folder / "report.html").exists()
    assert (folder / "transfer.png").exists()


class Silent:
    def __init__(self):
        self.groups = []

    def begin(self, runs, stored, work, done):
        self.runs, self.share = (stored, runs), done / work

    def group(self, name, runs):
        self.groups.append((name, runs))

    def advance(self, work, loss):
        pass

    def ended(self, runs, work):
        pass

    def say(self, line):
        pass


SWEEP = Sweep(
    recipes=(parse_recipe("standard:adam:full"),),
    sizes=(8, 16),
    learning_rates=(0.01, 0.02, 0.04),
    seeds=(0,),
    setting=Setting(base_width=8, depth=1, steps=2),
)


def problem_on(path):
    return problems.text(load_corpus(path), head_dimension=8, sequence_length=8, batch_size=2)


def store_all_but(sweep, problem, folder, left_out):
    """Rows of made-up losses, as if the sweep had been trained."""
    members = sweep.members()
    with Store.open(folder / STORE, create=True) as store:
        store.add(
            [
                Row.of(
                    sweep.specification(member, problem.facts),
                    status="ok",
                    metrics={"held_out_loss": 2.0 + abs(np.log2(member.learning_rate / 0.02))},
                    result={"seconds": 1.0, "environment": environment()},
                )
                for member in members[: len(members) - left_out]
            ]
        )


def test_only_the_missing_runs_are_trained(text, tmp_path):
    problem, reporter = problem_on(text), Silent()
    store_all_but(SWEEP, problem, tmp_path, 1)
    transfer(SWEEP, problem, tmp_path, reporter)
    assert reporter.groups == [("standard:adam:full width 16", 1)]
    again = Silent()
    transfer(SWEEP, problem, tmp_path, again)
    assert again.groups == []
    assert (again.runs, again.share) == ((6, 6), 1.0)


def test_other_data_is_another_sweep(text, tmp_path):
    problem = problem_on(text)
    other = tmp_path / "other.txt"
    other.write_text(text.read_text(encoding="utf-8") + "!", encoding="utf-8")
    store_all_but(SWEEP, problem, tmp_path, 0)
    with Store.open(tmp_path / STORE, create=True) as store:
        store.add_sweep({**SWEEP.to_json(), "problem": problem_on(other).facts, "said": {}}, {})
    with pytest.raises(UsageError, match="no finished run of its last sweep"):
        report(tmp_path, Console(file=io.StringIO()))


def test_an_unfinished_sweep_says_how_much_is_missing(text, tmp_path):
    problem = problem_on(text)
    store_all_but(SWEEP, problem, tmp_path, 0)
    transfer(SWEEP, problem, tmp_path, Silent())
    connection = sqlite3.connect(tmp_path / STORE)
    with connection:
        connection.execute("DELETE FROM runs WHERE key IN (SELECT key FROM runs LIMIT 2)")
    connection.close()
    output = io.StringIO()
    report(tmp_path, Console(file=output, width=100))
    assert "2 of 6 runs are missing" in output.getvalue()
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for text in (" ".join(output.getvalue().split()), page):
        assert "cannot tell: 2 of 6 runs are missing; finish the sweep" in text


def test_a_store_without_a_sweep_is_refused(tmp_path):
    Store.open(tmp_path / STORE, create=True).close()
    with pytest.raises(UsageError, match="holds no sweep"):
        report(tmp_path, Console(file=io.StringIO()))


@pytest.mark.parametrize(
    "losses, metrics, status, step",
    [
        ([3.0, 2.0], {"held_out_loss": 2.5}, "ok", None),
        ([3.0, np.nan], {}, "diverged", 1),
        ([3.0, 2.0], {}, "diverged", None),
    ],
)
def test_a_run_without_metrics_has_diverged(losses, metrics, status, step):
    trained = Trained(0, metrics, np.array(losses, np.float32), 1.0)
    found = row({"seed": 0}, Done(SWEEP.members()[0], trained, {}))
    assert (found.status, found.result["diverged_at_step"]) == (status, step)
    assert found.held_out_loss == metrics.get("held_out_loss")


def test_the_folder_may_be_given_in_place_of_the_store(finished, tmp_path):
    folder, _, _ = finished
    by_file = report(Path(folder) / STORE, Console(file=io.StringIO(), width=80))
    assert by_file == report(folder, Console(file=io.StringIO(), width=80))
