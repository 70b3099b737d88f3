"""One sweep at a time in a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from .._usage import UsageError, shown

try:
    import fcntl
except ImportError:  # There is none on Windows, where folders are not locked.
    fcntl = None

_NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder for this process; the system gives it back however the process ends.

    Two sweeps at once would train the same runs twice, and the first to end would report on the
    other. A file system that knows no locks is used without.

    **Raises:** `UsageError` that names the process which holds the folder.
    """
    descriptor = _open(folder / _NAME)
    try:
        if descriptor is not None and fcntl is not None:
            _take(fcntl, descriptor, folder)
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


def _take(fcntl, descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip()
        raise UsageError(
            f"{shown(folder)} is in use by {holder or 'another process'}; wait until it has "
            "ended, stop it, or name another folder with --out"
        ) from None
    except OSError:
        return
    started = datetime.now().astimezone().isoformat(" ", "seconds")
    said = f"process {os.getpid()} on {os.uname().nodename}, since {started}\n"
    with suppress(OSError):  # The disk is full: the lock holds all the same.
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, said.encode(), 0)
