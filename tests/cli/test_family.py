"""`scalex family` says what it measures, and refuses what is no rule."""

import json
import sys

import pytest

from scalex_eqx.cli._commands import run


def called(monkeypatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["scalex", "family", *words])
    return run()


def test_a_rule_is_measured(monkeypatch, capsys, tmp_path):
    """A rule in a file, of degree one, as JSON."""
    file = tmp_path / "rule.py"
    file.write_text("import optax\n\ndef make(size=1.0):\n    return optax.scale(-size)\n")
    assert called(monkeypatch, f"{file}:make(size=0.1)", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["family"]["name"] == "sgd" and found["gradient"]["together"] == "1"
    assert found["state_bytes"] == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing", "adam_atan2"),
        ("optax.adm(1e-3)", "did you mean"),
        ("optax.chain(optax.adam(1e-3))", "nothing is evaluated"),
        ("optax.MultiSteps", "missing"),
    ],
)
def test_what_is_no_rule_is_refused(monkeypatch, capsys, text, said):
    assert called(monkeypatch, text) == 2
    assert said in capsys.readouterr().err
