import dataclasses
import importlib.metadata
import re
import shlex
import sqlite3
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import scalex_eqx
from scalex_eqx import _version
from scalex_eqx.cli import _commands, _main
from scalex_eqx.cli._commands import COMMANDS, run
from scalex_eqx.cli._problem import ProblemOptions
from scalex_eqx.experiments import parse_recipe

ROOT = Path(__file__).parents[2]
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
        (["--recipes", "mup:optax.adann@adam:full"], "optax has no 'adann'; did you mean adan"),
        (["--recipes", "mup:optax.polyak_sgd@sgd:full"], "keyword-only argument: 'value'"),
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
        (["--depths", "2"], "--depths has 1 value; give at least 2: a drift is a slope across dep"),
        (["--depths", "2", "4", "2"], "--depths has 2 more than once"),
        (["--depths", "0", "2"], "--depths has 0; expected at least 1"),
        (["--depths", "2", "4", "--width", "20"], "--width has 20"),
        (["--depths", "2", "4", "--width", "0"], "--width is 0; expected at least 1"),
        (
            ["--depths", "2", "4", "--widths", "32", "64"],
            "--widths and --depths are both given; a sweep is over one size: give a single value",
        ),
        (["--depths", "2", "4", "--depth", "3"], "--depth is 3, and depths are swept over"),
        (["--width", "64"], "--width is 64, and widths are swept over; leave out one of --width"),
        (["--batch-sizes", "4", "8", "--batch-size", "4"], "--batch-size is 4, and batch sizes"),
        (["--batch-sizes", "4", "8000"], "250 steps of 4 are less than one of that"),
        (["--batch-sizes", "4", "9" * 9, "--steps", "9" * 9], "is more than the"),
        (["--same-steps"], "--same-steps is given without --batch-sizes"),
        (["--base-steps", "9"], "--base-steps is 9 without --base-batch-size; give both"),
        (["--base-batch-size", "4"], "no recipe has a rule for the batch size; use one such as"),
        (["--base-depth", "2"], "no recipe has a law for the depth; use one such as mup.deep(1)"),
        (
            ["--recipes", "standard:adam:full:malladi", "--batch-sizes", "4", "256"],
            "b1 is 0.9 at the base, and budget rule 'malladi' makes it -5.4",
        ),
        (
            ["--problem", "digits", "--batch-sizes", "64", "5000"],
            "a batch of 5000 is asked for, and data has 1347 examples; take smaller batches",
        ),
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


def test_what_was_only_read_is_not_to_be_removed(monkeypatch, capsys, tmp_path):
    (tmp_path / "notes.txt").write_text("not a store", encoding="utf-8")
    line = refused(monkeypatch, capsys, "report", tmp_path / "notes.txt")
    assert "is not a results file" in line and "remove" not in line
    assert "name the store of a transfer run" in line


def shown_help(monkeypatch, capsys, *arguments):
    with pytest.raises(SystemExit) as exit:
        scalex(monkeypatch, *arguments)
    assert exit.value.code == 0
    return capsys.readouterr().out


def examples(text: str) -> list[list[str]]:
    """The words behind `scalex` of each command in the lines that begin with `Example:`."""
    lines = re.findall(r"^Example: (.*)$", text, re.MULTILINE)
    commands = [one.split(" > ")[0] for line in lines for one in line.split(";")]
    return [words[1:] for words in map(shlex.split, commands) if words[0] == "scalex"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples_that_parse(monkeypatch, capsys, command):
    text = shown_help(monkeypatch, capsys, command, "--help")
    found = examples(text)
    assert found
    for words in found:
        assert words[0] == command
        parsed = _commands._parsed(words)
        assert isinstance(parsed, COMMANDS[command])
        recipes = [parsed.recipe] if hasattr(parsed, "recipe") else getattr(parsed, "recipes", ())
        assert all(map(parse_recipe, recipes))
    # The usual width of a terminal; an example may be longer, to be copied in one piece.
    assert max(len(line) for line in text.splitlines() if not line.startswith("Example:")) <= 80


def test_an_example_that_does_not_parse_is_seen(capsys):
    assert examples("Example: scalex plan mup:adam:full --widht 3 > x; cat x") == [
        ["plan", "mup:adam:full", "--widht", "3"]
    ]
    with pytest.raises(SystemExit) as exit:
        _commands._parsed(examples("Example: scalex plan mup:adam:full --widht 3")[0])
    assert exit.value.code == 2


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_the_commands_are_listed(monkeypatch, capsys, arguments):
    text = shown_help(monkeypatch, capsys, *arguments)
    for command in COMMANDS:
        assert f"• {command} " in text
    assert "Example:" not in text


def test_the_version_is_that_of_the_package(capsys):
    version = importlib.metadata.version("scalex_eqx")
    assert scalex_eqx.__version__ == version
    assert _main.command(["--version"]) == 0
    assert capsys.readouterr().out == f"scalex_eqx {version}\n"


def test_a_source_tree_that_is_not_installed_has_its_version(monkeypatch, tmp_path):
    def not_installed(name):
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(_version.importlib.metadata, "version", not_installed)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert _version.version() == project["version"]
    assert _version._in_tree(tmp_path / "pyproject.toml") == "unknown"
    other = tmp_path / "other.toml"
    other.write_text('[project]\nname = "another"\nversion = "9"\n')
    assert _version._in_tree(other) == "unknown"


@pytest.fixture
def core_alone(monkeypatch):
    monkeypatch.setattr(_main.importlib.util, "find_spec", lambda name: None)


def test_without_the_extra_one_line_says_what_is_missing(core_alone, capsys):
    assert _main.command(["transfer"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'scalex_eqx[experiments]'" in line


def test_without_the_extra_errors_are_explained(core_alone, capsys):
    assert _main.command(["explain", "no-law"]) == 0
    assert capsys.readouterr().out.startswith("### A weight without its law\n")
    assert _main.command(["explain", "no-such"]) == 2
    assert "nothing is called 'no-such'; choose from arithmetic" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["transfer", "sweep", "tune", "check", "align", "stress"])
def test_help_shows_a_commands_own_options_first(command):
    names = [field.name for field in dataclasses.fields(COMMANDS[command])]
    shared = [field.name for field in dataclasses.fields(ProblemOptions)]
    assert names[-len(shared) :] == shared
