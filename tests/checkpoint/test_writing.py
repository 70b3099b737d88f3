"""A file is there as a whole or not at all, whoever else writes and whatever goes wrong."""

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx import _files
from scalex_eqx._checkpoint import _format2
from scalex_eqx._files import written_whole

OLD = {"x": np.zeros(1000), "y": np.zeros(1000)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    sx.save(tmp_path / "a.ckpt", OLD)
    return tmp_path / "a.ckpt"


def filled(number: float) -> dict[str, np.ndarray]:
    return {name: np.full_like(x, number) for name, x in OLD.items()}


def number_in(path: Path) -> float:
    """The one number that the file holds; nothing else is in its folder."""
    assert list(path.parent.iterdir()) == [path]
    (number,) = {float(n) for x in sx.load(path, OLD).values() for n in np.unique(x)}
    return number


def test_a_writer_that_pauses_does_not_meet_another(path: Path, monkeypatch: pytest.MonkeyPatch):
    """The first stops within its file while the second writes all of its own."""
    write, within, go_on = _format2.write, threading.Event(), threading.Event()

    def paused(file: Any, head: bytes, leaves: Any) -> None:
        monkeypatch.setattr(_format2, "write", write)
        file.write(head)
        within.set()
        go_on.wait(60)
        file.seek(0)
        write(file, head, leaves)

    monkeypatch.setattr(_format2, "write", paused)
    first = threading.Thread(target=sx.save, args=(path, filled(1)))
    first.start()
    within.wait(60)
    sx.save(path, filled(2))
    # What the first has written so far is not taken for abandoned.
    assert len(list(path.parent.iterdir())) == 2
    go_on.set()
    first.join()
    assert number_in(path) == 1


def test_many_writers_of_one_file(path: Path):
    writers = [threading.Thread(target=sx.save, args=(path, filled(i))) for i in range(16)]
    for writer in writers:
        writer.start()
    for _ in range(10):
        assert len({n for x in sx.load(path, OLD).values() for n in np.unique(x)}) == 1
    for writer in writers:
        writer.join()
    assert number_in(path) in range(16)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, SystemExit])
def test_an_interrupt_leaves_the_old_file_and_no_other(
    path: Path, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
):
    def interrupted(file: Any, *_: Any) -> None:
        file.write(b"half")
        raise error

    monkeypatch.setattr(_format2, "write", interrupted)
    with pytest.raises(error):
        sx.save(path, filled(1))
    assert number_in(path) == 0


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, r"the checkpoint has 16,\d+ bytes and the disk [\d,]+ free; make room"),
        (errno.EDQUOT, "make room, or save elsewhere"),
        (errno.EACCES, "allow writing in the folder"),
        (errno.EROFS, "allow writing in the folder"),
        (errno.EIO, "save elsewhere"),
    ],
)
def test_a_failure_to_write_says_why(
    path: Path, number: int, message: str, monkeypatch: pytest.MonkeyPatch
):
    def failing(file: Any, *_: Any) -> None:
        file.write(b"half")
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_format2, "write", failing)
    with pytest.raises(OSError, match=message) as caught:
        sx.save(path, filled(1))
    assert caught.value.errno == number
    assert os.strerror(number) in str(caught.value) and str(path) in str(caught.value)
    assert number_in(path) == 0


def test_a_file_that_grows_too_large(path: Path):
    """The system's own refusal, within the bytes of an array."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))
    try:
        with pytest.raises(OSError, match="File too large: nothing was written"):
            sx.save(path, filled(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert number_in(path) == 0


def test_a_folder_that_is_not_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*/new; make it first"):
        sx.save(tmp_path / "new/a.ckpt", OLD)


def test_what_is_no_file_is_not_replaced(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError, match="give the path of a file"):
        sx.save(tmp_path / "folder", OLD)
    with pytest.raises(OSError, match=r"Not a regular file: .* give the path of a file"):
        sx.save(tmp_path / "pipe", OLD)
    assert {entry.name for entry in tmp_path.iterdir()} == {"folder", "pipe"}


def test_a_link_is_followed(path: Path, tmp_path: Path):
    (tmp_path / "latest").symlink_to(path)
    sx.save(tmp_path / "latest", filled(3))
    assert (tmp_path / "latest").is_symlink()
    (tmp_path / "latest").unlink()
    assert number_in(path) == 3


def test_a_name_as_long_as_names_may_be(tmp_path: Path):
    path = tmp_path / ("a" * 255)
    sx.save(path, filled(4))
    assert number_in(path) == 4


def test_a_name_that_is_no_unicode(tmp_path: Path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.ckpt"))
    sx.save(path, filled(5))
    assert number_in(path) == 5


def test_data_is_on_the_disk_before_the_name(path: Path, monkeypatch: pytest.MonkeyPatch):
    order: list[str] = []

    def noted(name: str, f: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            order.append(name)
            return f(*arguments)

        return call

    for name in ("fsync", "replace"):
        monkeypatch.setattr(_files.os, name, noted(name, getattr(os, name)))
    sx.save(path, filled(6))
    assert order == ["fsync", "replace", "fsync"]


KILLED = """
import os, signal, sys
import numpy as np
import scalex_eqx as sx
from scalex_eqx._checkpoint import _format2

def write(file, head, leaves):
    file.write(head + b"half")
    file.flush()
    os.kill(os.getpid(), int(sys.argv[2]))

_format2.write = write
sx.save(sys.argv[1], {"x": np.ones(1000), "y": np.ones(1000)})
"""


def test_what_a_killed_writer_leaves_is_removed_by_the_next(path: Path):
    killed = subprocess.run([sys.executable, "-c", KILLED, path, str(signal.SIGKILL.value)])
    assert killed.returncode == -signal.SIGKILL
    (left,) = set(path.parent.iterdir()) - {path}
    assert left.name.startswith(".scalex-") and left.name.endswith(".partial")
    # Of another name in that folder too, and only what a writer of ours has left.
    others = path.parent / ".scalex-notes", path.parent / "b.partial"
    for other in others:
        other.touch()
    sx.save(path.parent / "b.ckpt", OLD)
    assert set(path.parent.iterdir()) == {path, path.parent / "b.ckpt", *others}
    for other in (*others, path.parent / "b.ckpt"):
        other.unlink()
    assert number_in(path) == 0


def test_a_writer_whose_file_was_taken_for_abandoned_makes_another(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The moment between making a file and locking it."""
    lock, taken = _files._lock, []

    def late(descriptor: int, *, wait: bool) -> bool:
        if wait and not taken:
            taken.extend(path.parent.glob(".scalex-*"))
            taken[0].unlink()
        return lock(descriptor, wait=wait)

    monkeypatch.setattr(_files, "_lock", late)
    sx.save(path, filled(7))
    assert len(taken) == 1 and number_in(path) == 7


def test_without_locks_nothing_is_removed(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_files, "fcntl", None)
    left = path.parent / ".scalex-1.partial"
    left.touch()
    sx.save(path, filled(8))
    left.unlink()
    assert number_in(path) == 8


def test_a_text_is_written_whole_too(tmp_path: Path):
    with written_whole(tmp_path / "a.txt") as unfinished:
        unfinished.write_text("new")
        assert not (tmp_path / "a.txt").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]
