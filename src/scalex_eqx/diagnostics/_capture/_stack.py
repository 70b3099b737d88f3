"""Where the members of a stack are, in the arrays of one use of it."""

import dataclasses

from ._operation import Operation, SharedAxes
from ._origin import Origin


@dataclasses.dataclass(frozen=True)
class Stack:
    """The axes that number members, of the arrays of a use.

    **Arguments:**

    - `along`: triples of axes, of weight, input and output, which number the same members.
    - `members`: further axes of the weight alone: what the input and the output have of each of
        their members is told by `told`.
    - `told`: `"apart"` if each place of the axes `shared` by weight and output belongs to one
        member; `"groups"` if each row of input and output does, by the sizes of groups; `None` if
        it can't be told, and stands for all members together.
    """

    along: tuple[SharedAxes, ...] = ()
    members: tuple[int, ...] = ()
    told: str | None = None


def stack_of(
    origin: Origin, operation: Operation, scans: tuple[bool, ...], stack_axes: tuple[int, ...]
) -> Stack | str:
    """The stack at a use, or why its members can't be told.

    **Arguments:**

    - `origin`, `operation`: of the use.
    - `scans`: for each scan that it stands in whether the weight differs from turn to turn.
    - `stack_axes`: of the weight.
    """
    own = [loop for loop, varies in enumerate(scans) if varies]
    turns = [(own.index(loop), loop, loop) for loop, _ in origin.turns if loop in own]
    shown = origin.stacked if origin.in_pieces else origin.axes
    places = {axis: place for place, axis in enumerate(shown) if axis in stack_axes}
    if [*(axis for _, axis in origin.turns), *sorted(places)] != list(stack_axes):
        return "has its members mixed before it meets the inputs"
    shift = sum(scans)
    shared = {} if origin.in_pieces else {w: (x, z) for w, x, z in operation.shared}
    along: list[SharedAxes] = [*turns]
    members: list[int] = []
    for axis in sorted(places):
        place = places[axis]
        if place in shared and not members:
            x, z = shared[place]
            x = None if x is None else x + len(scans)
            along.append((place + shift, x, z + len(scans)))
        else:
            members.append(place)
    return Stack(tuple(along), tuple(members), _told(origin, operation, members))


def _told(origin: Origin, operation: Operation, members: list[int]) -> str | None:
    if operation.groups is not None:
        alone = members == [operation.groups] and not origin.in_pieces
        return "groups" if alone else None
    summed = [axis for axis in operation.summed if operation.position >= 0]
    own = all(origin.axes[axis] not in (None, *origin.stack) for axis in summed)
    moved = origin.in_pieces and all(step.moves for step in origin.steps)
    return "apart" if moved and operation.shared and own else None
