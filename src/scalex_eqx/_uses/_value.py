"""What is known of a value of a traced program: which arrays of the model it is made of."""

from typing import Any, NamedTuple

Runs = tuple[frozenset[int], ...]
"""For each axis of a value the axes of an array of the model that it runs along."""

OTHER = 1
"""The bit of sums over the width in which no array of the model is summed over."""


class Use(NamedTuple):
    """One thing that a program does with an array of the model.

    **Arguments:**

    - `kind`: `"sum"`, a product in which axes of the array are summed over; `"lookup"`, of rows by
        their numbers; `"scale"` and `"add"`, entry by entry; `"entry"`, any other operation of
        that kind; `"normalise"`, a division by its own size; `"lost"`, what isn't followed.
    - `array`: its number.
    - `axes`: those of its axes that are summed over, or in which rows are looked up.
    - `members`: those of its axes that number members of a stack here.
    - `place`: the line of the program.
    - `operation`: what JAX calls it.
    - `scales`: the arrays in all of which together what meets it is homogeneous, as bits.
    - `folded`: whether it was summed over by itself, or in a product with arrays of the model,
        before. Then it can't be told which of them is a matrix and which is what that is applied
        to.
    - `site`: its bit among all uses, 0 where it counts in any case.
    """

    kind: str
    array: int
    axes: frozenset[int] = frozenset()
    members: frozenset[int] = frozenset()
    place: str = ""
    operation: str = ""
    scales: int = 0
    folded: bool = False
    site: int = 0


class Cut(NamedTuple):
    """Outputs of an array that a program takes apart from the others.

    **Arguments:**

    - `array`: its number.
    - `axis`: of the array.
    - `base`, `probe`: how many outputs there were, and the first and the last but one of these, at
        the two widths.
    - `place`: the line of the program.
    """

    array: int
    axis: int
    base: tuple[int, int, int]
    probe: tuple[int, int, int]
    place: str


class Piece(NamedTuple):
    """An array of the model in a value, or in a product of it with others.

    **Arguments:**

    - `array`: its number.
    - `axes`: for each axis of the value the array's axes that it runs along, none if unknown.
    - `own`: all axes of the array that are longer than one.
    - `members`: the array's axes along which one member was taken.
    - `looked`: those in which rows were looked up.
    - `summed`: those that were summed over by themselves.
    - `inner`: those that were summed over in products with other arrays of the model.
    - `gain`: whether it has multiplied entries of an array of more axes.
    - `linear`: whether the value is linear in the array.
    - `free`: whether what it was multiplied with depends on no array of the model.
    - `joined`: whether it was joined with other arrays along one of its axes.
    - `pending`: the use that it is, unless the sum turns out to be a mean.
    """

    array: int
    axes: Runs
    own: frozenset[int] = frozenset()
    members: frozenset[int] = frozenset()
    looked: frozenset[int] = frozenset()
    summed: frozenset[int] = frozenset()
    inner: frozenset[int] = frozenset()
    gain: bool = False
    linear: bool = True
    free: bool = True
    joined: bool = False
    pending: Use | None = None

    @property
    def unseen(self) -> frozenset[int]:
        """The array's axes that run along no axis of the value, and aren't accounted for."""
        seen = frozenset[int]().union(*self.axes)
        return self.own - seen - self.members - self.looked - self.summed - self.inner


class Value(NamedTuple):
    """What is known of a value. Sets of arrays are bits of an integer; bit 0 is `OTHER`.

    **Arguments:**

    - `pieces`: the arrays of the model that it is made of, entry for entry; of data, those that it
        is a product with.
    - `is_data`: whether it depends on more than arrays of the model and single numbers.
    - `touched`: all arrays that it depends on.
    - `trained`: those that a derivative reaches.
    - `direct`: those that were used on the way to it since the last sum over the width.
    - `past`: those that were used before that.
    - `scales`: arrays in which together it is homogeneous of degree one.
    - `reduced`: arrays of which it is a sum or the like over axes that grow.
    - `lost`: the operation in which arrays were lost sight of.
    - `sized`: whether it is a number that follows the width, or was multiplied by one since the
        last sum over the width.
    - `sites`: the uses that a derivative reaches, as bits.
    - `averaged`: whether it is a sum over the width, which such a number makes a mean.
    - `outputs`: of data, the arrays whose outputs it is, one for one.
    """

    pieces: tuple[Piece, ...] = ()
    is_data: bool = False
    touched: int = 0
    trained: int = 0
    direct: int = 0
    past: int = 0
    scales: int = 0
    reduced: int = 0
    lost: str | None = None
    sized: bool = False
    averaged: bool = False
    sites: int = 0
    outputs: tuple[Piece, ...] = ()

    @property
    def is_number(self) -> bool:
        """Whether it depends on no array of the model and no data."""
        return not self.is_data and not self.touched

    @property
    def is_pure(self) -> bool:
        """Whether it is made of arrays of the model alone."""
        return bool(self.touched) and not self.is_data


NUMBER = Value()
"""A single number, or many equal ones."""

ZERO = Value(scales=-1)
SIZED = Value(sized=True)
DATA = Value(is_data=True)


def bits(arrays: Any) -> int:
    """A set of arrays, by their numbers."""
    found = 0
    for array in arrays:
        found |= 2 << array
    return found


def array_numbers(found: int) -> list[int]:
    """The numbers of the arrays in a set."""
    found >>= 1
    numbers = []
    while found:
        lowest = found & -found
        numbers.append(lowest.bit_length() - 1)
        found ^= lowest
    return numbers
