"""One process at a time writes the report of a folder."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from .._usage import UsageError, shown

try:
    import fcntl
except ImportError:  # There is none on Windows, where folders are not locked.
    fcntl = None

_NAME = ".report"


@contextmanager
def reporting(folder: Path, *, seconds: float = 60.0) -> Iterator[None]:
    """Holds the report's files in a folder, which belong together, while they are written.

    The system gives them back however the process ends. A file system that knows no locks is used
    without.

    **Arguments:**

    - `seconds`: how long another process is waited for.

    **Raises:** `UsageError` that names the process which holds them.
    """
    descriptor = _open(folder / _NAME)
    try:
        if descriptor is not None and fcntl is not None:
            _take(fcntl, descriptor, folder, seconds)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _open(path: Path) -> int | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        return None  # The store, which is opened next, says why.


def _take(fcntl, descriptor: int, folder: Path, seconds: float) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() < until:
                time.sleep(0.1)
                continue
        except OSError:
            return
        holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip()
        raise UsageError(
            f"{shown(folder)} is in use by {holder or 'another process'}; wait until it has "
            "ended, stop it, or name another folder with --out"
        )
    started = datetime.now().astimezone().isoformat(" ", "seconds")
    said = f"process {os.getpid()} on {os.uname().nodename}, since {started}\n"
    with suppress(OSError):  # The disk is full: the lock holds all the same.
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, said.encode(), 0)
