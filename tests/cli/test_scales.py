"""`scalex scales`, and the problem of unit scaling, at a small size."""

import json
import sys

import pytest

from scalex_eqx.cli._commands import run

SMALL = "--problem unit-text --width 16 --base-width 8 --head-dimension 8 --depth 1 --steps 2"


@pytest.fixture
def scalex(monkeypatch, capsys):
    """What a command prints, and on which line."""

    def call(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["scalex", *map(str, arguments)])
        assert run() == code
        output = capsys.readouterr()
        return output.err if code == 2 else output.out

    return call


def test_sizes_as_json_and_as_a_picture(scalex, tmp_path):
    picture = tmp_path / "scales.png"
    options = ["--learning-rate", "1", "--sequence-length", "8", "--at", "0", "2", "--json"]
    text = scalex("scales", "u_mup:adam:full", *SMALL.split(), *options, "--picture", picture)
    rows = json.loads(text)["tables"][0]["rows"]
    assert {row["step"] for row in rows} == {0, 2}
    sizes = {(row["weight"], row["kind"]): row["size"] for row in rows if row["step"] == 0}
    assert len(sizes) == 9 * 5 - 1  # What goes into the embedding are whole numbers.
    for name in ("readout/weight", "blocks/mlp/down/weight", "token_embedding/weight"):
        assert sizes[name, "weight"] == pytest.approx(1, abs=0.1)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_problem_wants_its_own_parameterization(scalex):
    said = scalex("scales", "mup:adam:full", *SMALL.split(), code=2)
    assert "weights of scalex_eqx.nn.unit, whose layers scale by their own sizes, under mup" in said


def test_a_share_that_is_none(scalex):
    said = scalex("scales", "u_mup:adam:full", *SMALL.split(), "--most", "1", code=2)
    assert "--most is 1.0; expected a share from 0 to 1" in said
