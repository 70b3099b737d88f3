"""What equations make of values, one kind after the other."""

from collections.abc import Sequence

from .._jaxprs import ELEMENTWISE, parameters
from ._entries import entries
from ._equation import MOVES, REDUCTIONS, Equation, Shape, behind, together, unknown
from ._outputs import with_outputs
from ._products import kernel, product
from ._record import Record, used
from ._value import DATA, NUMBER, SIZED, Use, Value, bits


def values_of(record: Record, equation: Equation, operands: list[Value]) -> list[Value]:
    """The values of the results of an equation that holds no program."""
    if operands and not all(value.is_number for value in operands):
        before = len(record.uses)
        found = [_few(record, value) for value in _values_of(record, equation, operands)]
        found = _with_sites(record, equation, before, found)
        found = with_outputs(record, equation, operands, found)
        return _with_numbers(record, equation, operands, found)
    name = equation.name
    is_number = bool(operands) and (name in ELEMENTWISE or name in MOVES)
    made = operands[0] if is_number and name in MOVES else NUMBER if is_number else DATA
    if is_number and any(value.sized for value in operands) and not equation.is_logical:
        made = SIZED
    if name == "broadcast_in_dim" and equation.fills_a_batch:
        made = DATA
    elif name == "iota" and not equation.fills_a_batch:
        made = NUMBER  # Of a mask: no example batch grows with the width.
    return [made] * len(equation.base.outvars)


def _values_of(record: Record, equation: Equation, operands: list[Value]) -> list[Value]:
    name = equation.name
    if name == "dot_general":
        found = product(record, equation, operands)
    elif name in ("conv_general_dilated", "ragged_dot_general"):
        found = kernel(record, equation, operands)
    elif name in ("gather", "dynamic_slice"):
        found = _selection(record, equation, operands)
    elif name in REDUCTIONS:
        found = _reduction(record, equation, operands)
    elif name in ELEMENTWISE or name in MOVES:
        return entries(record, equation, operands)
    else:
        found = unknown(record, equation, operands)
    return [found] * len(equation.base.outvars)


# More arrays are multiplied with each other, or added, before they meet data in no layer.
_MOST = 12


def _few(record: Record, value: Value) -> Value:
    """A value with each piece once, and of too many arrays with none."""
    if len(value.pieces) < 2:
        return value
    pieces = tuple(dict.fromkeys(value.pieces))
    if len(pieces) <= _MOST:
        return value._replace(pieces=pieces)
    record.commit(value)
    lost = None if value.is_data else value.lost or f"a product or sum of over {_MOST} arrays"
    return value._replace(pieces=(), lost=lost)


def _with_sites(
    record: Record, equation: Equation, before: int, results: Sequence[Value]
) -> list[Value]:
    """Results that know the uses which were made in their equation, to see which are trained."""
    sites = 0

    def at(use: Use) -> Use:
        nonlocal sites
        if use.site:
            return use
        site = record.site(equation.base, use.array)
        sites |= site
        return use._replace(site=site)

    record.uses[before:] = map(at, record.uses[before:])
    found = [
        value._replace(
            pieces=tuple(
                piece if piece.pending is None else piece._replace(pending=at(piece.pending))
                for piece in value.pieces
            )
        )
        for value in results
    ]
    if not sites or not equation.is_derived:
        return found
    return [value._replace(sites=value.sites | sites) for value in found]


def _with_numbers(
    record: Record, equation: Equation, operands: Sequence[Value], results: Sequence[Value]
) -> list[Value]:
    """Results with what numbers that follow the width do to them.

    Such a number makes a mean of a sum over the width. What else it is multiplied with has a law
    of somebody's own.
    """
    sized, averaged = results[0].sized, False
    if equation.name in ("mul", "div"):
        for value, other in (operands, reversed(operands)):
            if other.is_number and other.sized and value.averaged:
                sized = value.sized
            elif other.is_number and other.sized:
                record.sized |= value.touched if value.is_pure else value.direct
    elif equation.name == "reduce_sum":
        averaged = equation.grows(0, parameters.reduced_axes(equation.base) or ())
    elif len(operands) == 1 and (equation.name in ELEMENTWISE or equation.name in MOVES):
        averaged = operands[0].averaged
    return [result._replace(sized=sized, averaged=averaged) for result in results]


def _selection(record: Record, equation: Equation, operands: list[Value]) -> Value:
    """Rows by their numbers, or a part of an array."""
    value, indices = operands[0], operands[1:]
    found = together(equation, operands)
    gather = parameters.gather(equation.base)
    for index in indices:
        record.commit(index)
    if gather is None:
        return unknown(record, equation, operands)
    base, _ = equation.shapes(0)
    taken = [
        i for i, (size, all_) in enumerate(zip(gather.sizes, base, strict=True)) if size < all_
    ]
    if value.is_data or not value.pieces:
        if value.is_pure:
            record.lose(value, equation.place, equation.name)
        return found
    by_data = any(index.is_data for index in indices)
    pieces, own = [], 0
    for piece in value.pieces:
        if piece.joined:
            continue
        axes = frozenset[int]().union(*(piece.axes[axis] for axis in taken))
        moved = behind(equation, 0, piece)
        if by_data and axes:
            pending = used(piece, "lookup", equation.place, equation.name, axes=axes)
            pieces.append(moved._replace(looked=piece.looked | axes, pending=pending))
            own |= bits([piece.array])
        else:
            single = frozenset[int]().union(
                *(piece.axes[axis] for axis in taken if gather.sizes[axis] == 1)
            )
            pieces.append(moved._replace(members=piece.members | single))
    return found._replace(
        pieces=tuple(pieces), is_data=found.is_data or by_data, direct=found.direct | own
    )


def _reduction(record: Record, equation: Equation, operands: list[Value]) -> Value:
    [value] = operands
    axes = parameters.reduced_axes(equation.base)
    if axes is None:
        return unknown(record, equation, operands)
    found = together(equation, operands)
    grows = equation.grows(0, axes)
    is_sum = equation.name == "reduce_sum"
    if value.is_pure:
        return _reduced(equation, value, found, axes, grows)
    over, pieces = 0, []
    for piece in value.pieces if is_sum else ():
        own = frozenset[int]().union(*(piece.axes[axis] for axis in axes))
        moved = behind(equation, 0, piece)
        if own and equation.grows(0, [axis for axis in axes if piece.axes[axis]]):
            use = used(piece, "sum", equation.place, equation.name, axes=own)
            moved = moved._replace(pending=use._replace(members=use.members | piece.looked))
            over |= bits([piece.array])
        pieces.append(moved)
    if not is_sum:
        record.commit(value)
    scales = value.scales if is_sum else 0
    if not grows:
        return found._replace(pieces=tuple(pieces), scales=scales)
    ends = record.sum(found.direct, over)
    record.sized |= over if found.sized else 0
    return found._replace(
        pieces=tuple(pieces),
        direct=ends,
        past=found.direct | found.past,
        scales=scales,
        sized=False,
    )


def _reduced(equation: Equation, value: Value, found: Value, axes: Shape, grows: bool) -> Value:
    """A sum or the like over an array alone."""
    pieces, reduced = [], value.reduced
    for piece in value.pieces:
        own = frozenset[int]().union(*(piece.axes[axis] for axis in axes))
        if grows and own:
            reduced |= bits([piece.array])
        moved = behind(equation, 0, piece)
        pieces.append(moved._replace(summed=piece.summed | own if moved.linear else piece.summed))
    scales = value.scales if equation.name == "reduce_sum" else 0
    return found._replace(pieces=tuple(pieces), reduced=reduced, scales=scales)
