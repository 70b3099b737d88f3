"""Stops every command at random moments, and counts how it ended.

    python tests/robustness/signals.py --tries 5 --busy 2

A stopped command must end with 128 plus the signal's number and one line that says so, without a
traceback and without delay, also if the signal comes twice. `transfer` must leave a whole store.
"""

import argparse
import collections
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from _run import MODULE, QUICK, SCALEX, SIGNALS, SMALL, TINY, busy, start, verdict

MEASURE = ("mup:adam:full", *SMALL, "--steps", "2", "--seeds", "0", "1")
COMMANDS = {
    "transfer": (*SCALEX, "transfer", *QUICK, "--seeds", "0", "--steps", "40", "--out", "out"),
    "transfer, python -m": (*MODULE, "transfer", *QUICK, "--seeds", "0", "--out", "out"),
    "train": (*SCALEX, "train", "mup:adam:full", *TINY, "--save-every", "5", "--out", "trained"),
    "report": (*SCALEX, "report", "made"),
    "exponents": (*SCALEX, "exponents", "--depth", "100"),
    "plan": (*SCALEX, "plan", "mup:adam:full"),
    "check": (*SCALEX, "check", *MEASURE),
    "align": (*SCALEX, "align", *MEASURE),
    "stress": (*SCALEX, "stress", "--optimizer", "sgd", "lion", "--dtype", "float16"),
    "explain": (*SCALEX, "explain", "no-law"),
}
SLOWEST_SECONDS = 5.0


def stopped(
    words: tuple[str, ...], folder: Path, number: int, delay: float, again: bool
) -> tuple[str, float]:
    """How a command ended that got a signal after `delay` seconds, and how long that took."""
    process = start(words, folder)
    time.sleep(delay)
    sent = time.monotonic()
    process.send_signal(number)
    if again:
        time.sleep(0.02)
        process.send_signal(number)
    try:
        _, errors = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "FAULT: it went on", 60.0
    seconds = time.monotonic() - sent
    return verdict(process.returncode, errors.decode(), number), seconds


def whole(store: Path) -> bool:
    """Whether a store, if there is one yet, is intact without the files beside it."""
    if not store.exists() or store.stat().st_size == 0:
        return True
    with closing(sqlite3.connect(f"file:{store}?mode=ro&immutable=1", uri=True)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def duration(words: tuple[str, ...], folder: Path) -> float:
    began = time.monotonic()
    process = start(words, folder)
    _, errors = process.communicate()
    assert process.returncode in (0, 1, 3), errors.decode()
    return time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tries", type=int, default=5, help="for each command and signal")
    parser.add_argument("--busy", type=int, default=2, help="processes that burn time meanwhile")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="*", default=list(COMMANDS))
    given = parser.parse_args()
    random.seed(given.seed)
    total: collections.Counter[str] = collections.Counter()
    with busy(given.busy), tempfile.TemporaryDirectory() as made:
        sweep = (*SCALEX, "transfer", *QUICK, "--seeds", "0", "--steps", "1", "--out", "made")
        duration(sweep, Path(made))
        for name in given.commands:
            found: collections.Counter[str] = collections.Counter()
            slowest, length = 0.0, 0.0
            with tempfile.TemporaryDirectory() as folder:
                place = Path(made) if name == "report" else Path(folder)
                length = duration(COMMANDS[name], place)
            for number in SIGNALS:
                for index in range(given.tries):
                    with tempfile.TemporaryDirectory() as folder:
                        place = Path(made) if name == "report" else Path(folder)
                        delay = random.uniform(0.05, length)
                        how, seconds = stopped(
                            COMMANDS[name], place, number, delay, again=index % 2 == 1
                        )
                        if seconds > SLOWEST_SECONDS and how.startswith("stopped"):
                            how = f"FAULT: stopped after {seconds:.1f} s only"
                        if not whole(place / "out" / "runs.sqlite"):
                            how = "FAULT: the store is not whole"
                    slowest = max(slowest, seconds if how.startswith("stopped") else 0.0)
                    found[how] += 1
            counts = ", ".join(f"{count} {how}" for how, count in sorted(found.items()))
            print(f"{name} ({length:.1f} s): {counts}; slowest {slowest:.2f} s", flush=True)
            total += found
    print("all:", ", ".join(f"{count} {how}" for how, count in sorted(total.items())))
    faults = sum(count for how, count in total.items() if how.startswith("FAULT"))
    print(f"{total.total()} signals, {faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
