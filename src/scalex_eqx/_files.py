"""Files that are either there as a whole or not at all."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has none: files of dead writers stay there.
    fcntl = None

_PREFIX, _SUFFIX = ".scalex-", ".partial"


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a path in the same folder, which replaces `path` unless writing fails.

    The name is of this writer alone, so that several writers of one file don't meet: the last one
    to finish wins. It is gone after any failure, also an interrupt. What is in the file is on the
    disk before `path` changes. A link is followed. Files that a killed writer has left in the
    folder are removed.

    **Arguments:**

    - `path`: of the file; its folder must exist.

    **Raises:** `OSError` if `path` is there and is no file, and whatever writing raises.
    """
    target = Path(os.path.realpath(path))
    _check_target(target)
    _remove_abandoned(target.parent)
    unfinished, descriptor = _create(target.parent)
    try:
        yield unfinished
        os.fsync(descriptor)
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
        os.close(descriptor)
    sync_folder(target.parent)


def _check_target(target: Path) -> None:
    # Replacing a device or a pipe would take it away from everyone.
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Is a directory", str(target))
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "Not a regular file", str(target))


def _create(folder: Path) -> tuple[Path, int]:
    """A new file and its descriptor, which holds a lock while its writer lives."""
    while True:
        path = folder / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            _lock(descriptor, wait=True)
            # Another writer may have taken it for abandoned before it was locked.
            if os.fstat(descriptor).st_nlink:
                return path, descriptor
        except BaseException:
            path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        os.close(descriptor)


def _remove_abandoned(folder: Path) -> None:
    """Removes what writers have left that were killed: their locks went with them."""
    with suppress(OSError), os.scandir(folder) as entries:
        found = [e.path for e in entries if e.name.startswith(_PREFIX) and e.name.endswith(_SUFFIX)]
        for path in found:
            _remove_if_abandoned(path)


def _remove_if_abandoned(path: str) -> None:
    # What can't be opened or locked is another's.
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode) and _lock(descriptor, wait=False):
                os.unlink(path)
        finally:
            os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Whether this process has the file's lock now; some file systems have none."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Makes the new name last; not every system lets a folder be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
