"""What the values of a traced program are made from."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..._jaxprs import ELEMENTWISE, Axes, axes_behind, parameters, whole
from ._step import Step, step_of


class Beside(NamedTuple):
    """A weight that stands beside others in one value: its own origin, and where it is."""

    origin: "Origin"
    start: int
    size: int


class Origin(NamedTuple):
    """What a value is made from: from the inputs, or from weights and constants alone.

    A weight that is a stack of several is followed as one as long as its members stand side by
    side, along axes of their own. What is done to it from there on is kept as `steps`: a slice of
    some members, or a choice among them by the inputs. It is still the weight, in pieces.

    - `is_data`: whether it depends on the inputs other than by such a choice.
    - `weights`: the paths of the weights that it is made from; of no interest once it is data.
    - `axes`: for each of its axes the axis of the weight that it runs along, `None` if unknown.
    - `loops`: the scans, numbered from the outermost, in whose turns it takes different values;
        of a weight in pieces those of the stack.
    - `stack`: the axes of the weight that number its members.
    - `is_matrix`: whether each member has a fan-in.
    - `turns`: the scans whose turns number members, and the axes of the weight that they run along.
    - `steps`: what was done to the stack since its members stood side by side.
    - `stacked`: the `axes` that it had then.
    - `lost`: why it can't be followed any further, if it can't.
    - `beside`: of several weights that stand behind each other along an axis, each.
    - `along`: that axis.
    """

    is_data: bool = False
    weights: frozenset[str] = frozenset()
    axes: Axes = ()
    loops: frozenset[int] = frozenset()
    stack: frozenset[int] = frozenset()
    is_matrix: bool = False
    turns: tuple[tuple[int, int], ...] = ()
    steps: tuple[Step, ...] = ()
    stacked: Axes = ()
    lost: str | None = None
    beside: tuple[Beside, ...] = ()
    along: int = 0

    @property
    def in_pieces(self) -> bool:
        """Whether it is a weight, but no more the whole stack."""
        return bool(self.steps)


DATA = Origin(is_data=True)
CONSTANT = Origin()


def derived(equation: Any, origins: Sequence[Origin]) -> list[Origin]:
    """The origins of an equation's results, where none of its operands is data."""
    made_from = [i for i, origin in enumerate(origins) if origin.weights]
    if len(made_from) == 1:
        [i] = made_from
        loops = frozenset[int]().union(*(origin.loops for origin in origins))
        return [
            _from_one(equation, i, number, origins[i]._replace(loops=loops), origins[i].loops)
            for number in range(len(equation.outvars))
        ]
    if (beside := _beside(equation, origins)) is not None:
        return [beside]
    return [_from_many(equation, origins, out.aval.shape) for out in equation.outvars]


def chosen(equation: Any, position: int, origin: Origin) -> Origin:
    """A weight in pieces, as the equation makes it of a stack: by the inputs or otherwise."""
    return _stepped(equation, position, 0, origin, origin.loops)


def _from_one(
    equation: Any, position: int, number: int, origin: Origin, loops: frozenset[int]
) -> Origin:
    shape = equation.outvars[number].aval.shape
    if origin.beside:
        return _all_moved(equation, position, origin, shape)
    axes = axes_behind(equation, position, origin.axes, shape)
    members = origin.stack.intersection(origin.axes)
    if not origin.in_pieces and members <= whole(equation, position, origin.axes, axes, shape):
        return origin._replace(axes=axes)
    return _stepped(equation, position, number, origin, loops)


def _beside(equation: Any, origins: Sequence[Origin]) -> Origin | None:
    """Several weights in one value, as a `concatenate` of them and nothing else makes it."""
    weights = frozenset[str]().union(*(origin.weights for origin in origins))
    can_tell = all(
        len(origin.weights) == 1 and not (origin.lost or origin.in_pieces or origin.beside)
        for origin in origins
    )
    if equation.primitive.name != "concatenate" or not can_tell or len(weights) < len(origins):
        return None
    if (axis := parameters.joined_axis(equation)) is None:
        return None
    loops = frozenset[int]().union(*(origin.loops for origin in origins))
    sizes = [variable.aval.shape[axis] for variable in equation.invars]
    starts = itertools.accumulate(sizes, initial=0)
    each = [Beside(*one) for one in zip(origins, starts, sizes, strict=False)]
    unknown = (None,) * len(equation.outvars[0].aval.shape)
    return Origin(False, weights, unknown, loops, beside=tuple(each), along=axis)


