"""How near the training of a sweep comes to the machine's matrix-product rate.

Run: `.venv/bin/python tests/benchmarks/bench_sweep.py [--widths 64 128 256] [--before PATH]`.
Prints, for each width, the rate of a chunk of steps as a share of the float32 matrix products
measured in the same process, interleaved: median and range. The rate counts matrix products only,
forward and backward. With `--before`, another checkout's sources (as of a build with slots), both
are measured in turn.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

BATCH, LENGTH, DEPTH, RUNS = 4, 64, 2, 24
SOURCE = Path(__file__).resolve().parents[2] / "src"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--widths", nargs="+", type=int, default=[64, 128, 256])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--chunks", type=int, default=5)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure, arguments.chunks)))
        return
    builds = {"": SOURCE, **({"before": arguments.before} if arguments.before else {})}
    for width in arguments.widths:
        found: dict[str, list[dict]] = {name: [] for name in builds}
        for _ in range(arguments.repeats):
            for name, source in builds.items():
                found[name].append(in_process(source, width, arguments.chunks))
        for name, runs in found.items():
            shares = np.array([run["share"] for run in runs])
            steps = np.array([run["milliseconds"] for run in runs])
            print(
                f"width {width} {name}: share of the matrix rate {np.median(shares):.2f} "
                f"({shares.min():.2f} to {shares.max():.2f}); a step of {RUNS} runs "
                f"{np.median(steps):.1f} ms ({steps.min():.1f} to {steps.max():.1f})"
            )


def in_process(source: Path, width: int, chunks: int) -> dict:
    """One measurement in a process of its own, which imports the sources given."""
    command = [sys.executable, __file__, "--measure", str(width), "--chunks", str(chunks)]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def measure(width: int, chunks: int) -> dict[str, float]:
    """The median share and time over some chunks of steps."""
    import jax

    jax.config.update("jax_num_cpu_devices", min(os.cpu_count() or 1, 8))

    import jax.numpy as jnp

    from scalex_eqx.experiments import Member, Setting, load_corpus, parse_recipe
    from scalex_eqx.experiments._slots import Slots
    from scalex_eqx.experiments._train import packs
    from scalex_eqx.problems import text

    corpus = load_corpus(None)
    recipe = parse_recipe("standard:adam:full")
    setting = Setting(base_width=64, depth=DEPTH, steps=2000)
    members = [Member(recipe, width, 0.01, seed) for seed in range(RUNS)]
    (pack,) = packs(text(corpus, batch_size=BATCH, sequence_length=LENGTH), setting, members)
    slots = Slots(pack.program, pack.runs, None)
    together = len(slots.slots)
    slots.fill(list(range(together)), pack.runs)
    slots.advance()
    square = jnp.ones((2048, 2048))
    product = jax.jit(jnp.matmul)
    product(square, square).block_until_ready()
    work = together * slots.chunk * matrix_products(width, corpus.vocabulary_size)
    shares, times = [], []
    for _ in range(chunks):
        start = time.perf_counter()
        jax.block_until_ready([product(square, square) for _ in range(6)])
        peak = 6 * 2 * 2048**3 / (time.perf_counter() - start)
        start = time.perf_counter()
        slots.advance()
        seconds = time.perf_counter() - start
        shares.append(work / seconds / peak)
        times.append(1e3 * seconds / slots.chunk * RUNS / together)
    return {"share": float(np.median(shares)), "milliseconds": float(np.median(times))}


def matrix_products(width: int, vocabulary_size: int) -> float:
    """Floating-point operations in the matrix products of one run's step."""
    weights = 12 * width**2 * DEPTH + width * vocabulary_size
    attention = 2 * width * LENGTH * DEPTH
    return 6.0 * BATCH * LENGTH * (weights + attention)


if __name__ == "__main__":
    main()
