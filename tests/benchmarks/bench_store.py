"""What a large store costs: a report of it, and a sweep that finds everything in it.

    python tests/benchmarks/bench_store.py
    python tests/benchmarks/bench_store.py --before ../checkout_of_another_commit

Makes a store of made-up runs with the code of each checkout, and measures processor time and peak
memory of `report` and of `transfer` where nothing is left to train, each in a new process, this
build and the other in turn. Imports are not counted, neither their time nor their memory: the
memory is what the process grows by.
"""

import argparse
import dataclasses
import importlib.util
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[2]
STEPS = 250
TEXT = "All happy families are alike; " * 200


def made_up(folder: Path, seeds: int) -> tuple[Any, Any, Any, dict[str, Any]]:
    """The sweep, what `transfer` and `specification` take beside it, and its configuration.

    The second half is for builds that had no problems.
    """
    from scalex_eqx.experiments import Setting, Sweep, load_corpus, parse_recipe

    text = folder / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    corpus = load_corpus(text)
    optimizers = ("adam", "adam_atan2", "sgd", "lion", "muon")
    setting: dict[str, Any] = {"base_width": 16, "depth": 1, "steps": STEPS}
    problem: dict[str, Any] = {"sequence_length": 8, "head_dimension": 16}
    has_problems = importlib.util.find_spec("scalex_eqx.problems") is not None
    sweep = Sweep(
        tuple(parse_recipe(f"{p}:{o}:full") for p in ("standard", "mup") for o in optimizers),
        (16, 32, 64, 128, 256),
        learning_rates=tuple(2.0**-i for i in range(3, 13)),
        seeds=tuple(range(seeds)),
        setting=Setting(**setting if has_problems else {**setting, **problem, "batch_size": 4}),
    )
    if has_problems:
        found = importlib.import_module("scalex_eqx.problems").text(corpus, **problem)
        facts = {"problem": found.facts, "said": dict(found.said)}
        return sweep, found, found.facts, {**sweep.to_json(), **facts}
    described = importlib.import_module("scalex_eqx.experiments._transfer")._describe(corpus, 66)
    return sweep, corpus, corpus.digest, {**sweep.to_json(), "data": described}


def make(folder: Path, runs: int) -> None:
    """Runs of ten recipes, five widths and ten rates, as if they had been trained."""
    import numpy as np

    from scalex_eqx.experiments._store import Row, Store
    from scalex_eqx.experiments._transfer import STORE, environment

    sweep, _, facts, configuration = made_up(folder, runs // 500)
    draw = np.random.default_rng(0)
    old = any(field.name == "held_out_loss" for field in dataclasses.fields(Row))

    def row(member: Any) -> Row:
        # Older builds had nothing but widths.
        width = member.size if hasattr(member, "size") else member.width
        place = np.log2(member.learning_rate) + 8 + 0.1 * np.log2(width / 16)
        loss = None if place > 4.2 else 2.0 + 0.05 * place**2 + 0.01 * draw.normal()
        curve = 2 + 4 * np.exp(-np.arange(STEPS) / 60) + 0.1 * draw.normal(size=STEPS)
        result: dict[str, Any] = {"diverged_at_step": None, "seconds": 1.5}
        result["environment"] = environment()
        if old:
            result["training_losses"] = [round(float(x), 5) for x in curve]
            rest: dict[str, Any] = {"held_out_loss": loss}
        else:
            rest = {"metrics": {"held_out_loss": loss}, "curves": {"training_losses": curve}}
        status = "diverged" if loss is None else "ok"
        return Row.of(sweep.specification(member, facts), status=status, result=result, **rest)

    members = sweep.members()
    with Store.open(folder / STORE, create=True) as store:
        store.add_sweep(configuration, environment())
        for start in range(0, len(members), 1000):
            store.add([row(member) for member in members[start : start + 1000]])


def measure(task: str, folder: Path, runs: int) -> dict[str, float]:
    """Processor seconds, and the growth of the process in MiB."""
    from rich.console import Console

    from scalex_eqx.experiments import report, transfer
    from scalex_eqx.experiments._transfer import environment

    environment()
    sweep, problem, _, _ = made_up(folder, runs // 500)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    if task == "report":
        report(folder, Console(file=io.StringIO()))
    else:
        transfer(sweep, problem, folder)
    seconds = time.process_time() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "MiB": (after - before) / 1024, "peak MiB": after / 1024}


def in_process(checkout: Path, *words: object) -> str:
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    command = [sys.executable, __file__, *map(str, words)]
    return subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path, help="another checkout to measure in turn")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        return make(options.make, options.runs)
    if options.measure:
        return print(
            json.dumps(measure(options.measure[0], Path(options.measure[1]), options.runs))
        )
    builds = {"this build": HERE}
    if options.before:
        builds = {"before": options.before.resolve(), **builds}
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as made:
        for build, checkout in builds.items():
            folder = Path(made) / build
            folder.mkdir()
            in_process(checkout, "--runs", options.runs, "--make", folder)
            size = (folder / "runs.sqlite").stat().st_size / 2**20
            print(f"{build}: store of {options.runs} runs, {size:.0f} MiB", flush=True)
        for _ in range(options.rounds):
            for task in ("report", "resume"):
                for build, checkout in builds.items():
                    text = in_process(
                        checkout, "--runs", options.runs, "--measure", task, Path(made) / build
                    )
                    found.setdefault((task, build), []).append(json.loads(text))
    for (task, build), results in found.items():
        said = []
        for unit in results[0]:
            values = [one[unit] for one in results]
            said.append(
                f"{statistics.median(values):.3g} {unit} ({min(values):.3g} to {max(values):.3g})"
            )
        print(f"{task:7} {build:10} " + ", ".join(said))


if __name__ == "__main__":
    main()
