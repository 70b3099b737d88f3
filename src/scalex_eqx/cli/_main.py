import importlib.util
import sys

_NEEDED = ("tyro", "rich", "matplotlib", "scipy")


def main() -> None:
    """Runs the command line; exits with 2 and one clear line on a mistake of the user's."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"scalex: the command line needs {', '.join(missing)}: "
            "pip install 'scalex_eqx[experiments]', or '.[experiments]' in a checkout"
        )
    from ._commands import run

    sys.exit(run())
