from typing import Any

from jax.core import eval_jaxpr
from jax.extend.core import Literal


def run_equation(equation: Any, jaxpr: Any, operands: list[Any]) -> list[Any]:
    """The results of one equation of a `Jaxpr`, run as it stands.

    **Arguments:**

    - `equation`, `jaxpr`: the equation, and the program that it is one of.
    - `operands`: a value for each of its inputs, literals included.
    """
    pairs = [
        (variable, operand)
        for variable, operand in zip(equation.invars, operands, strict=True)
        if not isinstance(variable, Literal)
    ]
    alone = jaxpr.replace(
        constvars=[],
        invars=[variable for variable, _ in pairs],
        outvars=equation.outvars,
        eqns=[equation],
        debug_info=jaxpr.debug_info.with_unknown_names(),
    )
    return eval_jaxpr(alone, (), *(operand for _, operand in pairs))
