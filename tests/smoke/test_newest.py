"""How the newest Python is found, with executables that only say a version."""

import sys
from pathlib import Path

import pytest

from . import newest

ABOVE = sys.version_info.minor + 1


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path; nothing else is looked at but what a test puts below it."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "uv"))
    return tmp_path


def python(folder: Path, minor: int, does: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"python3.{minor}"
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o755)
    return str(path)


def test_the_newest_one_that_starts_comes_first(found: Path):
    on_path = python(found / "bin", ABOVE, f"echo 3 {ABOVE} 4")
    python(found / "pyenv/versions/a/bin", ABOVE, f"echo 3 {ABOVE} 3")
    of_pyenv = python(found / "pyenv/versions/b/bin", ABOVE + 1, f"echo 3 {ABOVE + 1} 0")
    of_uv = python(found / "uv/cpython/bin", ABOVE + 3, f"echo 3 {ABOVE + 3} 1")
    # A shim of pyenv's without its version, one without `venv`, one that is not what it says.
    python(found / "bin", ABOVE + 4, "echo not found >&2; exit 127")
    python(found / "bin", ABOVE + 5, "exit 1")
    python(found / "bin", ABOVE + 6, "echo 3 10 2")
    # One that is not released prints nothing.
    python(found / "bin", ABOVE + 2, "exit 0")
    assert newest.newer_pythons() == [
        ((3, ABOVE + 3, 1), of_uv),
        ((3, ABOVE + 1, 0), of_pyenv),
        ((3, ABOVE, 4), on_path),
    ]


def test_where_there_is_none_the_reason_is_printed(found: Path, capsys):
    python(found / "bin", ABOVE, "exit 127")
    newest.main()
    mine = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"skipped: no Python newer than {mine} was found" in capsys.readouterr().out


def test_this_python_says_its_version():
    assert newest.version(sys.executable) == sys.version_info[:3]
    assert newest.version("/no/such/python") is None


def test_what_cannot_be_fetched_is_told_from_what_is_wrong():
    missing = "ERROR: Could not find a version\nERROR: No matching distribution found for jax==1\n"
    assert newest.not_fetched(missing) == "No matching distribution found for jax==1"
    assert newest.not_fetched("ERROR: ResolutionImpossible: for help visit ...") == ""
