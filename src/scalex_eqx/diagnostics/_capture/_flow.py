"""Which weights' outputs go on to be other weights' inputs."""

from collections.abc import Callable, Sequence
from typing import Any

from jax.extend.core import Literal

from ..._jaxprs import parameters
from ._program import Program

Paths = frozenset[str]
Edges = set[tuple[str, str]]
_NONE: Paths = frozenset()


def flow(program: Program, is_matrix: Callable[[str], bool]) -> tuple[tuple[str, str], ...]:
    """Pairs of paths: what comes out of the first matrix reaches the second as its input.

    That is with no other matrix between them, whatever else happens on the way. Of a matrix whose
    output only reaches the result there is no pair: it is a readout.
    """
    edges: Edges = set()
    _through(program, [_NONE] * len(program.jaxpr.invars), is_matrix, edges)
    return tuple(sorted(edges))


def _through(
    program: Program, arguments: Sequence[Paths], is_matrix: Callable[[str], bool], edges: Edges
) -> list[Paths]:
    """From which matrices the results come, given those of the arguments; adds to `edges`."""
    jaxpr = program.jaxpr
    known = dict(zip(jaxpr.invars, arguments, strict=True))

    def behind(variable: Any) -> Paths:
        return _NONE if isinstance(variable, Literal) else known.get(variable, _NONE)

    for i, equation in enumerate(jaxpr.eqns):
        operands = [behind(v) for v in equation.invars]
        if parameters.is_way_back(equation):
            # A derivative is no features of a later layer.
            results = [_NONE] * len(equation.outvars)
        elif i in program.inner:
            results = _within(equation, program.inner[i], operands, is_matrix, edges)
        else:
            results = [_at(program, i, operands, is_matrix, edges)] * len(equation.outvars)
        known |= zip(equation.outvars, results, strict=True)
    return [behind(v) for v in jaxpr.outvars]


def _at(
    program: Program,
    i: int,
    operands: Sequence[Paths],
    is_matrix: Callable[[str], bool],
    edges: Edges,
) -> Paths:
    sites = [site for site in program.here.get(i, ()) if is_matrix(site.path)]
    for site in sites:
        met = [paths for paths, is_data in zip(operands, site.is_data, strict=True) if is_data]
        edges.update((path, site.path) for path in _NONE.union(*met))
    return frozenset(site.path for site in sites) if sites else _NONE.union(*operands)


def _within(
    equation: Any,
    inner: tuple[Program, ...],
    operands: list[Paths],
    is_matrix: Callable[[str], bool],
    edges: Edges,
) -> list[Paths]:
    name = equation.primitive.name
    if name == "cond":
        index, *rest = operands
        ends = [_through(program, rest, is_matrix, edges) for program in inner]
        return [index.union(*results) for results in zip(*ends, strict=True)]
    if name != "scan" or (scan := parameters.scan(equation)) is None:
        return _through(inner[0], operands, is_matrix, edges)
    first, last = scan.constants, scan.constants + scan.carries
    carry = operands[first:last]
    while True:
        results = _through(
            inner[0], [*operands[:first], *carry, *operands[last:]], is_matrix, edges
        )
        after = [a | b for a, b in zip(carry, results[: scan.carries], strict=True)]
        if after == carry:
            return [*carry, *results[scan.carries :]]
        carry = after
