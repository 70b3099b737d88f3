"""Where a program uses each weight, if it can be told."""

import math
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend.core import Literal

from .._jaxprs import axes_behind, parameters
from ._equations import Use, recognised

Path = tuple[int, ...]
"""Of an equation: its number in the program, and in the program that holds this one before it."""

Origin = tuple[Path, int]
"""Where a weight comes in: the scan whose body it is handed to, layer by layer, and the operand."""


class Kind(IntEnum):
    """What a value depends on that is not a weight alone, entry by entry."""

    free = 0
    weights = 1
    data = 2


class Piece(NamedTuple):
    """A weight, or entries of it, each in one place and times a factor at most.

    - `turns`: how often a loop comes by it.
    """

    weight: int
    origin: Origin
    turns: int = 1


class Positions(NamedTuple):
    """Made from the example, with its positions along an axis."""

    axis: int


Value = Piece | Kind | Positions


class Followed:
    """What is found.

    - `uses`: by equation, the weight that it uses, and how.
    - `lost`: by weight, the operation that makes something else of it.
    """

    def __init__(self, tokens: int = 0):
        """**Arguments:**

        - `tokens`: how many positions an example has if every use at one is for itself, so that a
            loop may come by the same weight again; 0 if uses by an example belong together.
        """
        self.tokens = tokens
        self.uses: dict[Path, tuple[Piece, Use]] = {}
        self.lost: dict[int, str] = {}
        self._origins: dict[int, list[Origin]] = {}

    def use(self, path: Path, piece: Piece, use: Use) -> None:
        """Writes down a use."""
        self.uses[path] = piece, use
        origins = self._origins.setdefault(piece.weight, [])
        if origins:
            self.lost.setdefault(piece.weight, "a second use")
        origins.append(piece.origin)

    def lose(self, values: Sequence[Value], operation: str) -> None:
        """Writes down that something else is made of weights."""
        for value in values:
            if isinstance(value, Piece):
                self.lost.setdefault(value.weight, operation)
                self._origins.setdefault(value.weight, []).append(value.origin)

    def origin(self, weight: int) -> Origin | None:
        """Behind which all uses of a weight are; `None` if it isn't used."""
        origins = set(self._origins.get(weight, ()))
        return origins.pop() if len(origins) == 1 else ((), weight) if origins else None


