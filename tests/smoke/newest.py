"""Runs the page "Ten minutes" on the newest Python found, with the newest JAX that the constraints
give it.

    python tests/smoke/newest.py

The environment, `.venv-smoke-3.13`, is made once and kept. Where there is no Python newer than the
one in use, or its packages cannot be fetched, the test is skipped with the reason.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = "docs/start.md"
# As the page says, but following the source.
REQUIREMENTS = ("-c", "constraints.txt", "-e", ".[experiments]", "scikit-learn")
# Released, and with `venv`: says its version.
PROBE = (
    "import ensurepip, sys, venv; v = sys.version_info; "
    "v.releaselevel == 'final' and print(v.major, v.minor, v.micro)"
)


def executables() -> Iterator[str]:
    """Every `python3.X` newer than this one: on the path, of pyenv, of uv."""
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv") / "versions"
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share")
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv/python")
    for minor in range(sys.version_info.minor + 1, sys.version_info.minor + 20):
        name = f"python3.{minor}"
        yield from filter(None, [shutil.which(name)])
        for folder in (pyenv, uv):
            yield from map(str, folder.glob(f"*/bin/{name}"))


def version(executable: str) -> tuple[int, ...] | None:
    """Its version, or None of one that doesn't start, as pyenv's shims may not."""
    try:
        asked = subprocess.run(
            [executable, "-c", PROBE], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = asked.stdout.split()
    return tuple(map(int, words)) if asked.returncode == 0 and len(words) == 3 else None


def newer_pythons() -> list[tuple[tuple[int, ...], str]]:
    """Version and executable of those that start, the newest first; one for each 3.X."""
    found: dict[int, tuple[tuple[int, ...], str]] = {}
    for executable in executables():
        known = version(executable)
        if known is not None and known[:2] > sys.version_info[:2]:
            found[known[1]] = max(found.get(known[1], ((), "")), (known, executable))
    return sorted(found.values(), reverse=True)


def installed(python: str, environment: Path) -> str:
    """Makes the environment or brings it up to date; returns why it could not be, or nothing."""
    stamp, sources = environment / ".installed", (ROOT / "pyproject.toml", ROOT / "constraints.txt")
    newest = max(source.stat().st_mtime for source in sources)
    if stamp.exists() and stamp.stat().st_mtime >= newest:
        return ""
    inside = str(environment / "bin/python")
    pip = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    shutil.rmtree(environment, ignore_errors=True)
    subprocess.run([python, "-m", "venv", str(environment)], check=True, capture_output=True)
    done = subprocess.run(
        [*pip, "--retries", "1", *REQUIREMENTS], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode == 0:
        stamp.touch()
        return ""
    shutil.rmtree(environment, ignore_errors=True)
    reason = not_fetched(done.stderr)
    if not reason:
        sys.exit(f"smoke test: 0 passed, 1 failed: pip install on {python}:\n{done.stderr}")
    return reason


def not_fetched(errors: str) -> str:
    """What pip could not fetch, for want of a network or of a build; nothing if that isn't it."""
    found = re.search(r"ERROR: (No matching distribution found for .*)", errors)
    return found[1].strip() if found else ""


def main() -> None:
    reasons = []
    for known, python in newer_pythons():
        name = ".".join(map(str, known))
        environment = ROOT / f".venv-smoke-{known[0]}.{known[1]}"
        reason = installed(python, environment)
        if not reason:
            run(environment / "bin/python", name)
            return
        reasons.append(f"Python {name} has not got its packages ({reason})")
    mine = ".".join(map(str, sys.version_info[:2]))
    reasons = reasons or [f"no Python newer than {mine} was found"]
    print(f"smoke test of {PAGE}: skipped: {'; '.join(reasons)}")


def run(python: Path, name: str) -> None:
    """Runs the page; exits with its error if it fails."""
    asked = "import importlib.metadata as m; print(m.version('jax'))"
    jax = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True)
    title = f"smoke test of {PAGE} on Python {name}, JAX {jax.stdout.strip()}"
    outside = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    environment = outside | {"MPLBACKEND": "Agg", "JAX_PLATFORMS": "cpu"}
    page = [python, "-W", "error", ROOT / "tests/smoke/_page.py", ROOT / PAGE]
    if subprocess.run(page, env=environment).returncode != 0:
        sys.exit(f"{title}: 0 passed, 1 failed")
    print(f"{title}: 1 passed, 0 failed")


if __name__ == "__main__":
    main()
