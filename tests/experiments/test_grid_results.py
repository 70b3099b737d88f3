"""What the page of the grid says, against the results beside it."""

import json
from collections import Counter
from pathlib import Path

import pytest

from scalex_eqx.experiments import Run, parse_recipe
from scalex_eqx.experiments._grid_report import grid_rows
from scalex_eqx.experiments._judged import judge_claim
from scalex_eqx.experiments._published import CLAIMS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "grid.md").read_text(encoding="utf-8")
RESULTS = json.loads((DOCS / "results/grid.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def rows():
    """Worked out again, from the runs alone."""
    runs = [Run.from_json(fields) for fields in RESULTS["runs"]]
    recipes = tuple(parse_recipe(row["recipe"]) for row in RESULTS["recipes"])
    return grid_rows(recipes, runs, Counter(run.recipe for run in runs), RESULTS["largest_width"])


def test_the_table_has_the_recipes_exponents_and_losses(rows):
    assert RESULTS["missing"] == 0 and len(rows) == 12
    for row in rows:
        drift = row.analysis.drift
        low, high = drift.interval
        line = (
            f"| `{row.recipe}` | {drift.exponent:+.2f} [{low:+.2f}, {high:+.2f}] | {row.loss:.4f} |"
        )
        assert line in PAGE


def test_the_table_has_the_answers_to_the_claims(rows):
    outcomes = {str(row.recipe): row.outcome for row in rows}
    judged = [judge_claim(claim, outcomes) for claim in CLAIMS]
    assert [str(one.answer) for one in judged] == [one["answer"] for one in RESULTS["claims"]]
    for one in judged:
        absent = "not in this grid" in one.reason
        assert (f"| {one.claim.text} | {one.claim.published} | {one.answer} |" in PAGE) != absent


def test_the_page_says_how_many_runs_there_were():
    assert f"{len(RESULTS['runs'])} runs" in PAGE
    assert RESULTS["facts"]["data"].split()[-1] in PAGE
