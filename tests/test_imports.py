"""Imports go one way, and importing the package stays cheap."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import scalex_eqx

PACKAGE = "scalex_eqx"
SOURCE = Path(scalex_eqx.__file__).parent

# A module may import those of a lower rank and itself. Equal rank: neither imports the other.
RANKS = {
    "_differences": 0,
    "_files": 0,
    "_meant": 0,
    "_pages": 0,
    "_process": 0,
    "_usage": 0,
    "_memory": 1,
    "_user_code": 0,
    "_version": 0,
    "theory": 0,
    "_explain": 1,
    "_spec": 1,
    "_fused": 1,
    "_weight": 2,
    "_jaxprs": 1,
    "_traced": 1,
    "_uses": 3,
    "ops": 3,
    "_parameterize": 4,
    "nn": 4,
    "optim": 4,
    "per_example": 4,
    "_laws": 5,
    "_sharding": 3,
    "_sparsify": 5,
    "_unresolve": 5,
    "_parts": 5,
    "_fingerprint": 6,
    "_needed": 6,
    "_makers": 6,
    "_export": 7,
    "_checkpoint": 8,
    "_convert": 8,
    "_plan": 8,
    "diagnostics": 9,
    "": 10,
    "problems": 11,
    "experiments": 12,
    "meta_training": 13,
    "training": 13,
    "cli": 14,
    "__main__": 15,
}


def modules(root: Path) -> dict[str, Path]:
    """Every module of the package at `root` by its name without the package's."""
    names = {path: path.relative_to(root).with_suffix("").parts for path in root.rglob("*.py")}
    return {
        ".".join(parts[:-1] if parts[-1] == "__init__" else parts): path
        for path, parts in names.items()
    }


def imported_names(path: Path, name: str) -> Iterator[str]:
    """The full dotted names that a module imports, anywhere in it."""
    package = [PACKAGE, *name.split(".")] if name else [PACKAGE]
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, node.module] if node.module else base
            yield from (".".join([*base, alias.name]) for alias in node.names)


def part(name: str, known: dict[str, Path]) -> str:
    """The part of the package that a dotted name belongs to; `""` is its `__init__`."""
    first = name.split(".")[1:2]
    return first[0] if first and first[0] in known else ""


def violations(root: Path) -> list[str]:
    """Every import within the package that goes upward or sideways, or whose rank is unknown."""
    known = modules(root)
    found = []
    for name, path in known.items():
        importer = name.split(".")[0]
        for imported in imported_names(path, name):
            if imported.split(".")[0] != PACKAGE:
                continue
            target = part(imported, known)
            if importer not in RANKS or target not in RANKS:
                found.append(f"{name} -> {imported}: a part without a rank")
            elif target != importer and RANKS[target] >= RANKS[importer]:
                found.append(f"{name} -> {imported}")
    return found


def test_imports_go_one_way():
    assert violations(SOURCE) == []


def test_the_check_sees_the_package():
    known = modules(SOURCE)
    assert {"", "theory", "_weight", "nn._linear", "optim._adam", "_parameterize"} <= set(known)
    imported = set(imported_names(known["nn._linear"], "nn._linear"))
    assert "scalex_eqx._weight.Weight" in imported
    assert "scalex_eqx.theory.Role" in imported


def plant(root: Path, files: dict[str, str]) -> Path:
    defaults = dict.fromkeys(
        ("__init__.py", "theory/__init__.py", "_spec.py", "_weight.py", "nn/__init__.py"), ""
    )
    defaults |= dict.fromkeys(
        ("optim/__init__.py", "experiments/__init__.py", "cli/__init__.py"), ""
    )
    for name, text in (defaults | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_tree_that_obeys_passes(tmp_path: Path):
    files = {
        "theory/_role.py": "import enum\nfrom ._rational import exact",
        "theory/_rational.py": "",
        "_weight.py": "from ._spec import WeightSpec\nfrom .theory import Role",
        "nn/_linear.py": "from .._weight import Weight\nfrom ._init import normal",
        "__init__.py": "from . import nn, optim\nfrom ._weight import Weight",
        "experiments/_train.py": "import scalex_eqx as sx\nfrom .. import optim",
        "cli/__init__.py": "from ..experiments._train import train",
    }
    assert violations(plant(tmp_path, files)) == []


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("nn/_x.py", "from ..optim import adam", "nn._x -> scalex_eqx.optim.adam"),
        ("nn/_x.py", "from .. import optim", "nn._x -> scalex_eqx.optim"),
        ("optim/_x.py", "from scalex_eqx.nn import Linear", "optim._x -> scalex_eqx.nn.Linear"),
        ("theory/_x.py", "from .._spec import WeightSpec", "theory._x -> scalex_eqx._spec.We"),
        ("_spec.py", "from ._weight import Weight", "_spec -> scalex_eqx._weight.Weight"),
        ("_weight.py", "def f():\n    from . import nn", "_weight -> scalex_eqx.nn"),
        ("_weight.py", "if True:\n    import scalex_eqx.cli", "_weight -> scalex_eqx.cli"),
        ("nn/_x.py", "import scalex_eqx as sx", "nn._x -> scalex_eqx"),
        ("__init__.py", "from . import experiments", " -> scalex_eqx.experiments"),
        ("experiments/_x.py", "from ..cli import main", "experiments._x -> scalex_eqx.cli.main"),
        ("_new.py", "from . import nn", "_new -> scalex_eqx.nn: a part without a rank"),
    ],
)
def test_a_planted_import_is_found(tmp_path: Path, file: str, text: str, message: str):
    found = violations(plant(tmp_path, {file: text}))
    assert len(found) == 1
    assert found[0].startswith(message)


def foreign_imports(root: Path) -> set[str]:
    """What the modules at `root` import from outside the package and the standard library."""
    return {
        imported.split(".")[0]
        for name, path in modules(root).items()
        for imported in imported_names(path, f"theory.{name}".rstrip("."))
    } - {PACKAGE, *sys.stdlib_module_names}


def test_theory_is_pure_python():
    assert foreign_imports(SOURCE / "theory") == set()
    assert "jax" in foreign_imports(SOURCE / "optim")


def loaded_by(statement: str) -> set[str]:
    code = f"import sys, json; {statement}; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout))


def test_importing_the_package_loads_neither_plots_nor_command_line():
    # Beside what the command line needs: what costs as much as all of the package.
    unwanted = {
        "matplotlib",
        "tyro",
        "rich",
        "sqlite3",
        "scipy",
        "scalex_eqx.cli",
        "scalex_eqx.experiments",
    }
    loaded = loaded_by("import scalex_eqx")
    assert {"scalex_eqx.nn", "scalex_eqx.diagnostics"} <= loaded
    assert unwanted & (loaded - loaded_by("import optax, equinox")) == set()


def test_a_module_that_is_loaded_is_seen():
    assert "rich" in loaded_by("import rich")
    assert "scipy" in loaded_by("import scalex_eqx.experiments")
