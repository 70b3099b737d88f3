import json
import sys

import pytest

from scalex_eqx.cli._commands import run


def call(monkeypatch, capsys, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["scalex", "plan", *words])
    code = run()
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_it_prints_a_row_for_each_weight(monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "mup:adam:full", "--width", "65536", "--json")
    rows = {row["path"]: row for row in json.loads(out)["rows"]}
    assert code == 0
    # muP at r = 1024, under Adam and full alignment: hidden c = 1, readout c = a = 1/2.
    assert rows["blocks/mlp/up/weight"]["learning_rate"] == 2.0**-8 / 1024
    assert rows["readout/weight"]["learning_rate"] == 2.0**-8 / 32
    assert rows["readout/weight"]["multiplier"] == 1 / 32


def test_the_text_names_the_weights(monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "standard:adamw:none", "--weight-decay", "0.25")
    assert code == 0 and "blocks/attention/query/weight" in out and "0.25" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mup:nope:full"], "unknown optimizer 'nope'"),
        (["mup:adam:full", "--width", "100"], "--width has 100, which is not a positive multiple"),
        (["mup:adam:full", "--base-width", "0"], "--base-width has 0"),
        (["mup:adam:full", "--learning-rate", "abc"], "--learning-rate has 'abc'; expected"),
        (["mup:adam:full", "--weight-decay", "0.1"], "but no recipe decays"),
        (["mup:adam:full", "--depth", "0"], "--depth is 0"),
    ],
)
def test_mistakes_are_told_in_a_line(monkeypatch, capsys, words, message):
    code, _, error = call(monkeypatch, capsys, *words)
    assert code == 2 and message in error and len(error.splitlines()) == 1
