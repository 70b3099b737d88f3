import io
import sys

import pytest
from rich.console import Console

from scalex_eqx.cli._commands import run
from scalex_eqx.cli._sweep import SweepGrid, _print_foreseen
from scalex_eqx.experiments._grid import PRESETS, Grid
from scalex_eqx.experiments._grid_train import Foreseen


def refused(monkeypatch, capsys, *arguments):
    """The one line that a mistake is answered with."""
    monkeypatch.setattr(sys, "argv", ["scalex", "sweep", *map(str, arguments)])
    assert run() == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--reach", "-1"], "--reach is -1"),
        (["--widths", "32"], "--widths has 1 value"),
        (["--widths", "32", "40"], "--widths has 40"),
        (["--steps", "0"], "--steps is 0"),
        (["--at-once", "0"], "--at-once is 0"),
        (["--data", "/no/such/file"], "/no/such/file"),
        (["--shard", "1/2"], "can't be divided beforehand; start the same command several times"),
        (["--ray-address", "auto"], "without --engine ray"),
    ],
)
def test_a_mistake_is_one_line(monkeypatch, capsys, tmp_path, arguments, message):
    assert message in refused(monkeypatch, capsys, "--out", tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_what_is_given_replaces_the_presets_own():
    command = SweepGrid(preset="gpu", seeds=(7, 8, 9), depth=1, batch_size=2)
    preset = command._preset()
    assert (preset.seeds, preset.depth, preset.widths) == ((7, 8, 9), 1, PRESETS["gpu"].widths)
    sizes = command._with(preset)
    assert (sizes.batch_size, sizes.sequence_length) == (2, PRESETS["gpu"].text["sequence_length"])
    # The sizes of the text are nothing to a problem of the user's own.
    own = SweepGrid(preset="gpu", problem="digits")
    assert own._preset().depth is None
    assert own._with(preset).batch_size is None


def test_what_is_foreseen_is_added_up():
    output, found = io.StringIO(), [Foreseen(32, 240, 20, 1, 0.5, 4.0)]
    _print_foreseen(Grid.of(PRESETS["docs"], 3), found, Console(file=output, width=90))
    said = output.getvalue()
    assert "12 recipes, 4 seeds, 100 steps" in said and "adam: from 2^-8 to 2^-4" in said
    assert "about 0:00:14 for these" in said and "At most 3 octaves" in said
