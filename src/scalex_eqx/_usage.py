import os
import shlex
from pathlib import Path


class UsageError(ValueError):
    """A mistake in what was asked for: the command line prints it in one line and exits with 2.

    The message names the offending thing, what was expected and the remedy.
    """


def shown(name: str | bytes | Path) -> str:
    """A file's name as a part of one line: where it can't be printed as it is, it is escaped.

    A name need not be text, and may hold line breaks or a terminal's control characters.
    """
    text = os.fsdecode(name)
    return text if text.isprintable() else repr(text)


def in_shell(name: str | Path) -> str:
    """A file's name as a word of a command; one that isn't text is shown as good as it goes."""
    return shlex.quote(os.fsencode(name).decode("utf-8", "backslashreplace"))
