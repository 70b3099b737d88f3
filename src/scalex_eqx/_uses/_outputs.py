"""Which arrays' outputs a value is, and where a program takes them apart."""

from collections.abc import Iterator, Sequence

from .._jaxprs import ELEMENTWISE, parameters
from ._equation import MOVES, PRODUCTS, Equation, behind
from ._record import Record
from ._value import Cut, Piece, Value


def with_outputs(
    record: Record, equation: Equation, operands: Sequence[Value], results: Sequence[Value]
) -> list[Value]:
    """Results of an equation that know whose outputs they are; writes down where these are cut."""
    found = list(_outputs(equation, operands))
    if equation.name in ("slice", "split"):
        _write_cuts(record, equation, [piece for _, piece in found])
    if not found or not results[0].is_data:
        return list(results)
    return [
        value._replace(outputs=tuple(dict.fromkeys(_moved(equation, i, found))))
        for i, value in enumerate(results)
    ]


def _outputs(equation: Equation, operands: Sequence[Value]) -> Iterator[tuple[int, Piece]]:
    """The pieces that may stand for outputs, by operand.

    Where data meets other data, as in the sum of a residual stream, they are nobody's own.
    """
    is_product = equation.name in PRODUCTS
    if not is_product:
        known = equation.name in ELEMENTWISE or equation.name in MOVES
        if not known or sum(value.is_data for value in operands) > 1:
            return
    for i, value in enumerate(operands):
        outputs = () if is_product else value.outputs
        for piece in value.pieces if value.is_pure else outputs:
            yield i, Piece(piece.array, piece.axes)


def _moved(equation: Equation, output: int, found: Sequence[tuple[int, Piece]]) -> Iterator[Piece]:
    """Those that run along an axis that grows, behind the equation."""
    base, probe = (one.outvars[output].aval.shape for one in equation)
    grows = [a != b for a, b in zip(base, probe, strict=True)]
    for position, piece in found:
        after = behind(equation, position, piece, output)
        if any(axes and grown for axes, grown in zip(after.axes, grows, strict=True)):
            yield after


def _write_cuts(record: Record, equation: Equation, pieces: Sequence[Piece]) -> None:
    base, probe = map(parameters.cuts, equation)
    if not pieces or not base or not probe or [a for a, _ in base] != [a for a, _ in probe]:
        return
    for (axis, parts), (_, others) in zip(base, probe, strict=True):
        wholes = [shape[axis] for shape in equation.shapes(0)]
        for piece in pieces:
            if len(piece.axes[axis]) == 1:
                [own] = piece.axes[axis]
                for part, other in zip(parts, others, strict=True):
                    cut = (wholes[0], *part), (wholes[1], *other)
                    record.cuts[Cut(piece.array, own, *cut, equation.place)] = None
