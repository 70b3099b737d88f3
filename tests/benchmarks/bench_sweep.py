"""How fast a sweep trains: against another build, the machine's rate, and a loop by hand.

    python tests/benchmarks/bench_sweep.py
    python tests/benchmarks/bench_sweep.py --before ../checkout --out docs/results/sweep_speed.json
    python tests/benchmarks/bench_sweep.py --before ../checkout --whole 5

The text Transformer of `scalex transfer`. Everything that is compared is measured in turn, in
processes that stay: this build, the checkout's (of the commit before packs, 1fac1c8, unless it has
them), and the loop that one writes for a single model. A share is one of the rate of 2048 x 2048
float32 products before and after, and counts matrix products alone, forward and backward. Medians
stand with their least and greatest. `--whole` times the default `scalex transfer` as a whole too,
in a new folder each time.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
BUILDS = Path(__file__).with_name("_sweep_builds.py")
LENGTH, BATCH, VOCABULARY, STEPS, RUNS = 64, 4, 256, 250, 24
COMPARED, LOOPED = (64, 128, 256), (32, 64, 128)
SIZES = [(width, 2, None) for width in (32, 64, 128, 256, 512)]
SIZES += [(128, depth, None) for depth in (1, 4, 8)]
SIZES += [(width, 2, at_once) for width in (64, 256) for at_once in (1, 4, 8, 24)]


class Build:
    """A process that measures what it is asked for.

    **Arguments:**

    - `sources`: what it imports.
    - `kind`: `--slots`, `--loop`, or neither for the build before packs.
    """

    def __init__(self, sources: Path, kind: str):
        environment = {**os.environ, "PYTHONPATH": str(sources)}
        self._process = subprocess.Popen(
            [sys.executable, str(BUILDS), kind],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read()

    def ask(self, width: int, depth: int = 2, at_once: int | None = None, **more: bool) -> Any:
        """What one measurement finds."""
        asked = {"width": width, "depth": depth, "at_once": at_once, **more}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a build has ended; its errors stand above")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


def matrix_products(width: int, depth: int) -> float:
    """Floating-point operations in the matrix products of one run's step."""
    weights = 12 * width**2 * depth + width * VOCABULARY
    attention = 2 * width * LENGTH * depth
    return 6.0 * BATCH * LENGTH * (weights + attention)


def of(values: Iterable[float]) -> dict[str, float]:
    """Median and spread, to four digits."""
    found = np.array(list(values))
    numbers = {"median": np.median(found), "least": found.min(), "greatest": found.max()}
    return {name: float(f"{x:.4g}") for name, x in numbers.items()}


def share(found: Any, width: int, depth: int = 2) -> float:
    """Of the machine's rate."""
    return found["together"] * matrix_products(width, depth) / found["step"] / found["rate"]


def each(found: Any) -> float:
    """Seconds of the machine for a step of one run."""
    return found["step"] / found["together"]


def compared(builds: dict[str, Build], rounds: int) -> list[dict[str, Any]]:
    """Steps of the builds and of the loop at each width, and what they compile."""
    rows = []
    for width in sorted({*COMPARED, *LOOPED}):
        used = {n: b for n, b in builds.items() if width in (LOOPED if n == "loop" else COMPARED)}
        used |= {"now": builds["now"]}
        found: dict[str, list[Any]] = {name: [] for name in used}
        for _ in range(rounds):
            for name, build in used.items():
                # The group of the build before is trained at once, ours as many as there are cores.
                at_once = RUNS if name == "before" else None
                found[name].append(build.ask(width, at_once=at_once))
        for name, measured in found.items():
            pairs = list(zip(measured, found["now"], strict=True))
            row = {
                "width": width,
                "build": name,
                "milliseconds": of(1e3 * RUNS * each(one) for one in measured),
                "share": of(share(one, width) for one in measured),
                "now_to_this": of(each(now) / each(one) for one, now in pairs),
                "compiling": {k: float(f"{x:.3g}") for k, x in measured[0]["compiling"].items()},
            }
            rows.append(row)
            print(_line(row), flush=True)
    return rows


def _line(row: dict[str, Any]) -> str:
    time, part, ratio = (row[name] for name in ("milliseconds", "share", "now_to_this"))
    compiling = ", ".join(f"{name} {x:.1f} s" for name, x in row["compiling"].items())
    return (
        f"width {row['width']:4} {row['build']:7} a step of {RUNS} runs {_spread(time)} ms, share "
        f"of the machine's rate {_spread(part)}, now : this {_spread(ratio)}; {compiling}"
    )


def _spread(found: dict[str, float]) -> str:
    return f"{found['median']:.3g} ({found['least']:.3g} to {found['greatest']:.3g})"


def rates(build: Build, sizes: Sequence[tuple[int, int, int | None]], rounds: int) -> list[Any]:
    """Models an hour and the use of the machine, by width, depth and how many train at once."""
    measured: dict[Any, list[Any]] = {size: [] for size in sizes}
    # In turn, since the machine's own speed changes from minute to minute.
    for _ in range(rounds):
        for (width, depth, at_once), own in measured.items():
            own.append(build.ask(width, depth, at_once, whole=True))
    rows = []
    for (width, depth, _), found in measured.items():
        seconds = [STEPS * each(one) + one["beside"] for one in found]
        row = {
            "width": width,
            "depth": depth,
            "at_once": found[0]["together"],
            "models_an_hour": of(3600 / x for x in seconds),
            "share": of(share(one, width, depth) for one in found),
        }
        rows.append(row)
        print(
            f"width {width:4} depth {depth} at once {row['at_once']:2}: "
            f"{_spread(row['models_an_hour'])} models an hour, {_spread(row['share'])}",
            flush=True,
        )
    return rows


