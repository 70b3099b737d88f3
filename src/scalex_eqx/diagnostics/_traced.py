"""What JAX says of a user's function that can't be traced, in terms of that function."""

import contextlib
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

from jax.errors import JAXIndexError, JAXTypeError, UnexpectedTracerError

_NOT_THE_USERS = (
    Path(__file__).parents[1],
    *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")),
)


@contextlib.contextmanager
def traced(what: str) -> Iterator[None]:
    """Names the line and the remedy where `what`, such as `"loss"`, can't be traced.

    **Raises:** `ValueError` in place of JAX's errors.
    """
    try:
        yield
    except UnexpectedTracerError as error:
        raise ValueError(
            f"{what} uses an array that was made while another function was traced, and is gone "
            f"with that{_line(error)}\nA model that keeps an array outside of its fields, as a "
            "closure or a global does, can't be traced: make it a field of a module. Or build the "
            "models beforehand, each with scalex_eqx.parameterize_model, and return them from build"
        ) from error
    except (JAXTypeError, JAXIndexError) as error:
        raise ValueError(
            f"{what} asks for the values of an array of which only the shape is known while it is "
            f"traced{_line(error)}\nDraw with jax.random and compute with jax.numpy, or call the "
            "rest through jax.pure_callback. If it is the model that is drawn so, build the models "
            "beforehand, each with scalex_eqx.parameterize_model, and return them from build"
        ) from error


def _line(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_the_users(Path(frame.filename))]
    return f", in {own[-1].filename}, line {own[-1].lineno}: {own[-1].line}" if own else ""


def _is_the_users(file: Path) -> bool:
    return file.is_absolute() and not any(file.is_relative_to(room) for room in _NOT_THE_USERS)
