"""Running a program that was followed, with what meets at its sites among the results."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jax.extend.core import Literal
from jaxtyping import Array

from ..._jaxprs import parameters, run_equation
from ._program import Program, Site


class Piece(NamedTuple):
    """A stack of weights, and for each step that was done to it the other operands."""

    stack: Any
    others: tuple[tuple[Any, ...], ...] = ()


class Meeting(NamedTuple):
    """The weight as it meets the input, that input, and what comes out.

    - `others`: where the weight is in pieces `weight` is the stack, and these the other operands
        of each step from there to what meets the input.
    - `rest`: what else the operation needs.
    """

    weight: Any
    input: Array
    output: Array
    others: tuple[tuple[Array, ...], ...] = ()
    rest: tuple[Array, ...] = ()


class Ran(NamedTuple):
    """A program's results, those of them that are pieces, and the meetings in their order."""

    results: list[Any]
    pieces: list[Piece | None]
    meetings: list[Meeting]


Taps = Sequence[Array | None] | None
"""What is added to the outputs of a program's sites, in their order; `None` for nothing."""

ProductAt = Callable[[Site, Any, list[Any]], list[Any] | None]
"""What a site's equation makes of its operands; `None` for what it does by itself."""


def run(
    program: Program,
    arguments: Sequence[Any],
    pieces: Sequence[Piece | None] | None = None,
    taps: Taps = None,
    product: ProductAt | None = None,
) -> Ran:
    """Runs a program; `pieces` are those of the arguments that are pieces of a stack.

    With `product` it computes what comes out of each site.
    """
    jaxpr = program.jaxpr
    values = dict(zip(jaxpr.constvars, program.constants, strict=True))
    values |= zip(jaxpr.invars, arguments, strict=True)
    known: dict[Any, Piece | None] = dict(
        zip(jaxpr.invars, pieces or [None] * len(arguments), strict=True)
    )
    meetings: list[Meeting] = []
    left = None if taps is None else iter(taps)

    def taken(count: int) -> Taps:
        return None if left is None else list(itertools.islice(left, count))

    def value(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    def piece(variable: Any) -> Piece | None:
        return None if isinstance(variable, Literal) else known.get(variable)

    for i, equation in enumerate(jaxpr.eqns):
        operands = [value(v) for v in equation.invars]
        parts = [piece(v) for v in equation.invars]
        if i in program.inner:
            inside = taken(sum(len(inner.sites) for inner in program.inner[i]))
            ran = _run_inner(equation, program.inner[i], operands, parts, inside, product)
        else:
            own = taken(len(program.here.get(i, ())))
            ran = _run_here(program, i, operands, parts, own, product)
        meetings += ran.meetings
        values |= zip(equation.outvars, ran.results, strict=True)
        known |= zip(equation.outvars, ran.pieces, strict=True)
    ends = jaxpr.outvars
    return Ran([value(v) for v in ends], [piece(v) for v in ends], meetings)


def _run_here(
    program: Program,
    i: int,
    operands: list[Any],
    parts: list[Piece | None],
    taps: Taps,
    product: ProductAt | None,
) -> Ran:
    equation = program.jaxpr.eqns[i]
    results = None
    if product is not None and program.here.get(i):
        results = product(program.here[i][0], equation, operands)
    if results is None:
        results = run_equation(equation, program.jaxpr, operands)
    for site, tap in zip(program.here.get(i, ()), taps or (), strict=False):
        if tap is not None:
            results = [site.operation.added_to(results[0], tap), *results[1:]]
    pieces: list[Piece | None] = [None] * len(results)
    if (position := program.pieces.get(i)) is not None:
        before = parts[position] or Piece(operands[position])
        others = tuple(
            x if isinstance(x, jax.Array) else jnp.asarray(x, variable.aval.dtype)
            for place, (x, variable) in enumerate(zip(operands, equation.invars, strict=True))
            if place != position
        )
        pieces = [Piece(before.stack, (*before.others, others))] * len(results)
    elif equation.primitive.name in ("optimization_barrier", "device_put"):
        pieces = parts
    meetings = []
    for site in program.here.get(i, ()):
        position = site.operation.position
        part = pieces[0] if position == -1 else parts[position]
        part = part or Piece(operands[position])
        if site.cut is not None:
            axis, start, size = site.cut
            part = Piece(jax.lax.slice_in_dim(part.stack, start, start + size, axis=axis))
        x = site.operation.input_of(operands, site.is_data)
        output = site.operation.output_of(results[0])
        rest = site.operation.rest_of(operands)
        meetings.append(Meeting(part.stack, x, output, part.others, rest))
    return Ran(results, pieces, meetings)


def _run_inner(
    equation: Any,
    inner: tuple[Program, ...],
    operands: list[Any],
    parts: list[Piece | None],
    taps: Taps,
    product: ProductAt | None,
) -> Ran:
    name = equation.primitive.name
    if name == "cond":
        return _branches(inner, operands, parts, taps, product)
    if name == "scan" and (scan := parameters.scan(equation)) is not None:
        return _scan(scan, inner[0], operands, parts, taps, product)
    return run(inner[0], operands, parts, taps, product)


def _scan(
    scan: parameters.Scan,
    program: Program,
    operands: list[Any],
    parts: list[Piece | None],
    taps: Taps,
    product: ProductAt | None,
) -> Ran:
    """The scan with the meetings of every turn stacked.

    A weight that is the same in every turn is carried, not stacked: a recurrent network would
    otherwise hold a copy of its weights for every step.
    """
    constants, carries = scan.constants, scan.carries
    consts, init = operands[:constants], operands[constants : constants + carries]
    stacked = operands[constants + carries :]
    loop = program.depth - 1
    varies = [loop in site.origin.loops for site in program.sites]

    def turn(carry, xs):
        x, taps = xs
        results, _, meetings = run(program, [*consts, *carry[0], *x], parts, taps, product)
        fixed = [m.weight for m, own in zip(meetings, varies, strict=True) if not own]
        rest = [
            (m if own else m._replace(weight=None)) for m, own in zip(meetings, varies, strict=True)
        ]
        return (results[:carries], fixed), (results[carries:], rest)

    def first(xs):
        return turn((init, ()), jtu.tree_map(lambda x: x[0], xs))[0][1]

    blank = _blank(jax.eval_shape(first, (stacked, taps)), 0.0)
    (ends, fixed), (stacks, meetings) = jax.lax.scan(
        turn,
        (init, blank),
        (stacked, taps),
        length=scan.length,
        reverse=scan.reverse,
        unroll=scan.unroll,
    )
    left = iter(fixed)
    whole = [
        m if own else m._replace(weight=next(left)) for m, own in zip(meetings, varies, strict=True)
    ]
    # What is in pieces and goes through a scan as it is stays what it was.
    pieces = [*parts[constants : constants + carries], *[None] * len(stacks)]
    return Ran([*ends, *stacks], pieces, whole)


def _branches(
    branches: tuple[Program, ...],
    operands: list[Any],
    parts: list[Piece | None],
    taps: Taps,
    product: ProductAt | None,
) -> Ran:
    """A condition; in the branches that don't run nothing meets, and NaN stands for it."""
    index, *operands = operands
    _, *parts = parts
    counts = [len(program.sites) for program in branches]

    def shapes(program: Program) -> list[Meeting]:
        return jax.eval_shape(lambda *operands: run(program, operands, parts).meetings, *operands)

    blanks = [_blank(shapes(program), jnp.nan) for program in branches]
    starts = [sum(counts[:number]) for number in range(len(counts))]

    def branch(number: int, program: Program) -> Any:
        start = starts[number]
        own = None if taps is None else taps[start : start + counts[number]]

        def call(*operands: Any) -> Any:
            results, _, meetings = run(program, operands, parts, own, product)
            every = [*blanks[:number], meetings, *blanks[number + 1 :]]
            return results, [meeting for some in every for meeting in some]

        return call

    calls = [branch(number, program) for number, program in enumerate(branches)]
    results, meetings = jax.lax.switch(index, calls, *operands)
    assert len(meetings) == sum(counts)
    return Ran(results, [None] * len(results), meetings)


def _blank(shapes: Any, value: float) -> Any:
    """Arrays of a value, and zeros where there are only integers."""

    def one(x: Any) -> Array:
        fits = jnp.issubdtype(x.dtype, jnp.inexact)
        return jnp.full(x.shape, value if fits else 0, x.dtype)

    return jtu.tree_map(one, shapes)
