"""Who trains in a folder, and whether they still live: each process holds a lock of its own.

The system gives the lock back however the process ends, also on another machine that shares the
folder. What a dead process has claimed can be taken over at once then. Where there are no locks,
claims expire.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .. import _process

try:
    import fcntl
except ImportError:  # There is none on Windows.
    fcntl = None

_PREFIX = ".trains-"


@contextmanager
def living(folder: Path) -> Iterator[str]:
    """Holds a lock for this process, and yields its name for others: `process 12 on host, 1a2b`.

    The last word is the lock's, and of this process alone also where there are no locks.
    """
    name = f"process {os.getpid()} on {os.uname().nodename}"
    held = _hold(folder)
    if held is None:
        yield f"{name}, {secrets.token_hex(4)}"
        return
    path, descriptor = held
    try:
        with _process.if_stopped(lambda: path.unlink(missing_ok=True)):
            yield f"{name}, {path.name.removeprefix(_PREFIX)}"
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def dead(folder: Path) -> list[tuple[str, Path]]:
    """The locks that nobody holds any more: what the names of their processes end with, and the
    files, which are to be removed."""
    with suppress(OSError):
        names = [name for name in os.listdir(folder) if name.startswith(_PREFIX)]
        found = [folder / name for name in names]
        return [(f", {x.name.removeprefix(_PREFIX)}", x) for x in found if _is_free(x)]
    return []


def _hold(folder: Path) -> tuple[Path, int] | None:
    """A file and its descriptor, which has the lock; `None` where the file system has none."""
    while fcntl is not None:
        path = folder / f"{_PREFIX}{secrets.token_hex(4)}"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError:
            return None  # The store, which is written next, says why.
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            path.unlink(missing_ok=True)
            os.close(descriptor)
            return None
        # Another process may have taken it for a dead one's before it was locked.
        if os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)
    return None


def _is_free(path: Path) -> bool:
    if fcntl is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
