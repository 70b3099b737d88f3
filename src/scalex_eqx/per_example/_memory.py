"""How much memory single units' gradients may take."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from jaxtyping import PyTree

from .._jaxprs import parameters

_LEAST = 2**26


def default_memory(params: Sequence[Any]) -> int:
    """64 MiB, or as many bytes as the parameters have, if these are more."""
    return max(_LEAST, sum(x.size * x.dtype.itemsize for x in params))


def check_memory(memory: Any) -> None:
    """Refuses what is no number of bytes."""
    if isinstance(memory, bool) or not isinstance(memory, int) or memory < 1:
        raise ValueError(
            f"memory is {memory!r}; expected a number of bytes, such as 2**26, or None"
        )


def bytes_of(function: Callable[..., Any], *arguments: PyTree) -> int:
    """The most bytes of intermediate values that a function has at once, run as it stands."""
    closed = jax.make_jaxpr(function)(*arguments)
    return _most(closed.jaxpr)


def _most(jaxpr: Any) -> int:
    """Values live from the equation that makes them to the last that takes them."""
    last: dict[Any, int] = {}
    for number, equation in enumerate(jaxpr.eqns):
        last.update((v, number) for v in equation.invars if not isinstance(v, Literal))
    ends = len(jaxpr.eqns)
    last.update((v, ends) for v in jaxpr.outvars if not isinstance(v, Literal))
    dying: dict[int, int] = {}
    live = most = 0
    for number, equation in enumerate(jaxpr.eqns):
        made = sum(map(_bytes, equation.outvars))
        live += made
        most = max(most, live + _inside(equation))
        for variable in equation.outvars:
            end = last.get(variable, number)
            dying[end] = dying.get(end, 0) + _bytes(variable)
        live -= dying.pop(number, 0)
    return most


def _inside(equation: Any) -> int:
    program = parameters.wrapped(equation) or parameters.only_program(equation)
    if program is None and (scan := parameters.scan(equation)) is not None:
        program = scan.body
    return 0 if program is None else _most(parameters.parts(program)[0])


def _bytes(variable: Any) -> int:
    aval = variable.aval
    if not hasattr(aval, "shape") or not hasattr(aval, "dtype"):
        return 0
    size = getattr(aval.dtype, "itemsize", 4)
    return math.prod(aval.shape) * (size if jnp.issubdtype(aval.dtype, jnp.number) else 4)
