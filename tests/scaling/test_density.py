"""The exponents of the density: a small measurement, and the tables that the docs show."""

import json
import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import norm

import scalex_eqx as sx
from scalex_eqx.diagnostics import Results

from .density_exponents import LARGEST, exponents
from .density_transfer import shown

DOCS = Path(__file__).parents[2] / "docs"
SMALL: Any = {
    "densities": (1, Fraction(1, 8)),
    "width": 256,
    "base": 64,
    "seeds": range(2),
}


@pytest.mark.parametrize(
    ("correction", "size", "change"),
    [("none", 0.5, 1), ("spread and rate", 0, 0)],
)
def test_what_comes_out_and_its_change(correction: str, size: float, change: float):
    """What two seeds of 256 neurons scatter by is less than 0.1; a factor amiss is 1/2 or 1."""
    found = exponents(sx.mup, "adam", correction, **SMALL)
    assert found[0].value == pytest.approx(size, abs=0.1)
    assert found[1].value == pytest.approx(change, abs=0.15)


def test_the_largest_entries_are_larger_than_the_law_says():
    """The negative control: their root mean square is that of the tails of a normal distribution.

    Of entries beyond t it is sqrt(2 (t phi(t) + Q(t)) / rho), rho = 2 Q(t), in exact arithmetic.
    """
    rho = 1 / 8
    t = norm.isf(rho / 2)
    kept = 2 * (t * norm.pdf(t) + norm.sf(t)) / rho
    size, change = exponents(sx.mup, "adam", LARGEST, **SMALL)
    assert size.value == pytest.approx(math.log(kept) / (2 * math.log(rho)), abs=0.1)
    assert size.interval[1] < -0.1
    assert change.value == pytest.approx(0, abs=0.15)


def test_the_tables_are_those_of_the_results():
    text = (DOCS / "results/density_exponents.json").read_text(encoding="utf-8")
    rows = Results.from_json(text).table("exponents of the density").rows
    page = (DOCS / "sparsity.md").read_text(encoding="utf-8")
    for row in rows:
        size, change = (
            f"{row[name]:+.2f}".replace("-0.00", "+0.00") for name in ("size", "change")
        )
        law, rule, corrected = (str(row[x]) for x in ("parameterization", "rule", "corrected"))
        if corrected == "counted twice over":
            assert f"exponent of {change}" in page
        elif (law, rule) == ("mup", "adam"):
            name = {"none": "neither (muP)", LARGEST: f"spread and rate, {LARGEST}"}
            name = name.get(corrected, corrected)
            assert re.search(
                rf"^\| {re.escape(name)} \| {re.escape(size)} \| {re.escape(change)} ",
                page,
                re.MULTILINE,
            ), row
        else:
            assert re.search(
                rf"^\| {law} \| {rule} \| {re.escape(size)} \| {re.escape(change)} ",
                page,
                re.MULTILINE,
            ), row
    assert json.loads(text)


def test_the_table_of_the_text_is_that_of_the_results():
    text = (DOCS / "results/density_transfer.json").read_text(encoding="utf-8")
    rows = Results.from_json(text).table("octaves from the dense model").rows
    page = (DOCS / "sparsity.md").read_text(encoding="utf-8")
    assert len(rows) >= 5
    for row in rows:
        assert shown(row) in page, row
