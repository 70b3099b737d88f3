"""Products in which axes are summed over."""

from collections.abc import Sequence

from .._jaxprs import parameters
from ._equation import Equation, Shape, behind, together, unknown
from ._record import Record, used
from ._scales import product_scales
from ._value import Piece, Use, Value, bits


def product(record: Record, equation: Equation, operands: list[Value]) -> Value:
    product = parameters.product(equation.base)
    if product is None:
        return unknown(record, equation, operands)
    return _summed(record, equation, operands, product.summed, product.batch)


def kernel(record: Record, equation: Equation, operands: list[Value]) -> Value:
    """A convolution, or a product of groups of rows with a matrix each."""
    if equation.name == "conv_general_dilated":
        convolution = parameters.convolution(equation.base)
        if convolution is None:
            return unknown(record, equation, operands)
        numbers = equation.base.params["dimension_numbers"]
        left = (int(numbers.lhs_spec[1]),)
        return _summed(record, equation, operands, (left, convolution.summed), ((), ()))
    ragged = parameters.ragged(equation.base)
    if ragged is None:
        return unknown(record, equation, operands)
    members = (ragged.group,)
    return _summed(record, equation, operands, ((), ragged.summed), ((), members))


def _summed(
    record: Record,
    equation: Equation,
    operands: list[Value],
    summed: tuple[Shape, Shape],
    batch: tuple[Shape, Shape],
) -> Value:
    """A product of the first two operands in which `summed` axes of both are summed over."""
    place, found = equation.place, together(equation, operands)
    if any(value.is_number for value in operands[:2]):
        found = found._replace(is_data=True)
    grows = any(equation.grows(i, summed[i]) for i in (0, 1))
    over, pieces = 0, []
    for i in (0, 1):
        value, other = operands[i], operands[1 - i]
        if value.is_pure:
            record.lose(value, place, equation.name)
        for piece in value.pieces:
            if not value.is_pure and not _is_summed(equation, i, piece, other, summed[i]):
                if piece.pending is not None:
                    record.add(piece.pending)
                continue
            if not found.is_data:
                axes = frozenset[int]().union(*(piece.axes[axis] for axis in summed[i]))
                moved = behind(equation, i, piece)
                pieces.append(moved._replace(inner=piece.inner | axes))
                continue
            use = _use(equation, i, piece, summed[i], batch[i], place)
            scales = other.scales & ~bits([piece.array]) if other.scales > 0 else 0
            record.add(use._replace(scales=scales))
            if equation.grows(i, [a for a in summed[i] if piece.axes[a]]) and use.kind == "sum":
                over |= bits([piece.array])
    if all(value.is_data for value in operands[:2]):
        meet(record, operands[:2])
        if grows:
            record.weights |= operands[0].direct | operands[1].direct
    pure = [value for value in operands[:2] if value.is_pure]
    own = bits(piece.array for value in pure for piece in value.pieces)
    scales = product_scales(operands[:2])
    if grows:
        ends = record.sum(found.direct, over)
        record.sized |= over if found.sized else 0
        return found._replace(
            pieces=tuple(pieces),
            direct=ends,
            past=found.direct | found.past,
            scales=scales,
            sized=False,
        )
    return found._replace(pieces=tuple(pieces), direct=found.direct | own, scales=scales)


def meet(record: Record, values: Sequence[Value]) -> None:
    """Writes down of which arrays rows that were looked up are multiplied with data."""
    for value, other in (values, reversed(values)):
        if other.is_data and other.touched:
            record.chosen |= bits(piece.array for piece in value.pieces if piece.looked)


def _is_summed(
    equation: Equation, position: int, piece: Piece, other: Value, summed: Shape
) -> bool:
    """Whether a product with an array is a sum over that, and not over what it was made to be."""
    if not other.is_data or not any(piece.axes[axis] for axis in summed):
        return False
    if piece.looked:
        # Members are chosen where they are matrices, or where features meet a row.
        several = len([axes for axes in piece.axes if axes]) > 1
        return several or not any(one.looked for one in other.pieces)
    return piece.free and equation.grows(position, summed)


def _use(
    equation: Equation, position: int, piece: Piece, summed: Shape, batch: Shape, place: str
) -> Use:
    axes = frozenset[int]().union(*(piece.axes[axis] for axis in summed))
    shared = frozenset[int]().union(*(piece.axes[axis] for axis in batch))
    members = piece.members | piece.looked | shared
    is_split = _is_split(equation, position, piece, summed, batch)
    if (piece.unseen and not axes) or is_split:
        return Use("lost", piece.array, members=members, place=place, operation=equation.name)
    if not axes or piece.gain:
        return used(piece, "scale", place, equation.name)
    return used(
        piece, "sum", place, equation.name, axes=(axes | piece.summed) - members, members=members
    )


def _is_split(equation: Equation, position: int, piece: Piece, summed: Shape, batch: Shape) -> bool:
    """Whether a growing axis runs along what is summed over and along what isn't: which is which?

    Arrays that were joined to one and taken apart again are like that.
    """
    places = range(len(piece.axes))
    rest = [axis for axis in places if axis not in summed and axis not in batch]
    within, beside = (
        frozenset[int]().union(
            *(piece.axes[axis] for axis in some if equation.grows(position, [axis]))
        )
        for some in (summed, rest)
    )
    return bool(within & beside)
