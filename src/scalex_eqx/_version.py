"""The version, which stands in `pyproject.toml` alone."""

import importlib.metadata
from pathlib import Path

NAME = "scalex_eqx"


def version() -> str:
    """That of the installed package, or of the source tree that is used without installing."""
    try:
        return importlib.metadata.version(NAME)
    except importlib.metadata.PackageNotFoundError:
        return _in_tree(Path(__file__).parents[2] / "pyproject.toml")


def _in_tree(path: Path) -> str:
    import tomllib  # Hardly ever needed, and the package's import is to be quick.

    try:
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        return str(project["version"]) if project["name"] == NAME else "unknown"
    except (OSError, ValueError, KeyError):
        return "unknown"


__version__ = version()
