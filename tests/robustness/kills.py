"""Kills sweeps at random moments until they have ended, and compares with one left alone.

    python tests/robustness/kills.py --kills 100
    python tests/robustness/kills.py --kills 100 --default --steps 40
    python tests/robustness/kills.py --kills 100 --processes 2
    python tests/robustness/kills.py --kills 100 --engine shards
    python tests/robustness/kills.py --kills 20 --engine ray
    python tests/robustness/kills.py --kills 100 --signal TERM

The first form trains a small model, the second the default one, with fewer steps. In the third two
processes share each sweep, and one of them, by chance, is killed each time. In the fourth a sweep
has two parts, one after the other, which are merged at the end. In the fifth Ray trains, and the
command is killed or, by chance, one of Ray's workers, which must not end the command, or what runs
them, which ends it. Each sweep
trains its runs one or a few at a time, is killed by SIGKILL at a random moment, and is started
again with the same command, until it ends by itself. Then every run must be there once, none that
was there after a kill may have changed, and all losses must be those of the sweep that was left
alone, bit for bit. A command that is terminated has to say so in one line and end with 143.

`--out` adds the counts to a file.
"""

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path

from _run import MODULE, QUICK, SCALEX, start, verdict

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


class Fault(Exception):
    """What was wrong."""


def killed_sweep(
    words: tuple[str, ...],
    folder: Path,
    seconds: float,
    left: int,
    number: int,
    *,
    is_ray: bool = False,
    found: Callable[[Path], Mapping[str, object]] = stored,
) -> int:
    """Kills a sweep at most `left` times, at moments within its length; returns how often.

    **Arguments:**

    - `number`: of the signal.
    - `is_ray`: whether workers are killed too.
    - `found`: what has been stored in the folder.
    """
    before: Mapping[str, object] = {}
    kills = 0
    while True:
        process, runs_them = start((*words, "--out", str(folder)), folder.parent), False
        while True:
            # Later and later if nothing was finished: a start that is always killed never ends.
            wait = random.uniform(0.2, seconds) if kills < left else None
            try:
                _, errors = process.communicate(timeout=wait)
            except subprocess.TimeoutExpired:
                kills += 1
                others = processes_of_ray(process.pid) if is_ray else {}
                if others and random.random() < 0.5:
                    chosen = random.choice(sorted(others))
                    runs_them = runs_them or others[chosen]
                    with suppress(ProcessLookupError):
                        os.kill(chosen, signal.SIGKILL)
                    continue
                stop(process, number)
                break
            else:
                if process.returncode in (1, 2) and runs_them:
                    break
                if process.returncode:
                    said = errors.decode()[-300:]
                    raise Fault(f"ended with {process.returncode}: {said!r}")
                check_left_over(folder)
                return kills
        after = found(folder)
        if any(after.get(key) != values for key, values in before.items()):
            raise Fault("a stored run was lost or changed")
        before = after


def stop(process: subprocess.Popen, number: int) -> None:
    """Sends the signal, and sees how the process ends."""
    process.send_signal(number)
    try:
        _, errors = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise Fault("it went on for a minute") from None
    if number == signal.SIGKILL:
        return
    how = verdict(process.returncode, errors.decode(), number)
    if how.startswith("FAULT"):
        raise Fault(how)


def processes_of_ray(driver: int) -> dict[int, bool]:
    """What of Ray descends from a process, and whether it is no worker but what runs them.

    Its agents end with what runs the workers, and that with them.
    """
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError):
                # The name before may hold blanks and brackets.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
                names[int(entry.name)] = (entry / "cmdline").read_bytes().partition(b"\0")[0]
    ours = {driver}
    while more := {one for one, parent in parents.items() if parent in ours} - ours:
        ours |= more
    own = {one: names.get(one, b"") for one in ours}
    return {
        one: not name.startswith((b"ray::IDLE", b"ray::_on_worker"))
        for one, name in own.items()
        if name.startswith(b"ray::") or name.endswith(b"/raylet")
    }


