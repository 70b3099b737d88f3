"""What equations make of values, one kind after the other.

Each equation is there twice, of the program at the base and at the probe width, whose shapes tell
which axes grow.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend.core import Literal

from .._jaxprs import ELEMENTWISE, axes_behind, parameters
from ._place import place_of
from ._record import Record, used
from ._value import DATA, NUMBER, SIZED, Piece, Use, Value, bits

Shape = Sequence[int]


class Equation(NamedTuple):
    """The same equation at both widths."""

    base: Any
    probe: Any

    @property
    def name(self) -> str:
        """What JAX calls the operation."""
        return self.base.primitive.name

    @property
    def place(self) -> str:
        """The line that it comes from."""
        return place_of(self.base)

    def shapes(self, position: int) -> tuple[Shape, Shape]:
        """The shapes of an operand at both widths."""
        return self.base.invars[position].aval.shape, self.probe.invars[position].aval.shape

    def grows(self, position: int, axes: Sequence[int]) -> bool:
        """Whether one of these axes of an operand grows."""
        base, probe = self.shapes(position)
        return any(base[axis] != probe[axis] for axis in axes)

    @property
    def is_logical(self) -> bool:
        """Whether truth values come out."""
        return self.base.outvars[0].aval.dtype == bool

    @property
    def is_linear(self) -> bool:
        """Whether what comes out is a sum of the operands' entries, or a product of them."""
        return self.name in _LINEAR or self.name in _PRODUCTS

    @property
    def fills_a_batch(self) -> bool:
        """Whether it makes several numbers, as many at every width: a batch for an example."""
        base, probe = (one.outvars[0].aval.shape for one in self[:2])
        return base == probe and math.prod(base) > 1

    @property
    def is_derived(self) -> bool:
        """Whether a derivative may pass through."""
        is_inexact = jnp.issubdtype(self.base.outvars[0].aval.dtype, jnp.inexact)
        return is_inexact and self.name not in _FLAT


_PRODUCTS = frozenset({"dot_general", "conv_general_dilated", "ragged_dot_general"})
_FLAT = frozenset({"stop_gradient", "sign", "round", "floor", "ceil", "nextafter"})
_LINEAR = frozenset(
    {
        *("neg", "convert_element_type", "copy", "copy_p", "add", "add_any", "sub", "mul", "div"),
        *("transpose", "squeeze", "broadcast_in_dim", "rev", "reshape", "slice", "split", "pad"),
        *("concatenate", "stack", "unstack", "tile", "dynamic_slice", "gather", "reduce_precision"),
        *("real", "name", "sharding_constraint", "reshard", "mesh_cast", "pvary", "pcast"),
        *("expand_dims", "stop_gradient", "reduce_sum", "select_n"),
    }
)
_MOVES = frozenset(
    {
        *("transpose", "squeeze", "broadcast_in_dim", "rev", "reshape", "tile", "slice", "split"),
        *("unstack", "expand_dims", "pad", "concatenate", "stack", "dynamic_update_slice"),
    }
)
_CUTS = frozenset({"slice", "split", "unstack"})
_REDUCTIONS = frozenset(
    {
        *("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"),
        *("argmax", "argmin", "cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"),
    }
)


def values_of(record: Record, equation: Equation, operands: list[Value]) -> list[Value]:
    """The values of the results of an equation that holds no program."""
    if operands and not all(value.is_number for value in operands):
        before = len(record.uses)
        found = _with_sites(record, equation, before, _values_of(record, equation, operands))
        return _with_numbers(record, equation, operands, found)
    name = equation.name
    is_number = bool(operands) and (name in ELEMENTWISE or name in _MOVES)
    made = operands[0] if is_number and name in _MOVES else NUMBER if is_number else DATA
    if is_number and any(value.sized for value in operands) and not equation.is_logical:
        made = SIZED
    if name == "broadcast_in_dim" and equation.fills_a_batch:
        made = DATA
    return [made] * len(equation.base.outvars)


