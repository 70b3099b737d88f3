"""Where the time of a sweep's steps goes, by kind of operation.

    python tests/benchmarks/profile_sweep.py
    python tests/benchmarks/profile_sweep.py --widths 64 256 --out docs/results/sweep_profile.json

JAX's profiler times each operation of the compiled steps of `scalex transfer`'s Transformer, one
run on each core; the operation's name in the compiled program says what it came from. Shares are
of the time inside operations; the profiler itself slows small ones down.
"""

import argparse
import collections
import glob
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax

sys.path.insert(0, str(Path(__file__).parent))
from _sweep_builds import CORES, Slotted
from bench_sweep import machine

INSTRUCTION = re.compile(r"\s*(?:ROOT )?%([\w.\-]+) = .*?op_name=\"([^\"]*)\"")
ATTENTION = ("qhd", "hqk")


def kind(operation: str, name: str) -> str:
    """What an operation is for, from its own name and from where its program has it."""
    is_backward = "transpose(" in name
    if name.endswith("dot_general"):
        if any(axes in name for axes in ATTENTION):
            return "attention products"
        if not is_backward:
            return "weights' products, forward"
        # Both operands have the tokens first, which the library for the others does not take.
        is_of_weights = operation.startswith("dot")
        return "weights' products, " + ("weight gradients" if is_of_weights else "input gradients")
    if "jvp(" in name:
        return "between products, " + ("backward" if is_backward else "forward")
    return "update rule and batches"


def profiled(width: int, depth: int) -> dict[str, float]:
    """Milliseconds of a step of one run by kind."""
    slots: Any = Slotted(width, depth, None)._slots
    slots.advance()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(slots.advance())
        (path,) = glob.glob(folder + "/**/*.xplane.pb", recursive=True)
        data = jax.profiler.ProfileData.from_file(path)
    lines = slots._advance.as_text().splitlines()
    names = {found[1]: found[2] for line in lines if (found := INSTRUCTION.match(line))}
    times: collections.Counter[str] = collections.Counter()
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                operation = str(dict(event.stats).get("hlo_op", ""))
                # Loops and calls hold other operations.
                if operation and not operation.startswith(("while", "call", "conditional")):
                    times[kind(operation, names.get(operation, ""))] += event.duration_ns
    scale = 1e-6 / slots.chunk / CORES
    return {name: scale * time for name, time in times.most_common()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    content: dict[str, Any] = {"machine": machine(), "depth": given.depth, "widths": {}}
    for width in given.widths:
        found = profiled(width, given.depth)
        whole = sum(found.values())
        content["widths"][width] = {k: float(f"{t / whole:.3f}") for k, t in found.items()}
        print(f"width {width}: {whole:.2f} ms in operations of a step of one run")
        for name, time in found.items():
            print(f"    {time / whole:6.1%} {name}")
    if given.out is not None:
        given.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
