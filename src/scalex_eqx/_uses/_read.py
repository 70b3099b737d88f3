"""What the uses of an array say of its law: its axes, its role, and why."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from ..theory import Role
from ._trace import Followed, Path
from ._value import OTHER, Use, array_numbers

Shape = tuple[int, ...]
Layout = tuple[str, ...]


class Parts(NamedTuple):
    """Outputs of an array that a program takes apart, of which some grow and others don't.

    **Arguments:**

    - `axis`: of the array.
    - `base`, `probe`: how many outputs each part has at the two widths.
    - `place`: the line of the program.
    """

    axis: int
    base: tuple[int, ...]
    probe: tuple[int, ...]
    place: str


class Reading(NamedTuple):
    """What is read from the uses of an array.

    **Arguments:**

    - `layout`: the names of its last axes, `None` if the uses don't tell.
    - `summed`: those of its growing axes that are summed over; `None` with the layout.
    - `role`: where the shapes alone would say another or leave it open.
    - `why`: in one phrase, with the place.
    - `is_trained`: whether a derivative reaches it.
    - `is_tied`: whether it is looked up, or summed over, as an embedding, and is the readout too.
    - `carriers`: the arrays that a tied readout's factor may be put on; empty if there are none.
    - `is_lost`: whether it goes where it isn't followed.
    - `wrong`: what makes a law impossible.
    - `parts`: what its outputs are cut into, if they don't all grow or all stay.
    """

    layout: Layout | None = None
    summed: frozenset[int] | None = None
    role: Role | None = None
    why: str = ""
    is_trained: bool = True
    is_tied: bool = False
    carriers: tuple[Path, ...] = ()
    is_lost: bool = False
    wrong: str | None = None
    parts: Parts | None = None


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads the uses of one array after the other."""

    followed: Followed

    def uses(self, path: Path) -> tuple[Use, ...]:
        """Everything that is done with the array at `path`."""
        number = self.followed.numbers.get(path)
        return () if number is None else self.followed.uses[number]

    def phrase(self, use: Use, growing: frozenset[int]) -> str:
        """A use of an array in words, with its place; `growing` are the array's axes that do."""
        return (
            f"divided by its own size{_at(use)}" if use.kind == "normalise" else _why(use, growing)
        )

    def is_inside(self, path: Path) -> bool:
        """Whether all that comes of the array passes a sum over the width before the result."""
        own, objective = 2 << self.followed.numbers[path], self.followed.objective
        return bool(objective.past & own) and not objective.direct & own

    def is_final(self, path: Path) -> bool:
        """Whether some of it reaches the result, with its derivative, without such a sum."""
        own, objective = 2 << self.followed.numbers[path], self.followed.objective
        return bool(objective.direct & objective.trained & own)

    def is_among(self, path: Path, arrays: int) -> bool:
        """Whether the array at `path` is one of a set that is written as bits."""
        return bool(arrays & (2 << self.followed.numbers[path]))

    def read(self, path: Path, base: Shape, probe: Shape) -> Reading | None:
        """What is read of the array at `path`; `None` if it isn't there.

        **Arguments:**

        - `path`: the array's.
        - `base`, `probe`: its shapes at the two widths.
        """
        number = self.followed.numbers.get(path)
        if number is None or len(base) != len(probe):
            return None
        uses = self.followed.uses[number]
        if not uses:
            return Reading(why="not used by use", is_trained=True)
        growing = frozenset(
            i for i, sizes in enumerate(zip(base, probe, strict=True)) if sizes[0] != sizes[1]
        )
        is_trained = bool(self.followed.objective.trained & (2 << number))
        found = self._of_uses(number, uses, len(base), growing)
        found = found._replace(parts=self._parts(number, base, probe))
        if is_trained or found.wrong:
            return found
        return found._replace(is_trained=False, why=f"no derivative reaches it; {found.why}")

    def _parts(self, number: int, base: Shape, probe: Shape) -> Parts | None:
        """What the outputs of an array are cut into, if some of the parts grow and others stay."""
        for axis, (size, other) in enumerate(zip(base, probe, strict=True)):
            cuts = [
                cut
                for cut in self.followed.record.cuts
                if (cut.array, cut.axis, cut.base[0], cut.probe[0]) == (number, axis, size, other)
            ]
            points = {(0, 0), (size, other)}
            for cut in cuts:
                points |= set(zip(cut.base[1:], cut.probe[1:], strict=True))
            pairs = list(itertools.pairwise(sorted(points)))
            parts, others = (tuple(b[i] - a[i] for a, b in pairs) for i in (0, 1))
            stay = [a == b for a, b in zip(parts, others, strict=True)]
            if cuts and min(*parts, *others) > 0 and any(stay) and not all(stay):
                return Parts(axis, parts, others, cuts[0].place)
        return None

    def _of_uses(
        self, number: int, uses: Sequence[Use], axes: int, growing: frozenset[int]
    ) -> Reading:
        if normalised := [use for use in uses if use.kind == "normalise"]:
            return Reading(wrong=f"divided by its own size{_at(normalised[0])}")
        matrix = [use for use in uses if use.kind in ("sum", "lookup")]
        lost = [use for use in uses if use.kind == "lost"]
        if not matrix and lost:
            return Reading(why=f"not followed in {lost[0].operation}{_at(lost[0])}", is_lost=True)
        if not matrix:
            members = frozenset[int]().union(*(use.members for use in uses))
            layout = _layout(axes, frozenset(), members - growing)
            return Reading(layout, frozenset(), None, _why(uses[0], growing))
        by_pattern: dict[tuple[bool, bool], Use] = {}
        for use in matrix:
            pattern = bool(use.axes & growing), bool(growing - use.axes)
            by_pattern.setdefault(pattern, use)
        if len(by_pattern) == 1:
            return self._of_one(number, next(iter(by_pattern.values())), axes, growing)
        if by_pattern.keys() == {(False, True), (True, False)}:
            return self._tied(number, by_pattern, matrix, axes, growing)
        first, second, *_ = by_pattern.values()
        return Reading(
            wrong=f"used in two ways that have different laws: {_why(first, growing)}, and "
            f"{_why(second, growing)}"
        )

    def _of_one(self, number: int, use: Use, axes: int, growing: frozenset[int]) -> Reading:
        layout = _layout(axes, use.axes, use.members - growing)
        summed = use.axes & growing
        why = _why(use, growing)
        if not summed or growing - use.axes:
            return Reading(layout, summed, None, why)
        if self._is_readout(number):
            return Reading(layout, summed, Role.readout, f"{why}, with no such sum behind it")
        return Reading(layout, summed, Role.hidden, f"{why}, with features behind it")

    def _tied(
        self,
        number: int,
        by_pattern: dict[tuple[bool, bool], Use],
        matrix: Sequence[Use],
        axes: int,
        growing: frozenset[int],
    ) -> Reading:
        first, second = by_pattern[False, True], by_pattern[True, False]
        why = f"{_why(first, growing)}, and {_why(second, growing)}: a tied readout"
        sums = [use for use in matrix if use.axes & growing]
        return Reading(
            _layout(axes, first.axes, first.members - growing),
            frozenset(),
            Role.embedding,
            why,
            is_tied=True,
            carriers=self._carriers(number, sums),
        )

    def _carriers(self, number: int, sums: Sequence[Use]) -> tuple[Path, ...]:
        """The arrays in which what a tied readout meets is homogeneous, if they do nothing else."""
        [scales, *others] = {use.scales for use in sums}
        found = array_numbers(scales) if scales > 0 and not others else []
        own = 2 << number
        paths = {i: path for path, i in self.followed.numbers.items()}
        alone = all(
            self.followed.reached(2 << i) == own and not self.followed.objective.direct & (2 << i)
            for i in found
        )
        return tuple(paths[i] for i in found) if alone else ()

    def _is_readout(self, number: int) -> bool:
        """Whether what comes out reaches the result with no sum over the width behind it.

        What a loop puts in again is left aside: sums from which the way leads back to this one.
        """
        own, objective = 2 << number, self.followed.objective
        if not objective.direct & own:
            # Of what reaches no result nothing can be said but that nothing is behind it.
            return not objective.past & own
        if not objective.past & own:
            return True
        behind = self._behind(own)
        return all(self._behind(end) & own for end in _each_bit(behind & ~own & ~OTHER))

    def _behind(self, start: int) -> int:
        """All sums over the width that what comes out of one goes on to."""
        found, left = 0, start
        while left:
            lowest = left & -left
            left ^= lowest
            new = self.followed.reached(lowest) & ~found
            found |= new
            left |= new
        return found


def _each_bit(found: int) -> list[int]:
    return [2 << i for i in array_numbers(found)]


def _layout(axes: int, summed: frozenset[int], members: frozenset[int]) -> Layout:
    """The names of all axes but those in front that number members."""
    front = 0
    while front < axes - 1 and front in members and front not in summed:
        front += 1
    return tuple("in" if axis in summed else "out" for axis in range(front, axes))


_WORDS = {
    "lookup": "rows are looked up",
    "scale": "multiplies entry by entry",
    "add": "is added entry by entry",
}


def _why(use: Use, growing: frozenset[int]) -> str:
    if use.kind == "sum":
        summed = sorted(use.axes & growing or use.axes)
        names = ", ".join(map(str, summed))
        return f"summed over axis {names}{_at(use)}"
    words = _WORDS.get(use.kind, f"used entry by entry in {use.operation}")
    return f"{words}{_at(use)}"


def _at(use: Use) -> str:
    return f" ({use.place})" if use.place else ""
