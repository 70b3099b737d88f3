"""What importing the package costs a process, beside what it needs anyway.

    python tests/benchmarks/bench_import.py [--rounds 21]

Starts a fresh interpreter for each import, turn and turn about, and prints median and quartiles
of its wall time and of its processor time, and those of the ratio of neighbouring runs. The target
is a ratio of at most 1.2. An interpreter that imports nothing shows what of it is Python's own.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

NEEDED = "import optax, equinox"
STATEMENTS = {"nothing": "pass", "optax, equinox": NEEDED, "scalex_eqx": "import scalex_eqx"}


class Cost(NamedTuple):
    """Milliseconds of one process."""

    wall: float
    processor: float


def cost(statement: str, bytecode: str) -> Cost:
    # Compiled once, as after an installation, whatever this environment says of bytecode.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode, "PYTHONDONTWRITEBYTECODE": ""}
    start, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-c", statement], check=True, env=environment)
    wall, after = time.perf_counter() - start, os.times()
    user = after.children_user - before.children_user
    return Cost(1e3 * wall, 1e3 * (user + after.children_system - before.children_system))


def shown(values: list[float], digits: int) -> str:
    low, median, high = statistics.quantiles(values, n=4)
    return f"{median:6.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=21)
    arguments = parser.parse_args()
    costs: dict[str, list[Cost]] = {name: [] for name in STATEMENTS}
    with tempfile.TemporaryDirectory() as bytecode:
        for round in range(1 + arguments.rounds):
            for name, statement in STATEMENTS.items():
                found = cost(statement, bytecode)
                # The first round compiles, and fills the system's cache of files.
                costs[name] += [found] if round else []
    print(f"{arguments.rounds} rounds, milliseconds: median, quartiles")
    for kind in Cost._fields:
        print(f"{kind} time")
        for name, measured in costs.items():
            times = [getattr(one, kind) for one in measured]
            base = [getattr(one, kind) for one in costs["optax, equinox"]]
            ratios = [mine / its for mine, its in zip(times, base, strict=True)]
            print(f"  {name:16}{shown(times, 0)}   ratio {shown(ratios, 2)}")


if __name__ == "__main__":
    main()
