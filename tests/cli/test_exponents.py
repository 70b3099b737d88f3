import json
import sys
from fractions import Fraction

import pytest

from scalex_eqx import theory
from scalex_eqx.cli._commands import run
from scalex_eqx.theory import Role


@pytest.fixture
def scalex(monkeypatch, capsys):
    """What the command prints in a terminal of 80 columns, and on which line."""

    def call(*arguments: str, code: int = 0) -> str:
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(sys, "argv", ["scalex", "exponents", *arguments])
        assert run() == code
        output = capsys.readouterr()
        return output.err if code else output.out

    return call


def test_the_table_has_every_exponent_of_the_paper(scalex):
    lines = scalex().splitlines()
    assert max(map(len, lines)) <= 80
    rows = {}
    name = ""
    for line in lines[2:22]:
        words = line.split()
        name = words.pop(0) if words[0] not in list(Role) else name
        rows[name, words[0]] = words[1:]
    assert len(rows) == 20
    # Typed from the paper's table: init, multiplier, gradient; SGD, Adam and Adafactor, each with
    # full alignment and with none.
    assert rows["standard", "hidden"] == ["1/2", "0", "1/2", "1/2", "0", "1", "1/2", "1/2", "0"]
    assert rows["ntk", "readout"] == ["0", "1/2", "1/2", "0", "-1/2", "1/2", "0", "1/2", "0"]
    assert rows["mup", "readout"] == ["1/2", "1/2", "1/2", "0", "0*", "1/2", "0", "0", "0*"]
    assert rows["mean_field", "embedding"] == ["0", "0", "1", "-1", "-1", "0", "0", "0", "0"]
    assert rows["mup", "vector"] == ["0", "0", "1", "-1", "-1", "0", "0", "0", "0"]


def test_starred_cells_have_a_footnote_and_no_others(scalex):
    text = " ".join(scalex().split())
    for name in ("mup", "mean_field"):
        assert f"* {name}, sgd, none: stable; trivial in the limit" in text
        assert f"* {name}, adafactor, none: stable; trivial in the limit" in text
    assert text.count("trivial") == 4
    assert "Alternative: embedding 1/2, hidden 0, readout -1/2" in text
    assert "*" not in scalex("--parameterizations", "standard", "ntk")


def test_a_single_row_is_shown_layer_by_layer(scalex):
    arguments = ("--parameterizations", "standard", "--families", "adam", "--alignments")
    text = scalex(*arguments, "0.8,0.55,1", "--depth", "3")
    assert max(map(len, text.splitlines())) <= 80
    rows = [line.split()[:9] for line in text.splitlines()]
    # Residuals of 0.2, 0.15, 0.1 and 0.05 before the readout, whose omega asks for 0.05 as well.
    assert rows[1][-2:] == ["1/5", "update"]
    assert rows[4][:2] == ["hidden", "3"] and rows[4][7] == "1/20"
    words = " ".join(text.split())
    assert "standard, adam, 0.8,0.55,1: stable; the logits change by order one; lazy" in words
    assert "omega: 0.55 read as 11/20" in words
    assert "Alternative: " in words and "where u > alpha" in words


def test_equal_layers_share_a_line(scalex):
    text = scalex(
        *("--parameterizations", "mup", "--families", "adam", "--alignments", "full"),
        *("--depth", "100"),
    )
    assert "hidden 1 to 100 1/2" in " ".join(text.split())
    assert len(text.splitlines()) < 12


def test_many_columns_are_folded_into_several_tables(scalex):
    text = scalex("--alignments", "full", "none", "3/4,1/2,3/4")
    assert max(map(len, text.splitlines())) <= 80
    rows = [line.split()[:2] for line in text.splitlines() if line]
    assert rows.count(["role", "init"]) == 2
    assert rows.count(["mean_field", "embedding"]) == 2


def test_json_has_what_the_solver_says(scalex):
    (cell,) = json.loads(
        scalex(
            *("--parameterizations", "mup", "--families", "sgd", "--alignments", "none"),
            *("--depth", "2", "--json"),
        )
    )
    solution = theory.solve(theory.mup, "sgd", theory.no_alignment, depth=2)
    assert cell["trivial"] and cell["verdict"] == solution.verdict
    assert {role: Fraction(c) for role, c in cell["learning_rate"].items()} == solution.exponents
    assert [layer["name"] for layer in cell["layers"]] == [
        "embedding",
        "hidden 1",
        "hidden 2",
        "readout",
    ]
    assert cell["layers"][-1]["change"] == "1/2"
    assert cell["alternatives"][0]["learning_rate"]["readout"] == "-1/2"
    assert len(json.loads(scalex("--json"))) == 24


def test_the_rules_for_batch_and_length(scalex):
    lines = scalex("--budget").splitlines()
    assert max(map(len, lines)) <= 80
    data = json.loads(scalex("--budget", "--json"))
    rules = {row.pop("rule"): row for row in data["rules"]}
    assert rules["malladi"] == {
        "for": "adam",
        "rate": "batch^1/2",
        "1-b1": "batch^1",
        "1-b2": "batch^1",
        "eps": "batch^-1/2",
    }
    assert rules["completed_p"]["rate"] == "batch^1/2 tokens^-1/2"
    assert rules["sdew"]["rate"] == "-"
    decays = {row.pop("decay"): [*row.values()] for row in data["decay"]}
    assert decays["fan"] == ["0", "-1/2", "0", "?", "?"]
    assert decays["completed_p"] == ["0", "0", "0", "1", "-1"]
    assert "| malladi_sgd | sgd | batch^1 |" in scalex("--budget", "--markdown")


def test_markdown(scalex):
    header, rule, *rows = scalex("--markdown", "--families", "sgd").split("\n\n")[0].splitlines()
    assert header == "|  | role | init | mult. | grad. | sgd full | sgd none |"
    assert rule == "| --- | --- | --- | --- | --- | --- | --- |"
    assert r"| mup | readout | 1/2 | 1/2 | 1/2 | 0 | 0\* |" in rows
    assert len(rows) == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parameterizations", "sp"], "'sp'; choose from standard, ntk, mup, mean_field"),
        (["--families", "adamw"], "--families has 'adamw'; choose from sgd, adam, adafactor"),
        (["--alignments", "half"], "--alignments has 'half'; expected full, none, or three"),
        (["--alignments", "1,2"], "--alignments has '1,2'"),
        (["--alignments", "1,1/0,1"], "--alignments has '1,1/0,1'"),
        (["--depth", "0"], "--depth is 0; expected at least 1"),
        (["--json", "--markdown"], "exclude each other"),
        (["--budget", "--json", "--markdown"], "exclude each other"),
        (["--families"], "need a value each"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(scalex, arguments, message):
    (line,) = scalex(*arguments, code=2).strip().splitlines()
    assert message in line