def _all_moved(equation: Any, position: int, origin: Origin, shape: tuple[int, ...]) -> Origin:
    """Weights beside each other behind an operation that leaves all axes whole, in any order."""
    before = equation.invars[position].aval.shape
    places = axes_behind(equation, position, range(len(before)), shape)
    unknown = origin._replace(axes=(None,) * len(shape), beside=())
    if sorted(place for place in places if place is not None) != list(range(len(before))):
        return unknown
    if any(before[place] != size for place, size in zip(places, shape, strict=True)):
        return unknown
    moved = of_each(
        origin,
        lambda one: one._replace(axes=tuple(one.axes[i] for i in places), loops=origin.loops),
    )
    return unknown._replace(beside=moved.beside, along=places.index(origin.along))


def of_each(origin: Origin, f: Callable[[Origin], Origin]) -> Origin:
    """`f` of a value's origin, and of each of the weights that stand beside each other in it."""
    each = tuple(one._replace(origin=f(one.origin)) for one in origin.beside)
    return f(origin)._replace(beside=each)


def _stepped(
    equation: Any, position: int, number: int, origin: Origin, loops: frozenset[int]
) -> Origin:
    axes = axes_behind(equation, position, origin.axes, equation.outvars[number].aval.shape)
    step, lost = step_of(equation, position, number), origin.lost
    if step is None:
        name = equation.primitive.name
        return origin._replace(axes=axes, lost=lost or f"loses its members in {name}")
    stacked = origin.stacked if origin.in_pieces else origin.axes
    return origin._replace(
        axes=axes, loops=loops, steps=(*origin.steps, step), stacked=stacked, lost=lost
    )


def _from_many(equation: Any, origins: Sequence[Origin], shape: tuple[int, ...]) -> Origin:
    """From several weights, or several times from one."""
    parts = [origin for origin in origins if origin.weights]
    weights = frozenset[str]().union(*(origin.weights for origin in parts))
    loops = frozenset[int]().union(*(origin.loops for origin in origins))
    unknown = (None,) * len(shape)
    lost = next((origin.lost for origin in parts if origin.lost), None)
    if len(weights) != 1:
        return Origin(False, weights, unknown, loops, lost=lost)
    first = parts[0]
    axes = unknown
    if equation.primitive.name in ELEMENTWISE:
        # A norm of the weight, say, has fewer of its axes.
        full = [origin.axes for origin in parts if len(origin.axes) == len(shape)]
        together = [{one[i] for one in full} - {None} for i in range(len(shape))]
        axes = tuple(next(iter(found)) if len(found) == 1 else None for found in together)
    side_by_side = [origin for origin in parts if not origin.in_pieces]
    members = first.stack.intersection(axis for origin in side_by_side for axis in origin.axes)
    turns = next(iter(side_by_side), first).turns
    if first.stack and not (side_by_side and members <= set(axes)):
        lost = lost or "is put together from its pieces before it meets the inputs"
    return Origin(False, weights, axes, loops, first.stack, first.is_matrix, turns, lost=lost)


def joined(first: Origin, second: Origin) -> Origin:
    """What is the one or the other, from turn to turn of a scan."""
    if first.is_data or second.is_data:
        return DATA
    loops = first.loops | second.loops
    if (
        first.weights
        and second.weights
        and first._replace(loops=loops) != second._replace(loops=loops)
    ):
        return _either(first, second)
    return (first if first.weights else second)._replace(loops=loops)


def _either(first: Origin, second: Origin) -> Origin:
    same = first.axes == second.axes
    axes = first.axes if same else (None,) * len(second.axes)
    weights, loops = first.weights | second.weights, first.loops | second.loops
    lost = first.lost or second.lost
    if first.stack | second.stack and not same:
        lost = lost or "changes from turn to turn of a scan"
    return first._replace(
        weights=weights,
        axes=axes,
        loops=loops,
        stack=first.stack | second.stack,
        lost=lost,
        beside=(),
    )
