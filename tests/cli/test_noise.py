"""`scalex noise` at a small size, on a problem that isn't text, with a rule that needs examples."""

import json
import sys

import pytest

from scalex_eqx.cli._commands import run

SIZES = "--problem digits --width 8 --base-width 8 --depth 1 --steps 2"
SMALL = SIZES.split(" ")
RECIPE = "standard:sign_ema(placement='example'):full"


@pytest.fixture
def scalex(monkeypatch, capsys):
    """What a command prints, and on which line."""

    def call(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["scalex", *map(str, arguments)])
        assert run() == code
        output = capsys.readouterr()
        return output.err if code else output.out

    return call


def test_signal_and_noise_as_json_and_as_a_picture(scalex, tmp_path):
    pytest.importorskip("sklearn")
    picture = tmp_path / "noise.png"
    options = ("--batches", "8", "--at", "0", "2", "--json", "--picture", picture)
    rows, predictions = (
        table["rows"] for table in json.loads(scalex("noise", RECIPE, *SMALL, *options))["tables"]
    )
    assert [row["step"] for row in predictions] == [0, 2]
    names = {row["weight"] for row in rows}
    assert names == {"all weights", "first/weight", "readout/weight"}
    first = {row["weight"]: row for row in rows if row["step"] == 0}
    # Pixels that are the same in all images have no gradient but for their mean.
    assert 0 < first["first/weight"]["entries"] <= 8 * 64
    assert first["all weights"]["entries"] == sum(
        row["entries"] for name, row in first.items() if name != "all weights"
    )
    assert all(0 < row["signal_to_noise"] < 10 and row["kurtosis"] >= 1 for row in rows)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("noise", RECIPE, *SMALL, "--batches", "12"), "--batches is 12; expected a multiple of 8"),
        (("noise", RECIPE, *SMALL, "--at", "3"), "at has 3; expected steps from 0 to 2"),
        (
            ("check", "standard:micro_adam:full", "--problem", "digits", "--widths", "8", "16"),
            "micro_adam needs the gradient of each example, and scalex check takes that of the",
        ),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_line(scalex, arguments, message: str):
    pytest.importorskip("sklearn")
    said = scalex(*arguments, code=2)
    assert message in said and "\n" not in said.strip()
