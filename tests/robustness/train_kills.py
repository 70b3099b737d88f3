"""Kills trainings at random moments until they have ended, and compares with one left alone.

    python tests/robustness/train_kills.py --kills 20
    python tests/robustness/train_kills.py --kills 20 --small
    python tests/robustness/train_kills.py --kills 20 --signal TERM

A small Transformer, or a still smaller regression, is trained with a checkpoint every few steps, is
killed by SIGKILL at a random moment, and is started again with the same command, until it ends by
itself or has been killed often enough. Then every step must be in the log once, with the losses of
the training that was left alone, bit for bit, and so must be all arrays of the last checkpoint. A
command that is terminated has to say so in one line and end with 143.

`--out` writes the counts to a file.
"""

import argparse
import json
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from _run import SCALEX, TINY, start
from kills import Fault, stop

PACE = ("--evaluate-every", "20", "--save-every", "7")


REGRESSION = f"{Path(__file__).parents[1] / 'training/_two.py'}:regression"
SMALL = ("--width", "16", "--base-width", "8", "--problem", REGRESSION)


class Trainings:
    """One training, in folders of which each has it from its beginning."""

    def __init__(self, steps: int, sizes: tuple[str, ...], number: int):
        self.steps, self._sizes, self._number = steps, sizes, number

    def command(self, folder: Path) -> tuple[str, ...]:
        """The one in a folder."""
        words = (*SCALEX, "train", "mup:adamw:full", "--weight-decay", "1e-3", "--clip", "1")
        return (*words, *self._sizes, *PACE, "--steps", str(self.steps), "--out", str(folder))

    def killed(self, folder: Path, seconds: float, left: int) -> int:
        """Kills one at most `left` times, until it has ended; returns how often."""
        kills = 0
        while True:
            process = start(self.command(folder), folder.parent)
            wait = random.uniform(0.3, seconds) if kills < left else None
            try:
                _, errors = process.communicate(timeout=wait)
            except subprocess.TimeoutExpired:
                kills += 1
                stop(process, self._number)
                continue
            if process.returncode:
                raise Fault(f"ended with {process.returncode}: {errors.decode()[-300:]!r}")
            return kills


def lines(folder: Path) -> list[dict[str, Any]]:
    """The log, without the time."""
    text = (folder / "log.jsonl").read_text(encoding="utf-8")
    found = [json.loads(line) for line in text.splitlines()]
    return [{name: x for name, x in line.items() if name != "seconds"} for line in found]


def arrays(folder: Path, step: int) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint as they are on the disk, by path."""
    with ocp.StandardCheckpointer() as reader:
        found = reader.restore((folder / "checkpoints" / str(step) / "state").absolute())
    leaves = ocp.tree.to_flat_dict(found)
    return {"/".join(map(str, path)): np.asarray(x) for path, x in leaves.items()}


def check_same(folder: Path, alone: Path, steps: int) -> None:
    """Holds a training that was killed against one that was not."""
    if lines(folder) != lines(alone):
        raise Fault("the log is another")
    found, expected = arrays(folder, steps), arrays(alone, steps)
    if found.keys() != expected.keys() or not expected:
        raise Fault(f"{sorted(found.keys() ^ expected.keys())} are on one side alone")
    others = [path for path, x in expected.items() if not np.array_equal(x, found[path])]
    if others:
        raise Fault(f"other bits in {others}")
    hidden = [path.name for path in (folder / "checkpoints").iterdir() if "tmp" in path.name]
    if hidden:
        raise Fault(f"left {hidden}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    random.seed(given.seed)
    number = getattr(signal, f"SIG{given.signal}")
    trainings = Trainings(given.steps, SMALL if given.small else TINY, number)
    with tempfile.TemporaryDirectory() as name:
        alone = Path(name) / "alone"
        began = time.monotonic()
        trainings.killed(alone, 0.0, 0)
        seconds = time.monotonic() - began
        # The comparison can fail: another seed has another log.
        other = Path(name) / "other"
        start((*trainings.command(other), "--seed", "1"), Path(name)).communicate()
        if lines(other) == lines(alone):
            raise Fault("another seed has the same log")
        kills = ended = 0
        while kills < given.kills:
            folder = Path(name) / f"killed{ended}"
            kills += trainings.killed(folder, seconds, given.kills - kills)
            check_same(folder, alone, given.steps)
            ended += 1
            print(f"{kills} kills, {ended} trainings, all as the one left alone", flush=True)
    found = {"signal": given.signal, "kills": kills, "trainings": ended, "faults": 0}
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
