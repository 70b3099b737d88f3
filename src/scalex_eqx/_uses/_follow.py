"""Following a model's arrays through a program that was traced at two widths."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import Literal

from .._jaxprs import parameters
from ._equation import Equation, together
from ._equations import values_of
from ._record import Record, used
from ._value import DATA, NUMBER, SIZED, ZERO, Value

_IDENTITIES = frozenset({"optimization_barrier", "device_put"})

Programs = tuple[Any, Any]


class Differs(Exception):
    """The programs at both widths are not the same."""


def follow(record: Record, programs: Programs, operands: Sequence[Value]) -> list[Value]:
    """The values of a program's results.

    **Arguments:**

    - `record`: gets the uses.
    - `programs`: the program at the base and at the probe width.
    - `operands`: the values of its arguments.

    **Raises:** `Differs` where the two programs have other equations.
    """
    (base, constants), (probe, others) = map(parameters.parts, programs)
    if len(base.eqns) != len(probe.eqns) or len(base.invars) != len(operands):
        raise Differs("")
    if len(constants) != len(others):
        raise Differs("")
    known = dict(zip(base.invars, operands, strict=True))
    known |= {
        v: NUMBER if _is_mask(x, y) else _constant(x, y)
        for v, x, y in zip(base.constvars, constants, others, strict=True)
    }

    def value(variable: Any, other: Any) -> Value:
        if isinstance(variable, Literal):
            return _constant(variable.val, other.val if isinstance(other, Literal) else None)
        return known.get(variable, DATA)

    for pair in zip(base.eqns, probe.eqns, strict=True):
        equation = Equation(*pair)
        if equation.name != equation.probe.primitive.name:
            raise Differs(equation.place)
        operands = list(map(value, equation.base.invars, equation.probe.invars))
        results = _results(record, equation, operands)
        known |= zip(equation.base.outvars, results, strict=True)
    return list(map(value, base.outvars, probe.outvars))


def _constant(x: Any, other: Any) -> Value:
    """A single number, or what may be anybody's data: an example batch, a key, a mask.

    `other` is the same at the other width, where it is known.
    """
    if (
        not eqx.is_array_like(x)
        or np.size(x) != 1
        or jnp.issubdtype(_dtype(x), jax.dtypes.extended)
    ):
        return DATA
    number = np.asarray(x).reshape(()).item()
    if np.size(other) == 1 and other is not None and np.asarray(other).reshape(()).item() != number:
        return SIZED
    return NUMBER if number else ZERO


def _is_mask(base: Any, probe: Any) -> bool:
    """Whether a constant grows with the width and is zeros and ones, as no example batch is."""
    if np.shape(base) == np.shape(probe) or isinstance(base, Tracer):
        return False
    if jnp.issubdtype(_dtype(base), jax.dtypes.extended):
        return False
    return bool(np.isin(base, (0, 1)).all())


def _dtype(x: Any) -> Any:
    return x.dtype if hasattr(x, "dtype") else np.result_type(x)


def _results(record: Record, equation: Equation, operands: list[Value]) -> list[Value]:
    name = equation.name
    both = (equation.base, equation.probe)
    if name in _IDENTITIES:
        return operands
    if parameters.is_way_back(equation.base):
        return [_derivative(record, equation, operands)] * len(equation.base.outvars)
    if (wrapped := _both(parameters.wrapped, both)) is not None:
        return follow(record, wrapped, operands)
    if name == "scan" and (scans := _both(parameters.scan, both)) is not None:
        return _scan(record, scans, _settled(record, operands), equation)
    if name == "while" and (loops := _both(parameters.loop, both)) is not None:
        return _while(record, loops, _settled(record, operands), equation)
    if name == "cond" and (branches := _both(parameters.branches, both)) is not None:
        return _cond(record, branches, _settled(record, operands), equation)
    if (inner := _both(parameters.only_program, both)) is not None:
        return follow(record, inner, operands)
    return values_of(record, equation, operands)


def _derivative(record: Record, equation: Equation, operands: list[Value]) -> Value:
    """What comes of the way back of a derivative within the program, without further uses."""
    for value in operands:
        record.commit(value)
    found = together(equation, operands)
    return found._replace(is_data=True, direct=0, past=0)


def _both(reader: Any, equations: tuple[Any, Any]) -> Any:
    found = tuple(map(reader, equations))
    return None if None in found else found


def _settled(record: Record, operands: list[Value]) -> list[Value]:
    """What a loop or a condition takes: an array that a mask was put on is still that."""
    return [
        record.settle(value)._replace(
            pieces=tuple(piece for piece in value.pieces if piece.free and piece.pending is None)
        )
        if value.is_data
        else value
        for value in operands
    ]


def _scan(record: Record, scans: Any, operands: list[Value], equation: Equation) -> list[Value]:
    scan = scans[0]
    first = scan.constants + scan.carries
    constants, stacked = operands[: scan.constants], [_turn(x) for x in operands[first:]]
    bodies = (scans[0].body, scans[1].body)

    def turn(carry: list[Value]) -> list[Value]:
        return follow(record, bodies, [*constants, *carry, *stacked])

    carry, results = _repeated(record, turn, operands[scan.constants : first], equation)
    return [*carry, *(_stacked(record, x) for x in results[scan.carries :])]


def _while(record: Record, loops: Any, operands: list[Value], equation: Equation) -> list[Value]:
    loop = loops[0]
    start = loop.condition_constants + loop.body_constants
    asked = operands[: loop.condition_constants]
    constants = operands[loop.condition_constants : start]

    def turn(carry: list[Value]) -> list[Value]:
        follow(record, (loops[0].condition, loops[1].condition), [*asked, *carry])
        return follow(record, (loops[0].body, loops[1].body), [*constants, *carry])

    carry, _ = _repeated(record, turn, operands[start:], equation)
    return carry


def _repeated(
    record: Record, turn: Any, start: list[Value], equation: Equation
) -> tuple[list[Value], list[Value]]:
    """What a loop carries once more turns change nothing, and the results of the last turn."""
    start = [record.settle(value) for value in start]
    mark, carry = record.mark(), start
    while True:
        record.back(mark)
        results = turn(carry)
        after = [
            _joined(record, (a, b), equation)
            for a, b in zip(carry, results[: len(carry)], strict=True)
        ]
        if after == carry:
            break
        carry = after
    for before, now in zip(start, carry, strict=True):
        if before.is_pure and now.is_data:
            for piece in before.pieces:
                record.add(used(piece, "entry", equation.place, f"{equation.name}'s start"))
    return carry, results


def _cond(record: Record, branches: Any, operands: list[Value], equation: Equation) -> list[Value]:
    index, *rest = operands
    ends = [follow(record, pair, rest) for pair in zip(*branches, strict=True)]
    return [
        _joined(record, values, equation)._replace(is_data=True)
        if index.is_data and not any(value.is_pure for value in values)
        else _joined(record, values, equation)
        for values in zip(*ends, strict=True)
    ]


def _joined(record: Record, values: Sequence[Value], equation: Equation) -> Value:
    """What is known of a value that is one of several."""
    if all(value == values[0] for value in values):
        return values[0]
    for value in values:
        record.commit(value)
    found = together(equation, values)
    trained = sites = 0
    for value in values:
        trained |= value.trained
        sites |= value.sites
    scales = values[0].scales if len({value.scales for value in values}) == 1 else 0
    if found.is_data:
        for value in values:
            if value.is_pure:
                for piece in value.pieces:
                    found = found._replace(direct=found.direct | (2 << piece.array))
        return found._replace(trained=trained, sites=sites, scales=scales)
    every = [tuple(p._replace(linear=False) for p in value.pieces) for value in values]
    same = all(one == every[0] for one in every)
    pieces = every[0]
    return found._replace(
        pieces=pieces if same else (),
        trained=trained,
        sites=sites,
        lost=found.lost or (None if same or not found.touched else equation.name),
    )


def _turn(value: Value) -> Value:
    """What a turn sees of an operand that the scan runs along."""
    pieces = tuple(
        piece._replace(axes=piece.axes[1:], members=piece.members | piece.axes[0])
        for piece in value.pieces
    )
    return value._replace(pieces=pieces)


def _stacked(record: Record, value: Value) -> Value:
    """What a scan returns of its turns."""
    if value.is_data:
        return record.settle(value)
    pieces = tuple(piece._replace(axes=(frozenset(), *piece.axes)) for piece in value.pieces)
    return value._replace(pieces=pieces)
