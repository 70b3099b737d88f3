"""The evidence: its table, its verdicts, its page, and a row that is trained and goes on."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from scalex_eqx.experiments import parse_recipe

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
sys.path.insert(0, str(HERE))

import _rows
import run
from _claims import CLAIMS
from _models import problem

RESULTS = json.loads((ROOT / "docs/results/evidence.json").read_text(encoding="utf-8"))
ROWS = {row["name"]: row for row in RESULTS["rows"]}
SEEDS = RESULTS["sizes"]["seeds"]


def test_every_row_names_what_it_trains_and_who_says_so():
    for name, row in _rows.ROWS.items():
        parse_recipe(row.recipe)
        assert row.study in _rows.STUDIES and row.group in _rows.GROUPS
        assert "arXiv:" in row.source and row.says in ("", "transfers", "fails"), name
    assert {row.study for row in _rows.ROWS.values()} == set(_rows.STUDIES)


def test_claims_are_about_rows_of_their_group():
    for asked in CLAIMS:
        for one in asked.claim.statements:
            assert all(_rows.ROWS[n].group == asked.group for n in (one.first, one.second) if n)


def test_what_is_committed_is_enough():
    """Thirty rows with an interval from three seeds."""
    told = [row for row in ROWS.values() if row["interval"] is not None]
    assert len(told) >= 30 and len(SEEDS) >= 3
    assert set(ROWS) <= set(_rows.ROWS)


def test_the_verdicts_follow_from_the_losses():
    for name, row in ROWS.items():
        again = run.judged(_rows.ROWS[name], run.runs_of(name, row["losses"], SEEDS), 0)
        assert again["verdict"] == row["verdict"] and again["coarse"] == row["coarse"]
        # Through least squares, whose roundings differ between processors.
        assert again["exponent"] == pytest.approx(row["exponent"], abs=1e-9)
    assert [one["answer"] for one in run.answers(ROWS.values(), SEEDS)] == [
        one["answer"] for one in RESULTS["claims"]
    ]


def test_a_row_whose_best_rate_moves_is_told():
    """The control: losses of one width moved by two octaves, in a row that transfers."""
    name = "baseline: muP, Adam, linear schedule"
    losses = json.loads(json.dumps(ROWS[name]["losses"]))
    assert ROWS[name]["verdict"] == "transfers"
    widest = max(losses, key=int)
    losses[widest] = {f"{float(k) - 2:g}": values for k, values in losses[widest].items()}
    moved = run.judged(_rows.ROWS[name], run.runs_of(name, losses, SEEDS), 0)
    assert moved["verdict"] == "drifts" and moved["exponent"] < -0.5
    assert moved["answer"] == "doesn't hold here"
    assert len(set(moved["coarse"].values())) > 1


def test_halves_of_bytes_are_the_bytes():
    tokens, halves = problem(32).data, problem(32, nibbles=True).data
    assert (16 * halves[::2].astype(int) + halves[1::2] == tokens).all()


def test_a_row_is_trained_and_goes_on(tmp_path, capsys):
    name = "baseline: muP, Adam, linear schedule"
    out, small = tmp_path / "evidence.json", "--widths 16 32 --steps 2 --count 3 --seeds 0 1 2"
    options = [name, "--folder", str(tmp_path / "runs"), "--out", str(out), *small.split()]
    options += ["--picture", str(tmp_path / "picture.png")]
    run.ROUNDS, before = 0, run.ROUNDS
    try:
        run.main(options)
        first = json.loads(out.read_text())["rows"]
        store = next(tmp_path.rglob("runs.sqlite")).read_bytes()
        run.main(options)
    finally:
        run.ROUNDS = before
    (row,) = json.loads(out.read_text())["rows"]
    assert row == first[0] and row["name"] == name
    assert [len(values) for values in row["losses"]["32"].values()] == [3, 3, 3]
    assert len(store) > 0 and name in capsys.readouterr().out


def test_a_row_that_is_not_there_is_named(capsys):
    with pytest.raises(SystemExit):
        run.main(["no such row"])
    assert "no such row: 'no such row'; --list" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["ablations", "epsilon", "embedding", "decay", "alignment"])
def test_the_pages_tables_have_every_row(name):
    table = _hook().TABLES[name]()
    if name == "alignment":
        assert table.count("\n") >= 3
    else:
        assert all(f"| {row} |" in table for row, one in ROWS.items() if one["group"] == name)


def _hook() -> Any:
    spec = importlib.util.spec_from_file_location("hook", ROOT / "docs/hooks/evidence.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
