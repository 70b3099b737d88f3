"""What a step of the update rules costs, beside Optax's and beside another build of this library.

    python tests/benchmarks/bench_rules.py --before CHECKOUT [--out docs/results/update_rules.json]

The rules of `bench_optim.py`, by a process for each build, which take their steps in turn: all
rules and both builds in each round. Prints medians and quartiles, those of the ratios to the rule
that each is compared with in the same round, and to the same rule of the build before.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

COPY = "in-place change"
# What each is compared with.
BESIDE = {
    COPY: COPY,
    "optax.adam": "optax.adam",
    "adam": "optax.adam",
    "adam_atan2": "optax.adam",
    "optax.lion": "optax.lion",
    "lion": "optax.lion",
    "optax.adafactor": "optax.adafactor",
    "adafactor": "optax.adafactor",
    "adam bfloat16": "adam bfloat16",
    "adam bfloat16 kahan": "adam bfloat16",
    "adam bfloat16 stochastic": "adam bfloat16",
    "adam bytes": "adam",
}


class Build:
    """A process that takes steps of rules with the library of a checkout."""

    def __init__(self, checkout: Path, arguments: argparse.Namespace):
        command = [sys.executable, __file__, "--worker", "--before", str(checkout)]
        command += ["--millions", str(arguments.millions), "--arrays", str(arguments.arrays)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(checkout / "src")},
        )

    def rules(self) -> list[str]:
        """Of those here the ones that it has; it is ready then."""
        return self.ask("rules")

    def ask(self, what: str) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(what, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def work(arguments: argparse.Namespace) -> None:
    """Answers with the rules that this build has, or with the milliseconds of a step of one."""
    from bench_optim import Running

    size = round((1e6 * arguments.millions / arguments.arrays) ** 0.5)
    running = {}
    for name in BESIDE:
        try:
            running[name] = Running(name, arguments.arrays, size)
        except ValueError:  # an option that an older build lacks
            continue
        running[name].step()
    for line in sys.stdin:
        asked = line.strip()
        print(json.dumps(list(running) if asked == "rules" else running[asked].step()), flush=True)


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    here = Path(__file__).parents[2]
    builds = {
        "this": Build(here, arguments),
        "before": Build(arguments.before.resolve(), arguments),
    }
    times: dict[str, dict[str, list[float]]] = {
        name: {rule: [] for rule in build.rules()} for name, build in builds.items()
    }
    for turn in range(arguments.rounds):
        for rule in BESIDE:
            for name in list(builds)[:: -1 if turn % 2 else 1]:
                if rule in times[name]:
                    times[name][rule].append(builds[name].ask(rule))
    for build in builds.values():
        build.end()
    return times


def quartiles(values: list[float]) -> str:
    low, median, high = statistics.quantiles(values, n=4)
    return f"{median:.3g} ({low:.3g} to {high:.3g})"


def ratios(times: list[float], others: list[float]) -> str:
    return quartiles([x / y for x, y in zip(times, others, strict=True)])


def rows(times: dict[str, dict[str, list[float]]]) -> list[dict[str, str]]:
    this, before = times["this"], times["before"]
    return [
        {
            "rule": rule,
            "ms": quartiles(this[rule]),
            "compared with": beside,
            "ratio": ratios(this[rule], this[beside]),
            "ratio before": ratios(before[rule], before[beside]) if rule in before else "",
            "to the build before": ratios(this[rule], before[rule]) if rule in before else "",
        }
        for rule, beside in BESIDE.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--millions", type=float, default=16.0)
    parser.add_argument("--arrays", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments)
    times = measure(arguments)

    from scalex_eqx.diagnostics import Table, record

    found = rows(times)
    table = Table("update rules", ("rule",), tuple(found[0]), found)
    print(table.to_markdown())
    if arguments.out is not None:
        command = f"python tests/benchmarks/bench_rules.py --millions {arguments.millions:g}"
        arguments.out.write_text(record([table], command).to_json(), encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
