"""Builds what would be published, and tries it in clean environments.

    python tests/smoke/wheel.py

The sdist holds every tracked file, and the wheel is built from it. The wheel runs alone; its
command says which extra is missing, and with the extra it runs. On the oldest Python it also runs
with the lowest versions that `pyproject.toml` allows.
"""

import contextlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINNED = ("-c", str(ROOT / "constraints.txt"))
# Neither the checkout's sources nor the environment of the caller.
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {
    "JAX_PLATFORMS": "cpu"
}

TRIAL = """
import importlib.metadata as metadata, sys
import equinox as eqx, jax, jax.numpy as jnp
import scalex_eqx as sx

assert "site-packages" in sx.__file__, sx.__file__

def make(width):
    return eqx.nn.MLP(8, 4, width, depth=2, key=jax.random.key(0))

def loss(model, x, y):
    return jnp.mean((jax.vmap(sx.resolve(model))(x) - y) ** 2)

model = sx.parameterize(make, width=64, base_width=16, parameterization=sx.standard)
tx = sx.adam(3e-3)
assert "layers/1/weight" in str(sx.plan(model, tx))
state = tx.init(eqx.filter(model, eqx.is_array))
x = jax.random.normal(jax.random.key(1), (32, 8))

@eqx.filter_jit
def step(model, state):
    value, grads = eqx.filter_value_and_grad(loss)(model, x, x[:, :4])
    updates, state = tx.update(grads, state, eqx.filter(model, eqx.is_array))
    return eqx.apply_updates(model, updates), state, value

losses = []
for _ in range(20):
    model, state, value = step(model, state)
    losses.append(float(value))
assert losses[-1] < 0.7 * losses[0], losses
names = ("jax", "jaxlib", "equinox", "optax", "jaxtyping", "numpy", "scipy")
print("trained:", f"{losses[0]:.2f} to {losses[-1]:.2f};",
      ", ".join(f"{name} {metadata.version(name)}" for name in names))
"""


def run(*command: object, cwd: Path, code: int = 0) -> str:
    """What a command printed; exits with all of it if it ended otherwise than with `code`."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=CLEAN, capture_output=True, text=True
    )
    if done.returncode != code:
        sys.exit(
            f"wheel: 0 passed, 1 failed: {' '.join(map(str, command))} ended with "
            f"{done.returncode}, not {code}:\n{done.stdout}{done.stderr}"
        )
    return done.stdout + done.stderr


@contextlib.contextmanager
def environment(*packages: object) -> Iterator[Path]:
    """The `bin` of a new virtual environment, outside the checkout, with these packages in it."""
    with tempfile.TemporaryDirectory() as folder:
        run(sys.executable, "-m", "venv", folder, cwd=ROOT)
        install(Path(folder) / "bin", *packages)
        yield Path(folder) / "bin"


def install(binaries: Path, *packages: object) -> None:
    pip = (binaries / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, *packages, cwd=binaries)


def check(condition: bool, what: str) -> None:
    if not condition:
        sys.exit(f"wheel: 0 passed, 1 failed: {what}")


def built(folder: Path) -> Path:
    """The wheel, built from the sdist as an installer would; both are looked at."""
    with environment("hatchling") as binaries:
        hatchling = (binaries / "python", "-m", "hatchling", "build", "-d", folder)
        run(*hatchling, "-t", "sdist", cwd=ROOT)
        [sdist] = folder.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        source = folder / sdist.name.removesuffix(".tar.gz")
        _check_files("sdist", {p.relative_to(source).as_posix() for p in source.rglob("*")}, "")
        run(*hatchling, "-t", "wheel", cwd=source)
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        _check_files("wheel", set(archive.namelist()), "src/")
    return wheel


def _check_files(kind: str, found: set[str], prefix: str) -> None:
    """Every tracked file that belongs into it is there, and nothing that doesn't."""
    tracked = run("git", "ls-files", cwd=ROOT).splitlines()
    kept = [name for name in tracked if name.startswith(prefix) and not name.startswith(".ci/")]
    expected = {name.removeprefix(prefix) for name in kept}
    check(expected <= found, f"the {kind} lacks {sorted(expected - found)[:5]}")
    foreign = (".venv", ".git/", "runs/", "__pycache__", "site/index.html")
    strange = sorted(name for name in found if any(part in name for part in foreign))
    check(not strange, f"the {kind} has {strange[:5]}")
    if prefix:
        others = sorted(n for n in found if not n.startswith("scalex_eqx"))
        check(not others, f"the wheel would install {others[:5]} beside the package")


def tried(wheel: Path) -> str:
    """The wheel alone, then with its extra."""
    with environment(*PINNED, wheel) as binaries:
        trained = run(binaries / "python", "-I", "-c", TRIAL, cwd=binaries)
        missing = run(binaries / "scalex", "exponents", cwd=binaries, code=2)
        check(
            missing.count("\n") == 1 and "scalex_eqx[experiments]" in missing,
            f"without the extra, scalex says {missing!r}",
        )
        install(binaries, *PINNED, f"{wheel}[experiments]")
        check("readout" in run(binaries / "scalex", "exponents", cwd=binaries), "scalex exponents")
        check("eps" in run(binaries / "scalex", "plan", "standard:adam:full", cwd=binaries), "plan")
    return trained.strip()


def tried_with_the_lowest(wheel: Path) -> str:
    """With every dependency of the core at the lowest version that it allows."""
    lowest = [name.replace(">=", "==") for name in PROJECT["dependencies"]]
    with environment(*lowest, wheel) as binaries:
        return run(binaries / "python", "-I", "-c", TRIAL, cwd=binaries).strip()


def main() -> None:
    oldest = PROJECT["requires-python"].removeprefix(">=")
    mine = ".".join(map(str, sys.version_info[:2]))
    with tempfile.TemporaryDirectory() as folder:
        wheel = built(Path(folder))
        found = {"alone and with the extra": tried(wheel)}
        if mine == oldest:
            found["with the lowest versions"] = tried_with_the_lowest(wheel)
    print(f"{wheel.name} on Python {mine}: {len(found)} passed, 0 failed")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
