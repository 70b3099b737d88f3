"""How many floating-point operations a function takes, read from its program."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core as jec
import numpy as np


def operations(f: Callable[..., Any], *arguments: Any) -> int:
    """The operations in matrix products and convolutions of `f`: two for each product of numbers.

    Loops count as often as they run, where that is known; of branches the largest counts. What is
    done to each entry alone is left out, as is usual where utilisation is spoken of.

    **Arguments:**

    - `f`: a function of arrays.
    - `arguments`: arrays, or their shapes.
    """
    return _of(jax.make_jaxpr(f)(*arguments).jaxpr)


def _of(jaxpr: Any) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> int:
    name = equation.primitive.name
    if name == "dot_general":
        return 2 * _product(equation)
    if name == "conv_general_dilated":
        return 2 * _convolution(equation)
    inner = [_of(jaxpr) for jaxpr in _jaxprs(tuple(equation.params.values()))]
    if name == "cond":
        return max(inner, default=0)
    return (equation.params["length"] if name == "scan" else 1) * sum(inner)


def _product(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)


def _convolution(equation: Any) -> int:
    kernel = equation.invars[1].aval.shape
    produced = equation.params["dimension_numbers"].rhs_spec[0]
    return math.prod(equation.outvars[0].aval.shape) * math.prod(np.delete(kernel, produced))


def _jaxprs(value: Any) -> list[Any]:
    if isinstance(value, jec.ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, jec.Jaxpr):
        return [value]
    if isinstance(value, tuple | list):
        return [jaxpr for one in value for jaxpr in _jaxprs(one)]
    return []
