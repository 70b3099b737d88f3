import importlib.util
import sys
from collections.abc import Sequence

from .. import _process
from .._explain import print_plainly
from .._version import version

_NEEDED = ("tyro", "rich", "matplotlib", "scipy")


def main() -> None:
    """Runs the command line and ends the process: with 2 and one clear line on a mistake of the
    user's, with 1 and one line on a failure, with 128 and its number on a signal."""
    _process.take_over()
    _process.leave(command(sys.argv[1:]))


def command(arguments: Sequence[str]) -> int:
    """Runs what the arguments ask for, as far as what is installed allows."""
    if list(arguments) == ["--version"]:
        print(f"scalex_eqx {version()}")
        return 0
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing and arguments[:1] == ["explain"] and len(arguments) <= 2:
        return print_plainly(*arguments[1:])
    if missing:
        print(
            f"scalex: the command line needs {', '.join(missing)}: "
            "pip install 'scalex_eqx[experiments]', or '.[experiments]' in a checkout",
            file=sys.stderr,
        )
        return 2
    from ._commands import run

    try:
        return run()
    except SystemExit as end:  # The parser's, behind its help or its box.
        return end.code if isinstance(end.code, int) else int(end.code is not None)
