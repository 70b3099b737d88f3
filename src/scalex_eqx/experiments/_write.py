"""Files that are either there as a whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import _process


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a path in the same folder, which replaces `path` unless writing fails.

    What a process that was killed has left behind of `path` is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _process.if_stopped(lambda: unfinished.unlink(missing_ok=True)):
            yield unfinished
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    start = f".{path.name}."
    for other in path.parent.iterdir():
        process = other.name.removeprefix(start)
        if other.name.startswith(start) and process.isdecimal() and not _lives(int(process)):
            with contextlib.suppress(OSError):
                other.unlink()


def _lives(process: int) -> bool:
    if os.name != "posix":
        return True  # There, to ask is to stop it.
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # It belongs to another user.
    return True
