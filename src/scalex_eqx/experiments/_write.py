"""Files that are either there as a whole or not at all, in folders that are made for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import _files, _process

_DOTS_PER_INCH = 150


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a path in the same folder, which replaces `path` unless writing fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        _files.written_whole(path) as unfinished,
        _process.if_stopped(lambda: unfinished.unlink(missing_ok=True)),
    ):
        yield unfinished


def write_figure(figure: Any, path: Path) -> None:
    """Writes a Matplotlib figure as PNG."""
    with written_whole(path) as unfinished:
        figure.savefig(unfinished, dpi=_DOTS_PER_INCH, format="png", facecolor="white")
