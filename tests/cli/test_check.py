"""`scalex check` and `scalex align`, at a small size."""

import json
import sys

import pytest

from scalex_eqx.cli._commands import run

SMALL = "--widths 16 32 --head-dimension 8 --depth 1 --seeds 0 1 --steps 2 --sequence-length 8"


@pytest.fixture
def scalex(monkeypatch, capsys):
    """What a command prints, and on which line."""

    def call(*arguments: str, code: int | None = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["scalex", *map(str, arguments)])
        assert run() == code or code is None
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


def test_a_check_over_the_depth(scalex):
    sizes = "--widths 16 --depths 1 2 --head-dimension 8 --seeds 0 --steps 1 --sequence-length 8"
    recipe = ("mup:adam:full", "--size", "depth", "--alpha", "1/2", "--learning-rate", "2^-6")
    data = json.loads(scalex("check", *recipe, *sizes.split(), "--json", code=None))
    # So small a check may end in any verdict.
    rows = {row["weight"]: row for row in data["tables"][0]["rows"]}
    assert rows["blocks/mlp/down/weight/last"]["initial_expected"] == -0.5
    assert rows["blocks/mlp/up/weight/middle"]["update_expected"] == -0.5
    assert rows["readout/weight"]["update_expected"] == 0


def test_a_density_out_of_range_is_named(scalex):
    sizes = ("--size", "density", "--widths", "16", "--densities", "1", "3/2")
    told = scalex("check", "mup:adam:full", *sizes, code=2)
    assert "one of --densities is '3/2'; expected a number above 0" in told


HOST = """
import equinox as eqx
import jax
import numpy as np
from scalex_eqx.problems import Problem

problem = Problem(
    lambda width, key: eqx.nn.MLP(3, 2, width, 1, key=key),
    lambda model, batch: ((jax.vmap(model)(batch) - 1) ** 2).mean(),
    held_out=np.ones((2, 3), np.float32),
    read=lambda seed, step: np.random.default_rng([seed, step]).normal(size=(4, 3)).astype("f"),
)
"""


def test_batches_may_come_from_the_host(scalex, tmp_path):
    (tmp_path / "host.py").write_text(HOST)
    words = f"--problem {tmp_path}/host.py:problem --widths 8 16 --seeds 0 1 --steps 2 --json"
    data = json.loads(scalex("check", "mup:adam:full", *words.split(), code=None))
    rows = {row["weight"]: row for row in data["tables"][0]["rows"]}
    assert rows["layers/0/weight"]["update_expected"] == 0
    # Other batches, other sizes: that they reach the model.
    (tmp_path / "host.py").write_text(HOST.replace("size=(4, 3)", "size=(4, 3), scale=9.0"))
    other = json.loads(scalex("check", "mup:adam:full", *words.split(), code=None))
    assert data["tables"][0]["rows"] != other["tables"][0]["rows"]


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
        (
            ("check", "mup:adam:full", "--depths", "2", "4"),
            "--depths is given, but --size is width",
        ),
        (("check", "mup:adam:full", "--alpha", "1"), "--alpha is given, but --size is width"),
        (
            ("check", "mup:adam:full", "--size", "depth", "--widths", "64", "128"),
            "--widths has 2 values; with --size depth",
        ),
        (
            ("check", "mup:adam:full", "--size", "depth", "--widths", "64", "--depth", "3"),
            "--depth is given, but --size is depth",
        ),
        (
            ("check", "mup:adam:full", "--size", "depth", "--widths", "64", "--alpha", "2"),
            "--alpha is '2'; expected 1/2 to 1",
        ),
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
