"""Operations on entries, and what moves them about."""

from collections.abc import Iterator, Sequence

import jax.numpy as jnp
from jax.extend.core import Literal

from ._equation import CUTS, LINEAR, MOVES, Equation, behind, together
from ._products import meet
from ._record import Record, used
from ._scales import entry_scales
from ._value import Piece, Value, bits


def entries(record: Record, equation: Equation, operands: list[Value]) -> list[Value]:
    """Operations on entries, and what moves them about."""
    found = together(equation, operands)
    if found.is_data:
        return _met(record, equation, operands, found)
    place = None
    reduced = 0
    for i, value in enumerate(operands):
        reduced |= value.reduced
        for other in operands[:i] + operands[i + 1 :]:
            own = [p for p in value.pieces if other.reduced & bits([p.array])]
            if own and equation.name in ("mul", "div", "sub") and not value.reduced:
                place = equation.place if place is None else place
                for piece in own:
                    record.add(used(piece, "normalise", place, equation.name))
                reduced = 0
    if equation.name in MOVES and len(operands) == 1:
        scales = operands[0].scales
    else:
        scales = entry_scales(equation.name, operands)
    return [
        found._replace(
            pieces=tuple(
                behind(equation, i, piece, output)
                for i, piece in _with_gains(equation, operands)
                if not (piece.joined and equation.name in CUTS)
            ),
            reduced=reduced,
            scales=scales,
        )
        for output in range(len(equation.base.outvars))
    ]


def _with_gains(equation: Equation, operands: Sequence[Value]) -> Iterator[tuple[int, Piece]]:
    """All pieces, by operand; where arrays are multiplied, those of fewer axes are gains.

    What was joined with other arrays and is cut again is in one of the parts, or in none.
    """
    axes = [max((sum(map(bool, p.axes)) for p in value.pieces), default=0) for value in operands]
    several = sum(map(bool, (value.touched for value in operands))) > 1
    joined = several and equation.name in ("concatenate", "stack")
    for i, value in enumerate(operands):
        gain = equation.name == "mul" and 0 < axes[i] < max(axes)
        for piece in value.pieces:
            yield i, piece._replace(gain=piece.gain or gain, joined=piece.joined or joined)


_KINDS = {"mul": "scale", "div": "scale", "add": "add", "add_any": "add", "sub": "add"}


def _met(record: Record, equation: Equation, operands: list[Value], found: Value) -> list[Value]:
    """Entries of which some are data."""
    name, place = equation.name, None
    if name == "mul":
        meet(record, operands)
    own, pieces = 0, []
    keeps = name in ("mul", "div") or (name in LINEAR and name not in ("add", "add_any", "sub"))
    for i, value in enumerate(operands):
        others = operands[:i] + operands[i + 1 :]
        free = not any(other.touched for other in others)
        if value.is_pure:
            place = equation.place if place is None else place
            record.lose(value, place, name)
            own |= bits(piece.array for piece in value.pieces)
        kept = keeps and not (name == "div" and i > 0) and not (name == "select_n" and i == 0)
        for piece in value.pieces:
            if value.is_pure and _matters(piece):
                record.add(used(piece, _KINDS.get(name, "entry"), place or "", name))
            if _is_mean(equation, piece, others):
                piece = piece._replace(pending=None)
            elif not value.is_pure and piece.pending is not None and not _waits(name, others):
                record.add(piece.pending)
                continue
            if kept and piece.linear and not _is_squared(piece, others):
                pieces.append((i, piece._replace(free=piece.free and free)))
    made = found._replace(
        direct=found.direct | own,
        scales=operands[0].scales
        if len(operands) == 1 and name in MOVES
        else entry_scales(name, operands),
    )
    return [
        made._replace(pieces=tuple(behind(equation, i, piece, output) for i, piece in pieces))
        for output in range(len(equation.base.outvars))
    ]


def _is_squared(piece: Piece, others: Sequence[Value]) -> bool:
    """Whether an array is multiplied with itself, as in the size of what it has scaled."""
    return any(one.array == piece.array for other in others for one in other.pieces)


def _matters(piece: Piece) -> bool:
    """Whether an array is used entry by entry, and isn't a penalty or the like of it."""
    return any(piece.axes) or piece.linear


def _waits(name: str, others: Sequence[Value]) -> bool:
    """Whether a sum that may still become a mean passes as it is."""
    return name in LINEAR and not any(other.is_data or other.touched for other in others)


def _is_mean(equation: Equation, piece: Piece, others: Sequence[Value]) -> bool:
    """Whether a sum over the width is divided by as much as it grows."""
    if piece.pending is None or piece.pending.kind != "sum" or equation.name not in ("mul", "div"):
        return False
    if any(other.is_data or other.touched for other in others):
        return False
    pairs = zip(equation.base.invars, equation.probe.invars, strict=True)
    numbers = [
        (b.val, p.val) for b, p in pairs if isinstance(b, Literal) and isinstance(p, Literal)
    ]
    return any(jnp.size(b) == 1 and float(b) != float(p) for b, p in numbers)
