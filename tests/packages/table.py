"""Tries `parameterize(use=...)` on models of packages that others wrote, and writes a table.

    python tests/packages/table.py [NAMES] [--environment FOLDER] [--out docs/results/packages.json]

Makes a virtual environment of Python 3.13 with the packages of `requirements.txt` and this project,
or takes the one that is there in FOLDER. Each `case_NAME.py` builds models of a package as its
documentation does, and says by hand, from the package's source, what each of their arrays is:
looked up, summed over and by what, added, a gain, a statistic, tied. The models are of base width
32, and are given laws for width 128:

- without `use`: how many arrays `parameterize` asks about, how many options answer that, and how
  many arrays then have another role, or other axes, than the table by hand says;
- with `use`: the same;
- whether at the base width the outputs are bitwise those of the package's own model, in all four
  parameterizations;
- what the coordinate check says of muP with Adam, with two seeds, after three steps.

Models that the file has already keep their rows if they are not among NAMES. It takes some twenty
minutes, nearly all of them compilation. Ends with another status than 0 if a role that is read from
the use is wrong.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NAMES = sorted(path.stem.removeprefix("case_") for path in HERE.glob("case_*.py"))
COLUMNS = (
    *("package", "model", "arrays", "asked", "options", "wrong"),
    *("options with use", "wrong with use", "bitwise", "check", "said"),
)
ALONE = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {
    "JAX_PLATFORMS": "cpu"
}

# Run with the Python of the environment, whose versions the results are to name.
WRITE = """
import json, pathlib, sys
from scalex_eqx.diagnostics import Results, Table, record
rows, out, command = json.loads(sys.stdin.read())
if pathlib.Path(out).exists():
    new = {(row["package"], row["model"]) for row in rows}
    old = Results.from_json(pathlib.Path(out).read_text(encoding="utf-8")).table("packages").rows
    rows += [row for row in old if (row["package"], row["model"]) not in new]
rows.sort(key=lambda row: (row["package"].lower(), row["model"]))
table = Table("packages", ("package", "model"), tuple(rows[0]), rows)
print(table.to_markdown())
pathlib.Path(out).write_text(record([table], command).to_json(), encoding="utf-8")
"""


@contextlib.contextmanager
def environment(python: str, folder: Path | None) -> Iterator[Path]:
    """The Python of an environment with the packages; one that is made here is gone afterwards."""
    with tempfile.TemporaryDirectory() as temporary:
        target = folder or Path(temporary)
        own = target / "bin" / "python"
        if not own.exists():
            subprocess.run([python, "-m", "venv", target], check=True)
            install = [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*install, "--no-deps", "-r", HERE / "requirements.txt"], check=True)
            subprocess.run([*install, "--no-deps", "-e", ROOT], check=True)
        yield own


def rows_of(python: Path, name: str) -> Iterator[dict]:
    """What is found for each model of a package."""
    command = [python, HERE / "_run.py", f"case_{name}"]
    with subprocess.Popen(command, env=ALONE, stdout=subprocess.PIPE, text=True) as run:
        for line in run.stdout or ():
            yield json.loads(line)
    if run.returncode:
        sys.exit(f"case_{name}.py ended with {run.returncode}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", default=NAMES, help=f"of {', '.join(NAMES)}")
    parser.add_argument("--python", default="python3.13", help="of which the environment is made")
    parser.add_argument("--environment", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/packages.json")
    arguments = parser.parse_args()
    rows, wrong = [], 0
    with environment(arguments.python, arguments.environment) as python:
        for name in arguments.names:
            for found in rows_of(python, name):
                for kind in ("wrong", "wrong with use"):
                    for path, what in found[kind].items():
                        print(f"  {kind}: {path}: {what}")
                    found[kind] = len(found[kind])
                wrong += found["wrong with use"]
                rows.append({column: found[column] for column in COLUMNS})
                print(rows[-1], flush=True)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        handed = json.dumps([rows, str(arguments.out), "python tests/packages/table.py"])
        subprocess.run([python, "-c", WRITE], input=handed, text=True, check=True, env=ALONE)
    if wrong:
        sys.exit(f"{wrong} roles that are read from the use are wrong")


if __name__ == "__main__":
    main()
