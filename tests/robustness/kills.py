"""Kills sweeps at random moments until they have ended, and compares with one left alone.

    python tests/robustness/kills.py --kills 100
    python tests/robustness/kills.py --kills 100 --default --steps 40
    python tests/robustness/kills.py --kills 100 --processes 2

The first form trains a small model, the second the default one, with fewer steps. In the third two
processes share each sweep, and one of them, by chance, is killed each time. Each sweep
trains its runs one or a few at a time, is killed by SIGKILL at a random moment, and is started
again with the same command, until it ends by itself. Then every run must be there once, none that
was there after a kill may have changed, and all losses must be those of the sweep that was left
alone, bit for bit.
"""

import argparse
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from _run import QUICK, SCALEX, start

DEFAULT = ("--widths", "64", "128", "--recipes", "standard:adam:full", "--seeds", "0", "1")
SMALL = (*QUICK, "--seeds", "0", "1", "2", "--steps", "20")
Runs = dict[str, tuple[str, str, str, str]]
# What a sweep that has ended leaves beside what it was asked for: the lock of its report.
_STAYS = {".report"}


def stored(folder: Path) -> Runs:
    """Every run, by key: specification, loss, training losses, and when it was stored."""
    path = folder / "runs.sqlite"
    if not path.exists() or path.stat().st_size == 0:
        return {}
    query = """SELECT key, specification, metrics, hex(float32), created
        FROM runs LEFT JOIN curves USING (key)"""
    with closing(sqlite3.connect(path)) as connection:
        try:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return {key: tuple(rest) for key, *rest in connection.execute(query)}
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return {}
            raise


def results(runs: Runs) -> dict[str, tuple[str, str, str]]:
    """All but the time."""
    return {key: values[:3] for key, values in runs.items()}


def uninterrupted(words: tuple[str, ...], folder: Path) -> tuple[Runs, float]:
    began = time.monotonic()
    process = start((*words, "--out", str(folder)), folder.parent)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    return stored(folder), time.monotonic() - began


def killed_sweep(words: tuple[str, ...], folder: Path, seconds: float, left: int) -> list[str]:
    """Kills a sweep at most `left` times, at moments within its length; what was wrong, or the
    number of kills."""
    before: Runs = {}
    kills = 0
    while True:
        process = start((*words, "--out", str(folder)), folder.parent)
        # Later and later if nothing was finished: a start that is always killed never ends.
        wait = random.uniform(0.2, seconds) if kills < left else None
        try:
            _, errors = process.communicate(timeout=wait)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
        else:
            if process.returncode:
                return [f"FAULT: ended with {process.returncode}: {errors.decode()[-300:]!r}"]
            left_over = [name for name in os.listdir(folder) if name.startswith(".")]
            hidden = sorted(set(left_over) - _STAYS)
            return [f"FAULT: left {hidden}"] if hidden else [str(kills)]
        after = stored(folder)
        if any(after.get(key) != values for key, values in before.items()):
            return ["FAULT: a stored run was lost or changed"]
        before = after


def killed_among(
    words: tuple[str, ...], folder: Path, seconds: float, left: int, count: int
) -> list[str]:
    """The same of several processes that share the sweep: each time one of them is killed, and
    started again, while the others go on."""
    before: Runs = {}
    kills = 0
    running = [start((*words, "--out", str(folder)), folder.parent) for _ in range(count)]
    try:
        while kills < left and any(one.poll() is None for one in running):
            # Often, since the others go on: at most some four times in a sweep left alone.
            time.sleep(random.uniform(0.2, seconds / 4))
            place = random.randrange(count)
            if running[place].poll() is not None:
                continue
            running[place].kill()
            running[place].communicate()
            kills += 1
            after = stored(folder)
            if any(after.get(key) != values for key, values in before.items()):
                return ["FAULT: a stored run was lost or changed"]
            before = after
            running[place] = start((*words, "--out", str(folder)), folder.parent)
        for one in running:
            _, errors = one.communicate()
            if one.returncode:
                return [f"FAULT: ended with {one.returncode}: {errors.decode()[-300:]!r}"]
    finally:
        for one in running:
            one.kill()
            one.communicate()
    hidden = {name for name in os.listdir(folder) if name.startswith(".")} - _STAYS
    if hidden or claims(folder):
        return [f"FAULT: left {sorted(hidden)} and {claims(folder)} claims"]
    return [str(kills)]


def claims(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "runs.sqlite")) as connection:
        return connection.execute("SELECT count(*) FROM claims").fetchone()[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--default", action="store_true", help="the default model and batches")
    parser.add_argument("--steps", default="40", help="of the default model")
    parser.add_argument("--at-once", default="3", help="runs that train, and are stored, together")
    parser.add_argument("--processes", type=int, default=1, help="that share each sweep")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    random.seed(given.seed)
    setting = (*DEFAULT, "--steps", given.steps) if given.default else SMALL
    words = (*SCALEX, "transfer", *setting, "--at-once", given.at_once)
    kills = sweeps = faults = 0
    with tempfile.TemporaryDirectory() as made:
        alone, seconds = uninterrupted(words, Path(made) / "alone")
        print(f"left alone: {len(alone)} runs in {seconds:.1f} s", flush=True)
        while kills < given.kills:
            folder = Path(made) / f"killed {sweeps}"
            left = given.kills - kills
            (found,) = (
                killed_sweep(words, folder, seconds, left)
                if given.processes == 1
                else killed_among(words, folder, seconds, left, given.processes)
            )
            sweeps += 1
            if not found.isdecimal():
                faults += 1
                print(found, flush=True)
                break
            kills += int(found)
            if results(stored(folder)) != results(alone):
                faults += 1
                print("FAULT: results differ from those of the sweep left alone", flush=True)
            print(f"sweep {sweeps}: {found} kills, {kills} in all", flush=True)
    print(f"{kills} kills, {sweeps} sweeps of {len(alone)} runs, {faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
