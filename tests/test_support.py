"""The versions that the support policy names are those of the pins and of the package."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/support.md").read_text(encoding="utf-8")
PINS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HELD = ("3.11", "3.12", "3.13")


def pinned(python: str) -> dict[str, str]:
    """The version of each package on a Python."""
    fitting = [
        pin for pin in PINS if not pin.marker or pin.marker.evaluate({"python_version": python})
    ]
    found = {pin.name.lower(): str(pin.specifier).removeprefix("==") for pin in fitting}
    assert len(found) == len(fitting), "a package is pinned twice"
    return found


@pytest.mark.parametrize("python", [*HELD, "3.14"])
def test_every_python_has_one_pin_of_everything(python: str):
    names = {pin.name.lower() for pin in PINS}
    assert pinned(python).keys() == names
    assert all(re.fullmatch(r"[0-9][\w.]*", version) for version in pinned(python).values())


def test_no_pin_names_a_host():
    assert not [pin for pin in PINS if pin.url]
    assert "://" not in (ROOT / "constraints.txt").read_text(encoding="utf-8")


def test_the_page_names_the_pins():
    rows = dict(re.findall(r"^\| (3\.\d+) \| (.*) \|$", PAGE, re.MULTILINE))
    assert list(rows) == [HELD[0], HELD[-1]]
    for python, row in rows.items():
        pins = pinned(python)
        jax, numpy, _ = row.split(" | ")
        assert jax.split(",")[0] == pins["jax"] == pins["jaxlib"]
        assert numpy == pins["numpy"]
    assert pinned("3.12") == pinned("3.13")


def test_what_the_package_says_of_itself():
    assert PROJECT["requires-python"] == f">={HELD[0]}"
    named = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if ":: 3." in c]
    assert tuple(named) == HELD


def test_floors_are_below_every_pin():
    for text in PROJECT["dependencies"]:
        floor = Requirement(text)
        assert [part.operator for part in floor.specifier] == [">="], text
        assert all(floor.specifier.contains(pinned(python)[floor.name]) for python in HELD)
