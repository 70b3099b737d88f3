"""Where in the user's own code an error comes from."""

import sysconfig
import traceback
from pathlib import Path

_NOT_THE_USERS = (
    Path(__file__).parent,
    *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")),
)


def user_line(error: Exception) -> str:
    """The innermost line that is neither a library's nor ours, for the end of a sentence."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_the_users(Path(frame.filename))]
    return f", in {own[-1].filename}, line {own[-1].lineno}: {own[-1].line}" if own else ""


def _is_the_users(file: Path) -> bool:
    return file.is_absolute() and not any(file.is_relative_to(room) for room in _NOT_THE_USERS)
