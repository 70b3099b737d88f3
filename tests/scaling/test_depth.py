"""The exponents of the depth: a small measurement, and the table that the docs show."""

import re
from pathlib import Path
from typing import Any

import pytest

import scalex_eqx as sx
from scalex_eqx.diagnostics import Results

from .depth_exponents import LAWS, MEASURED, OPTIMIZERS, expected, exponents

DOCS = Path(__file__).parents[2] / "docs"
SMALL: Any = {"depths": (4, 16), "seeds": (0, 1), "width": 16}


@pytest.mark.parametrize(
    ("law", "name"), [("alpha = 1", "adam"), ("alpha = 1/2", "sgd")], ids=["adam", "sgd"]
)
def test_exponents_are_those_of_the_law(law: str, name: str):
    """What one update does is exact under Adam; all else within what few seeds scatter by."""
    theory, found = expected(LAWS[law], name), exponents(LAWS[law], OPTIMIZERS[name], **SMALL)
    for what, exponent in found.items():
        exact = name == "adam" and what.startswith("update")
        assert exponent.value == pytest.approx(theory[what], abs=0.01 if exact else 0.3), what


def test_without_a_law_the_stream_grows():
    """The negative control: every law keeps it bounded."""
    found = exponents(sx.mup, OPTIMIZERS["adam"], **SMALL)
    assert found["stream at first"].value > 0.3
    assert found["change of the stream"].value > 0.5


def test_the_table_is_that_of_the_results():
    text = (DOCS / "results/depth_exponents.json").read_text(encoding="utf-8")
    rows = Results.from_json(text).table("exponents of the depth").rows
    page = (DOCS / "depth.md").read_text(encoding="utf-8")
    shown = {
        (cells[0], cells[1]): cells[2:]
        for line in re.findall(r"^\| .* \| (?:adam|sgd) \|.*$", page, re.MULTILINE)
        for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
    }
    assert len(shown) == len(LAWS) * len(OPTIMIZERS)
    for row in rows:
        law = str(row["law"])
        name = law if law == "none" else f"${law}$".replace("alpha", r"\alpha")
        theory = "" if row["theory"] is None else f" ({row['theory']:g})"
        cell = shown[name, str(row["optimizer"])][MEASURED.index(str(row["size"]))]
        exponent = row["exponent"]
        assert isinstance(exponent, float)
        assert cell == f"{exponent:+.2f}{theory}".replace("-0.00", "+0.00")
