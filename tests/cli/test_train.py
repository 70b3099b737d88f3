"""The command that trains one model; more in `tests/training` and `tests/robustness`."""

import sys
from pathlib import Path

import pytest

from scalex_eqx.cli import _train
from scalex_eqx.cli._commands import run
from scalex_eqx.training import read_log

SMALL = ("--width", "16", "--base-width", "16", "--steps", "3", "--evaluate-every", "2")
PROBLEM = ("--problem", f"{Path(__file__).parents[1] / 'training/_two.py'}:regression")


@pytest.fixture
def call(monkeypatch, capsys, tmp_path: Path):
    def call(*words: str, sizes: tuple[str, ...] = SMALL) -> tuple[int, str, str]:
        out = ("--out", str(tmp_path / "out"))
        monkeypatch.setattr(sys, "argv", ["scalex", "train", "mup:adam:full", *sizes, *words, *out])
        code = run()
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def text(tmp_path: Path) -> tuple[str, ...]:
    """The options of a small Transformer on text."""
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be, that is the question. " * 100)
    return ("--data", str(path), "--depth", "1", "--sequence-length", "8")


def test_it_trains_draws_and_goes_on(call, tmp_path: Path):
    code, out, _ = call(*PROBLEM, "--save-every", "2")
    assert code == 0 and "step 2: held_out_loss" in out and "wrote log.jsonl and train.png" in out
    lines = list(read_log(tmp_path / "out/log.jsonl"))
    assert [line["step"] for line in lines] == [1, 2, 2, 3, 3]
    assert (tmp_path / "out/train.png").stat().st_size > 1000
    code, out, _ = call(*PROBLEM)
    assert code == 0 and "all 3 steps are done" in out
    assert list(read_log(tmp_path / "out/log.jsonl")) == lines


def test_dry_says_what_it_takes_and_trains_nothing(call, text, tmp_path: Path):
    code, out, _ = call(*text, "--dry")
    assert code == 0 and not (tmp_path / "out").exists()
    # Weights: 2 x 256 x 16 of embedding and readout, 8 x 16 positions, 12 x 16^2 and 3 x 16 more.
    weights = 4 * (2 * 256 * 16 + 8 * 16 + 12 * 16**2 + 3 * 16)
    assert f"{weights / 1000:.3g} kB of weights" in out
    # Products of 32 tokens, forwards and twice backwards; the first needs no gradient of its input.
    forward = 2 * 32 * (12 * 16**2 + 256 * 16 + 2 * 8 * 16)
    assert f"{3 * forward:.4g} floating-point operations" in out
    assert "mesh: 1 device, data=1" in out and "3 steps last" in out


def test_dry_refuses_what_does_not_fit(call, text):
    """Weights of 200 GB and moments of 400, from shapes alone."""
    code, out, errors = call(*text, "--dry", sizes=("--width", "65536", "--base-width", "16"))
    assert code == 2 and "readout/weight" in out
    assert errors.startswith("scalex: out of memory: a step takes at least ")
    assert "GB of weights" in errors and "are free; give more devices" in errors


def test_what_does_not_go_together(call, monkeypatch):
    for words, named in (
        (("--processes", "2"), "need a --coordinator"),
        (("--keep", "0"), "--keep is 0"),
        (("--mesh", "shard=1,shard=1"), "shard twice"),
        (("--accumulate", "3"), "not a multiple"),
    ):
        code, _, errors = call(*PROBLEM, *words)
        assert code == 2 and named in errors
    monkeypatch.setattr(_train.importlib.util, "find_spec", lambda _: None)
    code, _, errors = call(*PROBLEM)
    assert code == 2 and "pip install 'scalex_eqx[train]'" in errors
