"""Running a program that was followed, with what meets at its sites among the results."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jax.extend.core import Literal
from jaxtyping import Array

from ..._jaxpr import run_equation
from . import _parameters as parameters
from ._program import Program


class Meeting(NamedTuple):
    """The weight as it meets the input, that input, and what comes out."""

    weight: Array
    input: Array
    output: Array


def run(program: Program, arguments: Sequence[Any]) -> tuple[list[Any], list[Meeting]]:
    """The program's results, and the meetings at its sites in their order."""
    jaxpr = program.jaxpr
    values = dict(zip(jaxpr.constvars, program.constants, strict=True))
    values |= zip(jaxpr.invars, arguments, strict=True)
    meetings: list[Meeting] = []

    def value(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    for i, equation in enumerate(jaxpr.eqns):
        operands = [value(v) for v in equation.invars]
        if i in program.inner:
            inside = program.inner[i]
            scan = parameters.scan(equation) if equation.primitive.name == "scan" else None
            results, found = _scan(scan, inside, operands) if scan else run(inside, operands)
            meetings += found
        else:
            results = run_equation(equation, jaxpr, operands)
            for site in program.here.get(i, ()):
                x = site.operation.input_of(operands, list(site.is_data))
                meetings.append(Meeting(operands[site.operation.position], x, results[0]))
        values |= zip(equation.outvars, results, strict=True)
    return [value(v) for v in jaxpr.outvars], meetings


def _scan(
    scan: parameters.Scan, program: Program, operands: list[Any]
) -> tuple[list[Any], list[Meeting]]:
    """The scan with the meetings of every turn stacked.

    A weight that is the same in every turn is carried, not stacked: a recurrent network would
    otherwise hold a copy of its weights for every step.
    """
    constants, carries = scan.constants, scan.carries
    consts, init = operands[:constants], operands[constants : constants + carries]
    stacked = operands[constants + carries :]
    loop = program.depth - 1
    varies = [loop in site.origin.loops for site in program.sites]

    def turn(carry, x):
        results, meetings = run(program, [*consts, *carry[0], *x])
        fixed = [m.weight for m, own in zip(meetings, varies, strict=True) if not own]
        rest = [
            (m if own else m._replace(weight=None)) for m, own in zip(meetings, varies, strict=True)
        ]
        return (results[:carries], fixed), (results[carries:], rest)

    def first(stacked):
        return turn((init, ()), [x[0] for x in stacked])[0][1]

    blank = jtu.tree_map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(first, stacked))
    (ends, fixed), (stacks, meetings) = jax.lax.scan(
        turn,
        (init, blank),
        stacked,
        length=scan.length,
        reverse=scan.reverse,
        unroll=scan.unroll,
    )
    left = iter(fixed)
    whole = [
        m if own else m._replace(weight=next(left)) for m, own in zip(meetings, varies, strict=True)
    ]
    return [*ends, *stacks], whole
