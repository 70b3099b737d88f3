"""How fast checkpoints are: `python tests/benchmarks/bench_checkpoint.py --megabytes 1024`.

Beside `save` and `load`, in turns: the same bytes written and read as they are, also synced to the
disk, and `equinox.tree_serialise_leaves`, which neither syncs nor has checksums. Medians.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import scalex_eqx as sx


def plain_write(path: Path, data: memoryview) -> None:
    with path.open("wb") as file:
        file.write(data)
        os.fsync(file.fileno())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    tree = {f"x{i}": jnp.full((options.megabytes, 1 << 14), i, jnp.float32) for i in range(16)}
    data = memoryview(bytearray(options.megabytes << 20))
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs, plain = (Path(folder) / name for name in ("a.ckpt", "b.eqx", "c"))

        def load() -> Any:
            return jax.block_until_ready(sx.load(ours, tree))

        ways: dict[str, Callable[[], Any]] = {
            "plain write, synced": lambda: plain_write(plain, data),
            "save": lambda: sx.save(ours, tree),
            "equinox, not synced": lambda: eqx.tree_serialise_leaves(theirs, tree),
            "plain read": plain.read_bytes,
            "load": load,
            "equinox, read": lambda: eqx.tree_deserialise_leaves(theirs, tree),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                times[name].append(time.perf_counter() - start)
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:20} {median:6.2f} s  {options.megabytes / 1024 / median:5.2f} GiB/s")


if __name__ == "__main__":
    main()
