"""What JAX says of a user's function that can't be traced, in terms of that function."""

import contextlib
from collections.abc import Iterator

from jax.errors import JAXIndexError, JAXTypeError, UnexpectedTracerError

from ._user_code import user_line


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
            f"with that{user_line(error)}\nA model that keeps an array outside of its fields, as a "
            "closure or a global does, can't be traced: make it a field of a module. Or build the "
            "models beforehand, each with scalex_eqx.parameterize_model, and return them from build"
        ) from error
    except (JAXTypeError, JAXIndexError) as error:
        raise ValueError(
            f"{what} asks for the values of an array of which only the shape is known while it is "
            f"traced{user_line(error)}\nDraw with jax.random and compute with jax.numpy, or call "
            "the rest through jax.pure_callback. If it is the model that is drawn so, build the "
            "models beforehand, each with scalex_eqx.parameterize_model, and return them from build"
        ) from error
