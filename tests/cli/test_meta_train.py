"""`scalex meta-train`: what it refuses, and a smallest training from start to end."""

import sys

import pytest

from scalex_eqx.cli import _commands, _meta_train, _sweep, _tune
from scalex_eqx.cli._commands import run
from scalex_eqx.experiments import UsageError
from scalex_eqx.optim import load_rule

TINY = ("--widths", "4", "--tried-widths", "8", "--hidden", "2", "--steps", "2", "--pairs", "1")


@pytest.fixture
def scalex(monkeypatch, capsys):
    """What a command prints, and on which line."""

    def call(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["scalex", "meta-train", *arguments])
        assert run() == code
        output = capsys.readouterr()
        return output.err if code else output.out

    return call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mup:adam:full",), "has the update rule adam; expected learned"),
        (("mup:learned(weight_decay=1e-4):full",), "has a weight decay; leave it out"),
        (("mup:learned(weights='mine'):full",), "expected 'default' or a file, as 'mine.npz'"),
        (("mup:learned(weights='none.npz'):full",), "can't be read"),
        (("mup:learned:full", "--unroll", "30"), "unroll is 30 and truncation 20"),
        (("mup:learned:full", "--widths", "16", "16"), "--widths"),
    ],
)
def test_what_is_refused(scalex, arguments, message: str):
    (line,) = scalex(*arguments, code=2).splitlines()
    assert message in line


def test_a_rule_is_trained_and_tried(scalex, tmp_path):
    out, picture = tmp_path / "new" / "rule.npz", tmp_path / "rule.png"
    size = ("--unroll", "10", "--truncation", "5", "--depth", "1")
    options = (*TINY, *size, "--out", str(out), "--picture", str(picture))
    said = scalex("mup:learned:full", *options)
    assert "99 parameters" in said
    assert all(name in said for name in ("width 8", "width 4, 50 steps", "width 4, depth 4"))
    assert picture.stat().st_size > 10_000
    stored = load_rule(out)
    assert stored.made["recipe"] == "mup:learned:full"
    assert stored.rule.parameters == 99 and stored.made["steps_in_seconds"] == 2
    # The state is there already, and nothing is trained again.
    assert "for the last 0 steps" in scalex("mup:learned:full", *options)
    assert load_rule(out).digest == stored.digest


@pytest.mark.parametrize("module", [_commands, _meta_train, _sweep, _tune])
def test_devices_are_counted_before_anything_has_an_array(module, monkeypatch, capsys):
    """A learned rule in a recipe has some, and with the first one the number of devices stands."""

    def counted():
        raise UsageError("counted")

    monkeypatch.setattr(module, "use_all_cores", counted)
    command = {_commands: "transfer", _meta_train: "meta-train", _sweep: "sweep", _tune: "tune"}
    wrong = [] if module is _sweep else ["nonsense"]
    if module is _commands:
        wrong = ["--recipes", *wrong]
    monkeypatch.setattr(sys, "argv", ["scalex", command[module], *wrong])
    assert run() == 2
    assert "counted" in capsys.readouterr().err
