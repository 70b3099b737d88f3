"""What is written down while a program is followed."""

import dataclasses
from typing import Any

from ._value import OTHER, Cut, Piece, Use, Value, array_numbers


@dataclasses.dataclass
class Record:
    """The uses of a model's arrays, and the order in which sums over the width follow each other.

    **Arguments:**

    - `uses`: in the order in which the program reaches them.
    - `into`: for each sum over the width, as the bit of the array that is summed over or `OTHER`,
        the arrays that were used on the way to it since the sums before.
    - `sized`: the arrays that were multiplied by a number that follows the width, before or behind
        what was done with them.
    - `weights`: those that may have been made into weights which are summed over later: what they
        were used in goes into a product of data with data.
    - `chosen`: those of which looked up rows or columns were multiplied with data.
    - `sites`: the bit of each use, by its equation and array.
    - `cuts`: where outputs of arrays are taken apart.
    """

    uses: list[Use] = dataclasses.field(default_factory=list)
    into: dict[int, int] = dataclasses.field(default_factory=dict)
    sized: int = 0
    weights: int = 0
    chosen: int = 0
    sites: dict[tuple[int, int], int] = dataclasses.field(default_factory=dict)
    cuts: dict[Cut, None] = dataclasses.field(default_factory=dict)

    def add(self, use: Use) -> None:
        """Writes down a use."""
        self.uses.append(use)

    def site(self, equation: Any, array: int) -> int:
        """The bit of an array's use in an equation, which is the same in all turns of a loop."""
        # Programs outlive the record, so that an equation's identity is its own.
        return self.sites.setdefault((id(equation), array), 1 << len(self.sites))

    def settle(self, value: Value) -> Value:
        """Writes down what a value's pieces have been waiting for, and drops data's pieces."""
        self.commit(value)
        return value._replace(pieces=(), outputs=()) if value.is_data else value

    def commit(self, value: Value) -> None:
        """Writes down what a value's pieces have been waiting for."""
        self.uses += [piece.pending for piece in value.pieces if piece.pending is not None]

    def lose(self, value: Value, place: str, operation: str) -> None:
        """Writes down that the arrays of a value are lost sight of."""
        seen = {piece.array for piece in value.pieces}
        for array in array_numbers(value.touched):
            if array not in seen:
                self.add(Use("lost", array, place=place, operation=value.lost or operation))

    def sum(self, direct: int, summed: int) -> int:
        """A sum over the width, in which the arrays `summed` are summed over; its bits."""
        ends = summed or OTHER
        left = ends
        while left:
            lowest = left & -left
            self.into[lowest] = self.into.get(lowest, 0) | direct
            left ^= lowest
        return ends

    def mark(self) -> tuple[int, dict[int, int]]:
        """Where the record stands, to go back to."""
        return len(self.uses), dict(self.into)

    def back(self, mark: tuple[int, dict[int, int]]) -> None:
        """Forgets what was written down since."""
        del self.uses[mark[0] :]
        self.into = dict(mark[1])


def used(piece: Piece, kind: str, place: str, operation: str, **more: object) -> Use:
    """A use of a piece, unless a sum by itself has made it one."""
    axes = more.pop("axes", frozenset())
    own = Use(kind, piece.array, axes, piece.members, place, operation)  # type: ignore[arg-type]
    alone = piece.summed | piece.inner
    own = own._replace(folded=bool(alone))
    # In B A x the axis in common is summed over in B, and is what A puts out.
    if kind != "sum" and alone:
        own = own._replace(kind="sum", axes=alone)
    return own._replace(**more) if more else own  # type: ignore[arg-type]
