"""Problems by name: `my_model.py:problem`, or one of ours."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from .._usage import UsageError, shown
from .._user_code import user_line
from ._digits import digits
from ._problem import Problem
from ._teacher import teacher

OURS = {"digits": digits, "teacher": teacher}


def load_problem(name: str) -> Problem:
    """The problem that a command's `--problem` names.

    **Arguments:**

    - `name`: `FILE.py:NAME`, a [`scalex_eqx.problems.Problem`][] in a file of Python, or a function
        without arguments that returns one; or `digits`. The file is run, as `python FILE.py` would
        run it.

    **Raises:** `UsageError` that says what was found in its place.
    """
    if name in OURS:
        return _checked(name, OURS[name]())
    file, _, attribute = name.rpartition(":")
    if not file.endswith(".py") or not attribute.isidentifier():
        raise UsageError(
            f"problem {name!r} is not FILE.py:NAME; an example is my_model.py:problem. Problems "
            f"with a name of their own: text, unit-text, {', '.join(OURS)}"
        )
    module = _module(Path(file))
    if not hasattr(module, attribute):
        found = [key for key, x in vars(module).items() if isinstance(x, Problem)]
        said = f"its problems are {', '.join(found)}" if found else "it has no Problem"
        raise UsageError(f"problem {name!r}: {shown(file)} has no {attribute}; {said}")
    value = getattr(module, attribute)
    if not isinstance(value, Problem) and callable(value):
        try:
            value = value()
        except UsageError as error:
            raise UsageError(f"problem {name!r}: {error}{user_line(error)}") from error
        except Exception as error:
            raise UsageError(
                f"problem {name!r}: {attribute}() failed: {_said(error)}{user_line(error)}"
            ) from error
    return _checked(name, value)


def _checked(name: str, value: Any) -> Problem:
    if not isinstance(value, Problem):
        raise UsageError(
            f"problem {name!r} is a {type(value).__name__}; expected a "
            "scalex_eqx.problems.Problem, or a function that returns one"
        )
    return value


def _module(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"problem file {shown(path)} does not exist; check the path")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its neighbours are found, as from a script.
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except UsageError as error:
        raise UsageError(f"problem file {shown(path)}: {error}{user_line(error)}") from error
    except Exception as error:
        raise UsageError(
            f"problem file {shown(path)} failed: {_said(error)}{user_line(error)}"
        ) from error
    finally:
        sys.path.pop(0)
    return module


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
