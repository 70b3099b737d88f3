"""What a file that can't be read or written says: the file, the fault and the remedy."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .._pages import Section, see

Name = str | os.PathLike[str]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
# What the first bytes of files of other libraries are.
_OTHERS = {
    b"\x93NUMPY": "equinox.tree_serialise_leaves or numpy.save",
    b"PK\x03\x04": "numpy.savez or torch.save",
    b"\x80": "pickle, which is never read here",
    b"\x1f\x8b": "gzip; unpack it first",
    b"\x89HDF": "HDF5",
}


def damaged(path: Name, what: str) -> ValueError:
    """For a file whose bytes aren't those that were written."""
    return ValueError(
        f"{os.fspath(path)} is damaged: {what}. Load an older checkpoint, or copy this one again "
        f"from where it came{see(Section.damaged)}"
    )


def not_a_checkpoint(path: Name, head: bytes) -> ValueError:
    """For a file of something else."""
    maker = next((maker for start, maker in _OTHERS.items() if head.startswith(start)), None)
    if head[8:9] == b"{":
        maker = "safetensors"
    what = f"it looks like one of {maker}" if maker else "its first bytes are others"
    return ValueError(
        f"{os.fspath(path)} is not a checkpoint written by scalex_eqx.save: "
        f"{what if head else 'it is empty'}. Read it with what wrote it, and save it once"
        f"{see(Section.other_file)}"
    )


def of_leaf(path: Name, leaf: str, error: Exception) -> Exception:
    """The same error, with file and leaf."""
    kind = TypeError if isinstance(error, TypeError) else ValueError
    return kind(f"{os.fspath(path)}, leaf {leaf}: {error}{see(Section.kept)}")


@contextmanager
def writing(path: Name, size: int) -> Iterator[None]:
    """Says of a failure to write what was tried and what to do."""
    try:
        yield
    except OSError as error:
        raise _named(error, path, _why_not_written(error, Path(path), size)) from error


@contextmanager
def reading(path: Name) -> Iterator[None]:
    """Says of a failure to read what was expected."""
    try:
        yield
    except OSError as error:
        remedy = {
            errno.ENOENT: "give the path of a file that scalex_eqx.save has written",
            errno.EISDIR: "expected a file; Orbax writes folders, which Orbax reads",
        }.get(error.errno or 0, "expected a file of scalex_eqx.save that may be read")
        raise _named(error, path, remedy) from error


def _why_not_written(error: OSError, path: Path, size: int) -> str:
    folder = Path(os.path.realpath(path)).parent
    if error.errno in _FULL:
        free = "an unknown number of"
        with suppress(OSError):
            free = f"{shutil.disk_usage(folder).free:,}"
        why = f"the checkpoint has {size:,} bytes and the disk {free} free; make room, or save "
        why += "elsewhere"
    elif error.errno in _FORBIDDEN:
        why = f"allow writing in the folder {folder}, or save elsewhere"
    elif error.errno == errno.ENOENT and not folder.is_dir():
        why = f"there is no folder {folder}; make it first"
    elif error.errno in (errno.EISDIR, errno.EINVAL):
        why = "give the path of a file"
    else:
        why = "save elsewhere"
    return f"nothing was written, and what stood there still does; {why}"


def _named(error: OSError, path: Name, remedy: str) -> OSError:
    # The number decides which subclass of OSError this is.
    reason: Any = error.strerror or str(error)
    return OSError(error.errno or 0, f"{reason}: {remedy}", os.fspath(path))