def killed_parts(
    words: tuple[str, ...], folder: Path, seconds: float, left: int, number: int
) -> int:
    """The same of a sweep in two parts, which are merged at the end."""
    kills = 0
    for part in ("1/2", "2/2"):
        own = (*words, "--shard", part)
        kills += killed_sweep(own, folder, seconds, left - kills, number, found=in_files)
    merge = start((*SCALEX, "merge", str(folder), str(folder)), folder.parent)
    _, errors = merge.communicate()
    if merge.returncode:
        raise Fault(f"merge ended with {merge.returncode}: {errors.decode()[-300:]!r}")
    return kills


def in_files(folder: Path) -> dict[str, object]:
    """The whole lines of all files of runs."""
    lines = [
        line
        for file in folder.glob("*.jsonl")
        for line in file.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    ]
    return dict.fromkeys(lines, True)


def check_left_over(folder: Path) -> None:
    """Hidden files are of a process that is under way."""
    hidden = {name for name in os.listdir(folder) if name.startswith(".")} - _STAYS
    if hidden:
        raise Fault(f"left {sorted(hidden)}")


def killed_among(
    words: tuple[str, ...], folder: Path, seconds: float, left: int, number: int, count: int
) -> int:
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
            stop(running[place], number)
            kills += 1
            after = stored(folder)
            if any(after.get(key) != values for key, values in before.items()):
                raise Fault("a stored run was lost or changed")
            before = after
            running[place] = start((*words, "--out", str(folder)), folder.parent)
        for one in running:
            _, errors = one.communicate()
            if one.returncode:
                raise Fault(f"ended with {one.returncode}: {errors.decode()[-300:]!r}")
    finally:
        for one in running:
            one.kill()
            one.communicate()
    check_left_over(folder)
    if claims(folder):
        raise Fault(f"left {claims(folder)} claims")
    return kills


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
    parser.add_argument("--engine", choices=("local", "shards", "ray"), default="local")
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    random.seed(given.seed)
    setting = (*DEFAULT, "--steps", given.steps) if given.default else SMALL
    # Ray's workers import the package by the command's own path.
    words = (*(MODULE if given.engine == "ray" else SCALEX), "transfer", *setting)
    words += ("--at-once", given.at_once)
    kills = sweeps = 0
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as made:
        alone, seconds = uninterrupted(words, Path(made) / "alone")
        print(f"left alone: {len(alone)} runs in {seconds:.1f} s", flush=True)
        if given.engine == "ray":
            words += ("--engine", "ray")
            seconds += RAY_SECONDS
        while kills < given.kills and not faults:
            folder = Path(made) / f"killed {sweeps}"
            try:
                found = killed(words, folder, seconds, given.kills - kills, given)
                kills += found
                if results(stored(folder)) != results(alone):
                    raise Fault("results differ from those of the sweep left alone")
                print(f"sweep {sweeps + 1}: {found} kills, {kills} in all", flush=True)
                # The machine had other work when the sweep was left alone.
                seconds *= 1.0 if found else 0.5
            except Fault as fault:
                faults.append(str(fault))
                print(f"FAULT: {fault}", flush=True)
            sweeps += 1
    print(f"{kills} kills, {sweeps} sweeps of {len(alone)} runs, {len(faults)} faults")
    if given.out is not None:
        counts = {"kills": kills, "sweeps": sweeps, "runs": len(alone), "faults": faults}
        add_counts(given.out, counts, sys.argv[1:])
    return int(bool(faults))


# What Ray takes to begin and to end, beside the training.
RAY_SECONDS = 15.0


def killed(
    words: tuple[str, ...], folder: Path, seconds: float, left: int, given: argparse.Namespace
) -> int:
    """One sweep, in the way that was asked for."""
    number = signal.Signals[f"SIG{given.signal}"]
    if given.engine == "shards":
        return killed_parts(words, folder, seconds, left, number)
    if given.processes > 1:
        return killed_among(words, folder, seconds, left, number, given.processes)
    return killed_sweep(words, folder, seconds, left, number, is_ray=given.engine == "ray")


def add_counts(path: Path, counts: dict[str, object], words: list[str]) -> None:
    """Into a file of counts by command."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    place = words.index("--out") if "--out" in words else len(words)
    asked = [*words[:place], *words[place + 2 :]]
    content[" ".join(["python tests/robustness/kills.py", *asked])] = counts
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
