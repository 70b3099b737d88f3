"""What is said when a command fails, in one line."""

import os
import sys

from .. import _process
from .._usage import shown
from ..experiments import UsageError

# What XLA begins its errors with, and what others say.
_OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory", "Unable to allocate", "std::bad_alloc")
_LONGEST = 500


def explained(error: Exception) -> tuple[int, str]:
    """The exit code, 2 for a mistake of the user's and 1 for a failure, and the line to say."""
    code, line = _of_kind(error)
    notes = _kept(error)
    return code, _shortened("; ".join([line, *notes])) if line or notes else ""


def _kept(error: Exception) -> list[str]:
    notes = getattr(error, "__notes__", ())
    return [note for note in notes if isinstance(note, _process.Kept)]


def _of_kind(error: Exception) -> tuple[int, str]:
    if isinstance(error, UsageError):
        return 2, f"scalex: {error}"
    if isinstance(error, BrokenPipeError):
        # Whoever reads, as head does, has seen enough. What is left would be flushed at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1, "scalex: what reads the standard output has stopped" if _kept(error) else ""
    if isinstance(error, MemoryError) or any(text in str(error) for text in _OUT_OF_MEMORY):
        size = " ".join(str(error).split("\n")[0].split())
        return 1, (
            f"scalex: out of memory: {size or 'the system has no more'}; "
            "give smaller widths, a smaller batch, or to transfer a smaller --at-once"
        )
    if isinstance(error, OSError):
        return 1, _of_system(error)
    if "Unable to initialize backend" in str(error):
        return 1, f"scalex: {error}"
    found = _process.described(error)
    return 1, f"{found}; this should not happen: SCALEX_TRACEBACK=1 shows where it did"


def _of_system(error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.filename is None:
        return f"scalex: the standard output can't be written: {reason}"
    return f"scalex: {shown(error.filename)}: {reason}"


def _shortened(line: str) -> str:
    # The end says what is wrong with a name that is too long.
    return line if len(line) <= 2 * _LONGEST else f"{line[:_LONGEST]} ... {line[-_LONGEST:]}"


def tell_traceback(error: Exception) -> None:
    """Shows where an error came from, to those who have asked for it."""
    if os.environ.get("SCALEX_TRACEBACK"):
        sys.excepthook(type(error), error, error.__traceback__)
