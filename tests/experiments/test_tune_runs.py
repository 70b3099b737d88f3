"""Tunings that train: what is found, what is kept, and what the command says."""

import dataclasses
import json
import shlex
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from scalex_eqx.cli._commands import run
from scalex_eqx.experiments import Setting, UsageError, parse_recipe
from scalex_eqx.experiments._transfer import STORE, Silent
from scalex_eqx.experiments._tune import tune
from scalex_eqx.experiments._tuning import Tuning

from ._planted import rescaled

TUNING = Tuning(
    recipe=parse_recipe("standard:adam:full"),
    learning_rate=2**-2,
    seeds=(0,),
    setting=Setting(base_width=8, steps=40),
    roles=("readout",),
    trials=9,
    sampler="grid",
    reach=4,
)
PROBLEM = f"{Path(__file__).with_name('_planted.py')}:problem"
OPTIONS = (
    "--learning-rate 2^-2 --seeds 0 --width 8 --steps 40 --roles readout --sampler grid "
    "--trials 9 --reach 4 --check-widths"
)
COMMAND = ["tune", "standard:adam:full", "--problem", PROBLEM, *OPTIONS.split()]


def stored(folder):
    connection = sqlite3.connect(folder / STORE)
    try:
        return dict(connection.execute("SELECT key, created FROM runs"))
    finally:
        connection.close()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tune")
    return folder, tune(TUNING, rescaled(), folder, Silent())


def test_the_constant_of_a_rescaled_layer_is_found(finished):
    _, found = finished
    assert found.octaves == {"readout": -3}
    assert found.tuned.recipe == "standard:adam:full:readout=1/8"
    assert found.tuned.loss < 0.9 * found.untuned.loss


class Stopped(Exception):
    pass


class Stopping(Silent):
    """Ends the training after some runs."""

    def __init__(self, runs):
        self.left = runs

    def ended(self, runs, work):
        self.left -= runs
        if self.left <= 0:
            raise Stopped


def test_a_tuning_that_was_stopped_goes_on_to_the_same_answer(finished, tmp_path):
    folder, found = finished
    with pytest.raises(Stopped):
        tune(TUNING, rescaled(), tmp_path, Stopping(10))
    before = stored(tmp_path)
    assert len(before) == 10
    assert tune(TUNING, rescaled(), tmp_path, Silent()) == found
    after = stored(tmp_path)
    assert before.items() <= after.items()  # Nothing was trained twice.
    assert after.keys() == stored(folder).keys()


def scalex(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["scalex", *map(str, arguments)])
    return run()


def test_the_command_reports_and_says_what_plan_takes(finished, monkeypatch, capsys):
    folder, found = finished
    before = stored(folder)
    assert scalex(monkeypatch, *COMMAND, "--out", folder) == 0
    assert stored(folder) == before
    output = capsys.readouterr().out
    answer = json.loads((folder / "tuned.json").read_text(encoding="utf-8"))
    assert answer["recipe"] == found.tuned.recipe
    assert answer["learning_rate"] == found.tuned.learning_rate
    assert len(answer["trials"]) == len(found.trials)
    assert (folder / "landscape.png").stat().st_size > 10_000
    words = shlex.split(output.splitlines()[-1])
    assert words[0] == "scalex"
    assert scalex(monkeypatch, *words[1:]) == 0
    planned = capsys.readouterr().out
    rate = found.tuned.learning_rate
    assert f"{rate:.4g}" in planned and f"{rate / 8:.4g}" in planned


def test_its_store_has_a_report_and_a_status(finished, monkeypatch, capsys, tmp_path):
    folder, found = finished
    shutil.copy(folder / STORE, tmp_path)
    assert scalex(monkeypatch, "report", tmp_path) == 0
    output = capsys.readouterr().out
    assert found.tuned.recipe in output and "landscape.png, tuned.json" in output
    answer = json.loads((tmp_path / "tuned.json").read_text(encoding="utf-8"))
    assert answer["recipe"] == found.tuned.recipe and len(answer["trials"]) == len(found.trials)
    assert scalex(monkeypatch, "status", tmp_path) == 0
    output = capsys.readouterr().out
    runs = len(stored(tmp_path))
    assert f"{runs} of {runs} runs have finished" in output
    assert output.count("standard:adam:full and its constants") == 1
    # Without two of its first runs it is known how it goes on, and not how it ends.
    with closing(sqlite3.connect(tmp_path / STORE)) as connection, connection:
        connection.execute(
            "DELETE FROM runs WHERE key IN (SELECT key FROM runs ORDER BY created LIMIT 2)"
        )
    assert "2 that it needs next are missing" in refused(monkeypatch, capsys, "report", tmp_path)
    assert scalex(monkeypatch, "status", tmp_path) == 0
    assert "3 of 5 runs have finished" in capsys.readouterr().out


def test_a_tuning_is_written_down_and_read():
    wide = dataclasses.replace(TUNING, check_widths=(16, 32))
    assert Tuning.from_json(json.loads(json.dumps(wide.to_json()))) == wide


def refused(monkeypatch, capsys, *arguments):
    assert scalex(monkeypatch, *arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_without_optuna_one_line_says_what_is_missing(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "optuna", None)
    out = tmp_path / "out"
    line = refused(monkeypatch, capsys, "tune", "standard:adam:full", "--out", out)
    assert "pip install 'scalex_eqx[tune]'" in line
    assert not out.exists()


def test_it_has_no_parts(monkeypatch, capsys, tmp_path):
    line = refused(monkeypatch, capsys, *COMMAND, "--shard", "1/2", "--out", tmp_path / "out")
    assert "a sampler learns from the runs before" in line and "--engine ray" in line


def test_a_role_without_a_weight_is_named(monkeypatch, capsys, tmp_path):
    tuning = dataclasses.replace(TUNING, roles=("vector",))
    with pytest.raises(UsageError, match="--roles has vector, but no weight of the problem"):
        tune(tuning, rescaled(), tmp_path / "out", Silent())
    assert not (tmp_path / "out").exists()


def test_the_width_of_the_text_is_a_number_of_heads(monkeypatch, capsys, tmp_path):
    arguments = ["tune", "standard:adam:full", "--width", "40", "--sampler", "grid"]
    arguments += ["--trials", "729", "--out", tmp_path / "out"]
    assert "--width has 40" in refused(monkeypatch, capsys, *arguments)