def _values_of(record: Record, equation: Equation, operands: list[Value]) -> list[Value]:
    name = equation.name
    if name == "dot_general":
        found = _product(record, equation, operands)
    elif name in ("conv_general_dilated", "ragged_dot_general"):
        found = _kernel(record, equation, operands)
    elif name in ("gather", "dynamic_slice"):
        found = _selection(record, equation, operands)
    elif name in _REDUCTIONS:
        found = _reduction(record, equation, operands)
    elif name in ELEMENTWISE or name in _MOVES:
        return _entries(record, equation, operands)
    else:
        found = _unknown(record, equation, operands)
    return [found] * len(equation.base.outvars)


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
    elif len(operands) == 1 and (equation.name in ELEMENTWISE or equation.name in _MOVES):
        averaged = operands[0].averaged
    return [result._replace(sized=sized, averaged=averaged) for result in results]


def together(equation: Equation, operands: Sequence[Value]) -> Value:
    """What is known of a result whose operands all have a part in it: no pieces."""
    touched = trained = direct = past = sites = 0
    for value in operands:
        touched |= value.touched
        trained |= value.trained
        sites |= value.sites
        direct |= value.direct
        past |= value.past
    is_data = any(value.is_data for value in operands)
    if not equation.is_derived:
        trained = sites = 0
    lost = next((value.lost for value in operands if value.lost), None)
    # What goes through tanh or a softmax is of order one again.
    sized = bool(touched) and equation.is_linear and any(value.sized for value in operands)
    return Value((), is_data, touched, trained, direct, past, 0, 0, lost, sized, sites=sites)


def behind(equation: Equation, position: int, piece: Piece, output: int = 0) -> Piece:
    """A piece behind an equation: where its axes run then."""
    base, probe = equation.shapes(position)
    ends = equation.base.outvars[output].aval.shape
    if equation.name == "reshape":
        axes = _reshaped(piece.axes, base, probe, ends, equation.probe.outvars[output].aval.shape)
    else:
        found = axes_behind(equation.base, position, piece.axes, ends)
        axes = tuple(axis or frozenset() for axis in found)
    return piece._replace(axes=axes, linear=piece.linear and equation.name in _LINEAR)


def _reshaped(axes: Any, base: Shape, probe: Shape, ends: Shape, probe_ends: Shape) -> Any:
    """Axes are merged and split within groups of equal size, of which there are as many as can be.

    What doesn't grow behind a reshape runs along what doesn't grow in front of it.
    """
    found: list[frozenset[int]] = [frozenset()] * len(ends)
    i = j = 0
    while i < len(base) and j < len(ends):
        before, after = [i], [j]
        i, j = i + 1, j + 1
        while math.prod(base[k] for k in before) != math.prod(ends[k] for k in after):
            if math.prod(base[k] for k in before) < math.prod(ends[k] for k in after):
                if i == len(base):
                    return tuple(found)
                before.append(i)
                i += 1
            else:
                if j == len(ends):
                    return tuple(found)
                after.append(j)
                j += 1
        every = frozenset[int]().union(*(axes[k] for k in before))
        fixed = frozenset[int]().union(*(axes[k] for k in before if base[k] == probe[k]))
        moved = any(base[k] != probe[k] for k in before)
        for k in after:
            grows = ends[k] != probe_ends[k]
            found[k] = frozenset() if ends[k] == 1 else every if grows or not moved else fixed
    return tuple(found)


def _scales(operands: Sequence[Value]) -> int:
    """The arrays in which a product is homogeneous: those of one factor that no other touches."""
    if any(value.scales == -1 for value in operands):
        return -1
    ordered = sorted(range(len(operands)), key=lambda i: not operands[i].is_pure)
    for i in ordered:
        others = (value.touched for k, value in enumerate(operands) if k != i)
        if operands[i].scales and not any(operands[i].scales & other for other in others):
            return operands[i].scales
    return 0


def _product(record: Record, equation: Equation, operands: list[Value]) -> Value:
    product = parameters.product(equation.base)
    if product is None:
        return _unknown(record, equation, operands)
    return _summed(record, equation, operands, product.summed, product.batch)


