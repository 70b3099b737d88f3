import sqlite3
import sys

import numpy as np
import pytest

from scalex_eqx.cli import _main
from scalex_eqx.cli._commands import run

QUICK = ["--widths", "8", "16", "--head-dimension", "8", "--depth", "1", "--steps", "1"]


def scalex(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["scalex", *map(str, arguments)])
    return run()


def refused(monkeypatch, capsys, *arguments):
    """The one line that a mistake is answered with."""
    assert scalex(monkeypatch, *arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["--recipes", "standard:lamb:full"],
            "unknown optimizer 'lamb'; choose from adam, adamw, adam_atan2",
        ),
        (["--recipes", "sp:adam:full"], "choose from standard, ntk, mup, mean_field"),
        (["--recipes", "mup:adam:half"], "choose from global, full, none"),
        (["--widths", "64"], "--widths has 1 value; give at least 2"),
        (["--widths", "64", "100"], "--widths has 100"),
        (["--learning-rates", "0.1", "0.2"], "--learning-rates has 2 values; give at least 3"),
        (["--learning-rates", "0.1", "0.2", "x"], "--learning-rates has 'x'"),
        (["--base-width", "20"], "--base-width has 20"),
        (["--steps", "0"], "--steps is 0"),
        (["--at-once", "0"], "--at-once is 0"),
        (["--data", "/no/such/file"], "/no/such/file"),
        (["--vocabulary-size", "7"], "--vocabulary-size"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(monkeypatch, capsys, tmp_path, arguments, message):
    line = refused(monkeypatch, capsys, "transfer", "--out", tmp_path / "out", *arguments)
    assert message in line
    assert not (tmp_path / "out").exists()


def test_empty_and_short_data_are_refused(monkeypatch, capsys, tmp_path):
    empty, short = tmp_path / "empty.txt", tmp_path / "short.txt"
    empty.write_text("", encoding="utf-8")
    short.write_text("too short", encoding="utf-8")
    for path in (empty, short):
        out = tmp_path / "out"
        line = refused(monkeypatch, capsys, "transfer", *QUICK, "--data", path, "--out", out)
        assert path.stem in line


def test_a_token_out_of_range_is_named(monkeypatch, capsys, tmp_path):
    path = tmp_path / "tokens.npy"
    np.save(path, np.array([1, 2, 300] * 200, np.int32))
    arguments = ["--data", path, "--vocabulary-size", 256, "--out", tmp_path / "out"]
    assert "300" in refused(monkeypatch, capsys, "transfer", *QUICK, *arguments)


def test_a_folder_that_cannot_be_made_is_named(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    line = refused(monkeypatch, capsys, "transfer", *QUICK, "--out", tmp_path / "file" / "out")
    assert str(tmp_path / "file") in line


def test_a_store_of_another_version_is_left_untouched(monkeypatch, capsys, tmp_path):
    store = tmp_path / "runs.sqlite"
    connection = sqlite3.connect(store)
    connection.execute("PRAGMA user_version = 99")
    connection.execute("CREATE TABLE runs (key TEXT)")
    connection.commit()
    connection.close()
    before = store.read_bytes()
    line = refused(monkeypatch, capsys, "transfer", *QUICK, "--out", tmp_path)
    assert str(store) in line
    assert store.read_bytes() == before


def test_a_missing_store_cannot_be_reported(monkeypatch, capsys, tmp_path):
    assert str(tmp_path) in refused(monkeypatch, capsys, "report", tmp_path / "runs.sqlite")


@pytest.mark.parametrize("command", ["transfer", "report"])
def test_help_shows_an_example(monkeypatch, capsys, command):
    with pytest.raises(SystemExit) as exit:
        scalex(monkeypatch, command, "--help")
    assert exit.value.code == 0
    assert f"scalex {command}" in capsys.readouterr().out.split("Example:")[1]


def test_without_the_extra_one_line_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(_main.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"pip install 'scalex_eqx\[experiments\]'"):
        _main.main()
