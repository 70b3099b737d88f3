"""What the scripts of this folder share: starting `scalex`, and keeping the machine busy."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"
# As an installed `scalex` does; the name of the program is what makes the package take over.
_PROGRAM = (
    "import sys; sys.argv[0] = 'scalex'; from scalex_eqx.cli import main; sys.exit(main())",
)
SCALEX = (sys.executable, "-c", *_PROGRAM)
MODULE = (sys.executable, "-m", "scalex_eqx")

SMALL = ("--widths", "8", "16", "--head-dimension", "8", "--depth", "1", "--sequence-length", "8")
QUICK = (*SMALL, "--learning-rates", "2^-8", "2^-6", "2^-4", "--recipes", "mup:adam:full")
TINY = (
    "--width", "16", "--base-width", "8", "--head-dimension", "8", "--depth", "1",
    "--sequence-length", "8",
)  # fmt: skip

SIGNALS = {
    signal.SIGINT: "scalex: interrupted",
    signal.SIGTERM: "scalex: terminated",
    signal.SIGHUP: "scalex: stopped, since its terminal was closed",
}


def environment(**changes: str | None) -> dict[str, str]:
    """This process's, with the source on the path; `None` takes a variable away."""
    found = {**os.environ, "PYTHONPATH": str(SOURCE), **changes}
    return {name: value for name, value in found.items() if value is not None}


def start(words: Sequence[str | bytes], folder: Path, **changes: str | None) -> subprocess.Popen:
    """A process whose output is read as bytes, and which gets signals as from a terminal."""
    # What this process ignores, as a shell's background jobs ignore Ctrl-C, a child would too.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    pipe = subprocess.PIPE
    return subprocess.Popen(
        words, stdout=pipe, stderr=pipe, stdin=subprocess.DEVNULL, cwd=folder,
        env=environment(**changes),
    )  # fmt: skip


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Other work for the machine's cores meanwhile."""
    burning = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)
    ]
    try:
        yield
    finally:
        for one in burning:
            one.kill()
            one.wait()


def verdict(code: int, errors: str, number: int) -> str:
    """What an exit code and the error stream amount to."""
    said = [line for line in errors.splitlines() if line.startswith("scalex: ")]
    if code == 0 and not said:
        return "had finished"
    if code == -number and not said and "scalex_eqx" not in errors:
        return "Python had not begun"
    if code != 128 + number:
        return f"FAULT: exit code {code}: {errors[-300:]!r}"
    if len(said) != 1 or not said[0].startswith(SIGNALS[signal.Signals(number)]):
        return f"FAULT: said {errors[-300:]!r}"
    if "Traceback" in errors or "Exception" in errors:
        return f"FAULT: a traceback: {errors[-300:]!r}"
    return "stopped, runs kept" if "kept" in said[0] else "stopped"