def follow(found: Followed, jaxpr: Any, values: Sequence[Value], path: Path = ()) -> list[Value]:
    """What is known of a program's results.

    **Arguments:**

    - `jaxpr`: without constants of its own, or with constants that depend on nothing.
    - `values`: of its operands.
    """
    known: dict[Any, Value] = dict(zip(jaxpr.invars, values, strict=True))

    def read(variable: Any) -> Value:
        return Kind.free if isinstance(variable, Literal) else known.get(variable, Kind.free)

    for number, equation in enumerate(jaxpr.eqns):
        operands = [read(variable) for variable in equation.invars]
        results = _results(found, equation, operands, (*path, number))
        known.update(zip(equation.outvars, results, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _results(found: Followed, equation: Any, operands: list[Value], path: Path) -> Sequence[Value]:
    kind = max((_kind(v) for v in operands), default=Kind.free)
    places = [i for i, value in enumerate(operands) if isinstance(value, Piece)]
    count = len(equation.outvars)
    if not places and not any(isinstance(value, Positions) for value in operands):
        return [kind] * count
    if (program := inner(equation)) is not None:
        return follow(found, program, operands, path)
    if (scan := parameters.scan(equation)) is not None:
        return _scanned(found, equation, scan, operands, path)
    if not places:
        return [_positions(equation, operands, i) for i in range(count)]
    piece = operands[places[0]]
    assert isinstance(piece, Piece)
    if equation.primitive.name == "stop_gradient":
        return [Kind.weights] * count
    if len(places) == 1 and kind is Kind.free and is_structural(equation, places[0]):
        return [piece]
    if len(places) == 1 and kind is Kind.data:
        others = [v for i, v in enumerate(operands) if i != places[0]]
        use = recognised(equation, places[0])
        if use is not None and _meets_data(use, others):
            use = _placed(use, others, found.tokens)
            found.use(path, piece, use)
            is_placed = found.tokens > 0 and use.positions == found.tokens
            return [Positions(use.axes[0]) if is_placed and len(use.axes) == 1 else Kind.data]
    found.lose(operands, equation.primitive.name)
    return [max(kind, Kind.weights)] * count


def _kind(value: Value) -> Kind:
    """Of a piece nothing yet."""
    if isinstance(value, Positions):
        return Kind.data
    return value if isinstance(value, Kind) else Kind.free


def _positions(equation: Any, operands: Sequence[Value], output: int) -> Value:
    """Where the positions are in what is made from them; data if that can't be told."""
    shape = equation.outvars[output].aval.shape
    ends: set[int] = set()
    for place, value in enumerate(operands):
        if isinstance(value, Positions):
            ndim = len(equation.invars[place].aval.shape)
            axes = [i == value.axis or None for i in range(ndim)]
            found = axes_behind(equation, place, axes, shape)
            ends |= {i for i, one in enumerate(found) if one}
    return Positions(ends.pop()) if len(ends) == 1 else Kind.data


def _placed(use: Use, others: Sequence[Value], tokens: int) -> Use:
    """Of a weight with an entry for each position: which axis the positions are along."""
    if use.kind != "entries" or use.uses > 1 or not isinstance(others[0], Positions):
        return use
    axis = others[0].axis
    return use._replace(axes=(axis,)) if use.shape[axis] == tokens else use


def _meets_data(use: Use, others: Sequence[Value]) -> bool:
    # A place in a table may have a constant part.
    return use.kind == "lookup" or all(_kind(value) is Kind.data for value in others)


def inner(equation: Any) -> Any:
    """The program that an equation only wraps, so that it can be run in its place."""
    if equation.primitive.name not in ("jit", "pjit", "remat2", "checkpoint", "closed_call"):
        return None
    program = parameters.wrapped(equation)
    if program is None:
        return None
    jaxpr, constants = parameters.parts(program)
    return None if constants or jaxpr.constvars else jaxpr


def _scanned(
    found: Followed, equation: Any, scan: parameters.Scan, operands: list[Value], path: Path
) -> list[Value]:
    body, constants = parameters.parts(scan.body)
    carries = slice(scan.constants, scan.constants + scan.carries)
    found.lose(operands[carries], "scan")
    if constants:
        found.lose(operands, "scan")
        return [Kind.data] * len(equation.outvars)
    inside: list[Value] = []
    for position, value in enumerate(operands):
        if position < scan.constants:
            inside.append(_constant(found, value, scan.length))
        elif position < carries.stop:
            inside.append(value if isinstance(value, Positions) else Kind.data)
        elif isinstance(value, Piece):
            inside.append(value._replace(origin=(path, position)))
        else:
            inside.append(_kind(value))
    if found.tokens:
        # Where positions stay in what is carried.
        after = follow(Followed(found.tokens), body, inside, path)[: scan.carries]
        stay = after == inside[carries]
        inside[carries] = after if stay else [Kind.data] * scan.carries
    results = follow(found, body, inside, path)
    found.lose(results, "scan")
    return [*inside[carries], *(Kind.data for _ in results[scan.carries :])]


def _constant(found: Followed, value: Value, length: int) -> Value:
    if not isinstance(value, Piece):
        return value
    if found.tokens:
        return value._replace(turns=value.turns * length)
    found.lose([value], "scan")
    return Kind.weights


_STRUCTURAL = frozenset(
    {
        *("transpose", "reshape", "squeeze", "rev", "copy", "copy_p", "slice", "neg"),
        *("sharding_constraint", "expand_dims"),
    }
)


def is_structural(equation: Any, position: int) -> bool:
    """Whether each entry of the result is an entry of the operand, times a factor at most."""
    name, before = equation.primitive.name, equation.invars[position].aval
    if len(equation.outvars) != 1:
        return False
    after = equation.outvars[0].aval
    if name in _STRUCTURAL:
        return True
    if name == "broadcast_in_dim":
        return math.prod(before.shape) == math.prod(after.shape)
    if name == "convert_element_type":
        return jnp.issubdtype(after.dtype, jnp.inexact)
    if name == "select_n":
        return position > 0 and len(equation.invars) == 3
    if before.shape != after.shape:
        return False
    if name == "mul" or (name == "div" and position == 0):
        return equation.invars[1 - position].aval.shape == ()
    return name == "add" or (name == "sub" and position == 0)
