"""Gives every command what it can't use, and checks that it says so in one clear line.

    python tests/robustness/inputs.py

A mistake must end with exit code 2, a failure with 1, on one line of the error stream that names
the offending thing (or in the parser's box), without a traceback, and without a folder made. What
is odd but harmless must end with 0. Most cases run in this process, and those that concern the
process itself in one of their own.
"""

import argparse
import contextlib
import functools
import io
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from _cases import DATA, FOLDERS, PROCESSES, Case, make_files, mistakes
from _run import SCALEX, SOURCE, environment

SECONDS_A_CASE = 120


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int | str
    output: str
    errors: str


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"went on for {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def in_process(case: Case) -> Outcome:
    from scalex_eqx.cli._main import command

    output, errors = io.StringIO(), io.StringIO()
    sys.argv = ["scalex", *case.words]
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            with limited(SECONDS_A_CASE):
                code: int | str = command(case.words)
        except BaseException as error:
            code = f"{type(error).__name__}: {error}"
    return Outcome(code, output.getvalue(), errors.getvalue())


def in_a_process(folder: Path, case: Case) -> Outcome:
    words = ["sh", "-c", case.shell, "sh", *SCALEX]
    run = subprocess.run(
        words, cwd=folder, env=environment(**case.environment), capture_output=True, timeout=600
    )
    text = (run.stdout.decode("utf-8", "replace"), run.stderr.decode("utf-8", "replace"))
    return Outcome(run.returncode, *text)


def fault(case: Case, found: Outcome) -> str:
    """What is wrong with an outcome; nothing if nothing is."""
    squashed = " ".join(found.errors.replace("│", " ").split())
    if found.code not in (0, 1, 2) or found.code not in case.codes:
        return f"ended with {found.code}, expected {case.codes}"
    if "Traceback" in found.errors + found.output:
        return "a traceback"
    lines = [line for line in found.errors.splitlines() if line.strip()]
    boxed = any(mark in found.errors for mark in ("For full helptext", "for full helptext"))
    if found.code and not boxed and len(lines) != len(case.said):
        return f"{len(lines)} lines, expected {len(case.said)}"
    if found.code and not boxed and not all(line.startswith("scalex: ") for line in lines):
        return "a line that isn't the command's"
    missing = [text for text in case.said if text not in squashed]
    return f"says nothing of {missing[0]!r}" if found.code and missing else ""


def check(cases: Sequence[Case], run: Callable[[Case], Outcome], what: str) -> int:
    faults = 0
    for case in cases:
        found = run(case)
        wrong = fault(case, found)
        if wrong:
            faults += 1
            print(f"FAULT: {case}: {wrong}: {found.errors[-400:]!r}", flush=True)
    print(f"{what}: {len(cases)} inputs, {faults} faults", flush=True)
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="", help="a part of the words of the cases to try")
    groups = ("mistakes", "folders", "processes")
    parser.add_argument("--groups", nargs="*", choices=groups, default=groups)
    given = parser.parse_args()
    sys.path.insert(0, str(SOURCE))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        here = Path(folder)
        make_files(here)
        before = sorted(os.listdir("."))
        tables = {"mistakes": [*mistakes(), *DATA], "folders": FOLDERS, "processes": PROCESSES}
        total = faults = 0
        for group in given.groups:
            cases = [case for case in tables[group] if given.only in str(case)]
            run = in_process if group != "processes" else functools.partial(in_a_process, here)
            faults += check(cases, run, group)
            total += len(cases)
            # What doesn't fit into memory is known once the store says what is missing.
            made = sorted(set(os.listdir(".")) - {*before, "runs"}) if group == "mistakes" else []
            if made:
                faults += 1
                print(f"FAULT: mistakes have made {made}")
        os.chdir("/")
    print(f"all: {total} inputs, {faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
