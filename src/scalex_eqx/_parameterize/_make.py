"""Calling a user's function that makes a model of a given width, and depth."""

import contextlib
import gc
from collections.abc import Callable, Iterator

import equinox as eqx
import jax
import jax.tree_util as jtu
from jax.core import Tracer
from jax.errors import JAXIndexError, JAXTypeError, UnexpectedTracerError
from jaxtyping import PyTree

from .._pages import Section, see
from .._user_code import user_line

Make = Callable[..., PyTree]


def built(make: Make, *sizes: int) -> PyTree:
    """`make(width)`, or `make(width, depth)`.

    **Raises:** `ValueError` as `shapes` does, the first only while something is traced.
    """
    with _told(sizes):
        model = make(*sizes)
        for leaf in jtu.tree_leaves(model):
            if isinstance(leaf, Tracer):
                # An operation on what has outlived its trace raises; of others nothing is left.
                _ = leaf == leaf
        return model


def shapes(make: Make, *sizes: int) -> PyTree:
    """The same with shapes in place of arrays.

    **Raises:** `ValueError` with the line of `make` that asks for the values of an array, or if
    it uses arrays of an earlier call.
    """
    with _told(sizes), _kept():
        return eqx.filter_eval_shape(make, *sizes)


def settled(make: Make, *sizes: int) -> PyTree:
    """The same with values wherever they don't depend on anything that is traced.

    **Raises:** `ValueError` as `built` does.
    """
    with _told(sizes), jax.ensure_compile_time_eval():
        return make(*sizes)


@contextlib.contextmanager
def _kept() -> Iterator[None]:
    """Without searches for garbage: a trace keeps all its objects, of which a model has many.

    Looking through them again and again takes a third of the time.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.contextmanager
def _told(sizes: tuple[int, ...]) -> Iterator[None]:
    """Says of an error that JAX raises in `make` where it is and what helps."""
    call = f"make({', '.join(map(str, sizes))})"
    try:
        yield
    except UnexpectedTracerError as error:
        raise ValueError(
            f"{call} uses arrays that it has made in an earlier call, of which only the "
            "shapes were known then. A cache such as functools.lru_cache keeps them, or a variable "
            f"outside of make. Draw anew in each call, or {_remedy()}"
        ) from error
    except (JAXTypeError, JAXIndexError) as error:
        raise ValueError(
            f"{call} asks for the values of an array of which only the shape is known"
            f"{user_line(error)}\nparameterize runs make at other widths for the shapes alone. "
            f"Draw with jax.random and compute with jax.numpy in make, or {_remedy()}"
        ) from error


def _remedy() -> str:
    return (
        "build the models yourself and hand them to scalex_eqx.parameterize_model(model, base, "
        f'probe, values="rescale", ...){see(Section.make)}'
    )