def growth(rows: Sequence[Any], name: str) -> float:
    """The exponent of the models an hour in a size, by least squares."""
    sizes = np.log2([row[name] for row in rows])
    counts = np.log2([row["models_an_hour"]["median"] for row in rows])
    return float(f"{np.polyfit(sizes, counts, 1)[0]:.3g}")


def whole(sources: dict[str, Path], times: int) -> list[dict[str, Any]]:
    """Seconds of the default `scalex transfer`, each build in turn."""
    program = "import sys; from scalex_eqx.cli import main; sys.exit(main())"
    found: dict[str, list[float]] = {name: [] for name in sources}
    for _ in range(times):
        for name, source in sources.items():
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                words = [sys.executable, "-c", program, "transfer", "--out", folder]
                environment = {**os.environ, "PYTHONPATH": str(source)}
                subprocess.run(words, env=environment, check=True, stdout=subprocess.DEVNULL)
                found[name].append(time.perf_counter() - start)
                print(f"the whole of {name}: {found[name][-1]:.0f} s", flush=True)
    now = found["now"]
    return [
        {"build": name, "seconds": of(times), "now_to_this": of(np.array(now) / np.array(times))}
        for name, times in found.items()
    ]


def machine() -> dict[str, Any]:
    """The processor and what is installed."""
    import jax

    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    version = platform.python_version()
    return {
        "processor": (names or [platform.machine()])[0],
        "cores": os.cpu_count(),
        "python": version,
        "jax": jax.__version__,
    }


def draw(rows: Sequence[Any], path: Path) -> None:
    """Models an hour and the share of the machine's rate, over each of the three sizes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(9, 5), sharey="row", layout="constrained")
    cores = rows[0]["at_once"]
    panels = {
        "width": [row for row in rows if row["depth"] == 2 and row["at_once"] == cores],
        "depth": [row for row in rows if row["width"] == 128 and row["at_once"] == cores],
    }
    for column, (name, own) in enumerate(panels.items()):
        own = sorted(own, key=lambda row: row[name])
        _draw_one(axes[:, column], own, name, "width 128" if name == "depth" else "depth 2")
    for width in sorted({row["width"] for row in rows if row["at_once"] > cores}):
        own = [row for row in rows if row["width"] == width and row["depth"] == 2]
        own.sort(key=lambda row: row["at_once"])
        _draw_one(axes[:, 2], own, "at_once", f"width {width}, depth 2")
    for axis, name in zip(axes[1], ("width", "depth", "runs at once"), strict=True):
        axis.set_xlabel(name)
    axes[0, 0].set_ylabel("models an hour")
    axes[1, 0].set_ylabel("share of the machine's rate")
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    axes[1, 0].set_ylim(0, 1)
    figure.savefig(path, dpi=110)


def _draw_one(axes: Any, rows: Sequence[Any], name: str, label: str) -> None:
    sizes = [row[name] for row in rows]
    for axis, what in zip(axes, ("models_an_hour", "share"), strict=True):
        middle = [row[what]["median"] for row in rows]
        around = [[row[what]["least"] for row in rows], [row[what]["greatest"] for row in rows]]
        spread = np.abs(np.array(around) - middle)
        axis.errorbar(sizes, middle, spread, marker="o", capsize=3, label=label)
        axis.set_xscale("log", base=2)
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.minorticks_off()
    axes[0].set_yscale("log")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--before", type=Path, help="a checkout to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--whole", type=int, default=0, help="times the whole default sweep")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    sources = {"now": ROOT / "src"}
    if given.before is not None:
        sources["before"] = given.before / "src"
    packed = {
        name: (path / "scalex_eqx/experiments/_slots.py").is_file()
        for name, path in sources.items()
    }
    builds = {
        name: Build(path, "--slots" if packed[name] else "--groups")
        for name, path in sources.items()
    }
    builds["loop"] = Build(sources["now"], "--loop")
    content: dict[str, Any] = {"command": _command(given), "machine": machine()}
    content["rounds"] = given.rounds
    content["steps"] = compared(builds, given.rounds)
    content["rates"] = rates(builds["now"], SIZES, max(3, given.rounds // 2))
    for build in builds.values():
        build.close()
    found = content["rates"]
    by_width, by_depth = (
        [r for r in found if r["at_once"] == found[0]["at_once"] and r[fixed] == value]
        for fixed, value in (("depth", 2), ("width", 128))
    )
    exponents = {"width": growth(by_width, "width"), "depth": growth(by_depth, "depth")}
    content["models_an_hour_grow_as"] = exponents
    print(", ".join(f"models an hour ~ {name}^{x}" for name, x in exponents.items()))
    if given.whole:
        content["whole"] = whole(sources, given.whole)
        for row in content["whole"]:
            ratio = _spread(row["now_to_this"])
            print(f"{row['build']}: {_spread(row['seconds'])} s, now : this {ratio}")
    if given.out is not None:
        given.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if given.picture is not None:
        draw(content["rates"], given.picture)


def _command(given: argparse.Namespace) -> str:
    before = "" if given.before is None else " --before CHECKOUT"
    times = f" --whole {given.whole}" if given.whole else ""
    return f"python tests/benchmarks/bench_sweep.py{before} --rounds {given.rounds}{times}"


if __name__ == "__main__":
    main()