def _kernel(record: Record, equation: Equation, operands: list[Value]) -> Value:
    """A convolution, or a product of groups of rows with a matrix each."""
    if equation.name == "conv_general_dilated":
        kernel = parameters.convolution(equation.base)
        if kernel is None:
            return _unknown(record, equation, operands)
        numbers = equation.base.params["dimension_numbers"]
        left = (int(numbers.lhs_spec[1]),)
        return _summed(record, equation, operands, (left, kernel.summed), ((), ()))
    ragged = parameters.ragged(equation.base)
    if ragged is None:
        return _unknown(record, equation, operands)
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
            scales = other.scales & ~found_bits(piece) if other.scales > 0 else 0
            record.add(use._replace(scales=scales))
            if equation.grows(i, [a for a in summed[i] if piece.axes[a]]) and use.kind == "sum":
                over |= bits([piece.array])
    if all(value.is_data for value in operands[:2]):
        _meet(record, operands[:2])
        if grows:
            record.weights |= operands[0].direct | operands[1].direct
    pure = [value for value in operands[:2] if value.is_pure]
    own = bits(piece.array for value in pure for piece in value.pieces)
    scales = _scales(operands[:2])
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


def _meet(record: Record, values: Sequence[Value]) -> None:
    """Writes down of which arrays rows that were looked up are multiplied with data."""
    for value, other in (values, reversed(values)):
        if other.is_data and other.touched:
            record.chosen |= bits(piece.array for piece in value.pieces if piece.looked)


def found_bits(piece: Piece) -> int:
    """The piece's array as a set."""
    return bits([piece.array])


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


def _selection(record: Record, equation: Equation, operands: list[Value]) -> Value:
    """Rows by their numbers, or a part of an array."""
    value, indices = operands[0], operands[1:]
    found = together(equation, operands)
    gather = parameters.gather(equation.base)
    for index in indices:
        record.commit(index)
    if gather is None:
        return _unknown(record, equation, operands)
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
        return _unknown(record, equation, operands)
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


def _entries(record: Record, equation: Equation, operands: list[Value]) -> list[Value]:
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
    if equation.name in _MOVES and len(operands) == 1:
        scales = operands[0].scales
    else:
        scales = _entry_scales(equation.name, operands)
    return [
        found._replace(
            pieces=tuple(
                behind(equation, i, piece, output)
                for i, piece in _with_gains(equation, operands)
                if not (piece.joined and equation.name in _CUTS)
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


def _entry_scales(name: str, operands: Sequence[Value]) -> int:
    if name == "mul":
        return _scales(operands)
    if name == "div":
        return 0 if operands[0].scales & operands[1].touched else operands[0].scales
    if name in ("add", "add_any", "sub", "concatenate", "stack", "pad"):
        return _added(operands)
    if name == "select_n":
        return 0 if operands[0].touched else _added(operands[1:])
    if name in _LINEAR:
        return operands[0].scales
    return 0


def _added(operands: Sequence[Value]) -> int:
    """A sum of what is homogeneous is so, in the arrays of all together."""
    scales = [value.scales for value in operands]
    if not all(scales):
        return 0
    found = 0
    for one in scales:
        found |= one if one > 0 else 0
    if not found:
        return -1
    # A term that depends on an array of another's, but isn't homogeneous in it, spoils it.
    spoilt = any(found & ~one & value.touched for one, value in zip(scales, operands, strict=True))
    return 0 if spoilt and any(one > 0 for one in scales) else found


_KINDS = {"mul": "scale", "div": "scale", "add": "add", "add_any": "add", "sub": "add"}


def _met(record: Record, equation: Equation, operands: list[Value], found: Value) -> list[Value]:
    """Entries of which some are data."""
    name, place = equation.name, None
    if name == "mul":
        _meet(record, operands)
    own, pieces = 0, []
    keeps = name in ("mul", "div") or (name in _LINEAR and name not in ("add", "add_any", "sub"))
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
        if len(operands) == 1 and name in _MOVES
        else _entry_scales(name, operands),
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
    return name in _LINEAR and not any(other.is_data or other.touched for other in others)


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


def _unknown(record: Record, equation: Equation, operands: list[Value]) -> Value:
    """An operation that isn't known: arrays of the model are lost in it."""
    found = together(equation, operands)
    for value in operands:
        record.commit(value)
        if found.is_data and value.is_pure:
            record.lose(value._replace(pieces=()), equation.place, equation.name)
    scales = found.lost or (None if found.is_data else equation.name)
    return found._replace(lost=scales)
