import importlib.util
import sys

from .. import _process
from .._explain import print_plainly
from .._version import version

_NEEDED = ("tyro", "rich", "matplotlib", "scipy")


def main() -> None:
    """Runs the command line and ends the process: with 2 and one clear line on a mistake of the
    user's, with 1 and one line on a failure, with 128 and its number on a signal."""
    _process.take_over()
    arguments = sys.argv[1:]
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if arguments == ["--version"]:
        print(f"scalex_eqx {version()}")
        code = 0
    elif not missing:
        code = _run()
    elif arguments[:1] == ["explain"] and len(arguments) <= 2:
        code = print_plainly(*arguments[1:])
    else:
        _process.leave(
            2,
            f"scalex: the command line needs {', '.join(missing)}: "
            "pip install 'scalex_eqx[experiments]', or '.[experiments]' in a checkout",
        )
    _process.leave(code)


def _run() -> int:
    from ._commands import run

    try:
        return run()
    except SystemExit as end:  # The parser's, behind its help or its box.
        return end.code if isinstance(end.code, int) else int(end.code is not None)
