"""`scalex check` and `scalex align`, at a small size."""

import json
import sys

import pytest

from scalex_eqx.cli._commands import run

SMALL = "--widths 16 32 --head-dimension 8 --depth 1 --seeds 0 1 --steps 2 --sequence-length 8"


@pytest.fixture
def scalex(monkeypatch, capsys):
    """What a command prints, and on which line."""

    def call(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["scalex", *map(str, arguments)])
        assert run() == code
        output = capsys.readouterr()
        return output.err if code == 2 else output.out

    return call


def test_one_learning_rate_for_all_is_rejected(scalex, tmp_path):
    picture = tmp_path / "new" / "check.png"
    recipe = ("standard:adam:global", "--learning-rate", "2^-6")
    text = scalex("check", *recipe, *SMALL.split(), "--picture", picture, code=1)
    lines = text.splitlines()
    assert lines[0].startswith("widths 16, 32, 2 seeds, 2 steps")
    assert lines[-1].startswith(
        "rejected: blocks/attention/query/weight/0 has a learning rate that"
    )
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_alignment_becomes_a_recipe_that_is_accepted(scalex):
    recipe = ("standard:adam:full", "--learning-rate", "2^-6")
    text = scalex("align", *recipe, *SMALL.split())
    found = text[text.index("for scalex transfer --recipes:") :].splitlines()[1].split()[0]
    assert found.startswith("standard:adam:")
    shown = json.loads(scalex("plan", found, "--width", "128", "--json"))
    assert {row["path"] for row in shown["rows"]} >= {"readout/weight"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "standard:adam:ful"), "unknown rates 'ful'"),
        (("check", "mup:adam:full", "--widths", "64", "100"), "--widths has 100, which is not"),
        (("check", "mup:adam:full", "--widths", "64"), "--widths has 1 value; give at least 2"),
        (("check", "mup:adam:full", "--seeds"), "--seeds has 0 values; give at least 1"),
        (("check", "mup:adam:full", "--seeds", "-1"), "--seeds has -1"),
        (("check", "mup:adam:full", "--learning-rate", "abc"), "--learning-rate has 'abc'"),
        (("check", "mup:adamw:full"), "give a positive --weight-decay"),
        (("check", "mup:adam:full", "--weight-decay", "0.1"), "but no recipe decays"),
        (("check", "mup:adam:full", "--head-dimension", "0"), "--head-dimension is 0"),
        (("align", "mup:adam:full", "--seeds", "1"), "--seeds has 1 value; give at least 2"),
        (("align", "mup:adam:full", "--steps", "0"), "--steps is 0; expected at least 1"),
    ],
)
def test_mistakes_are_named(scalex, arguments, message):
    assert message in scalex(*arguments, code=2)
