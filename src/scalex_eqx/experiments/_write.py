"""Files that are either there as a whole or not at all, in folders that are made for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import _files, _process


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a path in the same folder, which replaces `path` unless writing fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        _files.written_whole(path) as unfinished,
        _process.if_stopped(lambda: unfinished.unlink(missing_ok=True)),
    ):
        yield unfinished
