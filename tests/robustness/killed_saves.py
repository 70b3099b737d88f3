"""Kills writers of a checkpoint at random moments: `python tests/robustness/killed_saves.py`.

A writer saves a model and its optimizer's state again and again over the same file, each time with
another number everywhere. After SIGKILL the file must load, hold one number only, and be no older
than the last save that was reported as finished. What a killed writer leaves in the folder has to
be gone after the next save.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import scalex_eqx as sx


def tree(number: int) -> Any:
    """A model of 3 MB and its state, with `number` in place of every array's values."""

    def make(width: int) -> Any:
        return sx.nn.MLP(64, width, 64, key=jax.random.key(0))

    model = sx.parameterize(make, width=2048, base_width=64, parameterization=sx.mup)
    state = sx.adam(0.1).init(eqx.filter(model, eqx.is_inexact_array))
    return filled((model, state, 0), number)


def filled(tree: Any, number: int) -> Any:
    """`tree` with `number` for every array's values, and for every number."""
    return jax.tree.map(
        lambda x: jnp.full_like(x, number) if eqx.is_array(x) else x if callable(x) else number,
        tree,
    )


def write(path: Path) -> None:
    """What is killed: says each number once it is saved."""
    blank, number = tree(0), 0
    while True:
        number += 1
        sx.save(path, jax.block_until_ready(filled(blank, number % 1000)))
        print(number, flush=True)


def kill_one(path: Path, like: Any, wait: float) -> str:
    """The outcome of one kill, `wait` seconds after the first save."""
    command = [sys.executable, __file__, "--write", str(path)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    said = writer.stdout.readline()
    time.sleep(wait)
    writer.send_signal(signal.SIGKILL)
    last = (said + writer.stdout.read()).split()[-1]
    writer.wait()
    found = {
        int(x)
        for leaf in jax.tree.leaves(sx.load(path, like))
        if not callable(leaf)
        for x in np.unique(np.asarray(leaf))
    }
    if len(found) != 1:
        return "mixed"
    if found - {int(last) % 1000, (int(last) + 1) % 1000}:
        return "lost"
    left = len(list(path.parent.iterdir())) > 1
    return "killed within a save, the old one is there" if left else "killed between saves"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--out", type=Path, help="a JSON file for the counts")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write(options.write)
    draw, like = random.Random(0), tree(0)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint"
        for _ in range(options.kills):
            found[kill_one(path, like, draw.uniform(0, 0.2))] += 1
        sx.save(path, like)
        found["files left after the next save"] = len(list(Path(folder).iterdir())) - 1
    print("\n".join(f"{n:4} {outcome}" for outcome, n in sorted(found.items())))
    if options.out:
        options.out.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    if found["mixed"] or found["lost"] or found["files left after the next save"]:
        raise SystemExit("a checkpoint was lost, or something was left")


if __name__ == "__main__":
    main()
