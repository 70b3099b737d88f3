"""What an array may be that the shapes alone don't tell, as layouts to choose from."""

import glob
import itertools
import json
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from .._pages import Section, see
from .._spec import WeightSpec
from ..theory import Role
from ._growth import Shape, growth

Layout = tuple[str, ...]
Shapes = tuple[Shape, Shape, Shape]

_LEGEND = (
    '"in" is an axis that is summed over, "out" one that is produced, and axes in front that have '
    "no name number stacked weights"
)


OR_USE = "; or pass use=, which is what the training does with a model, and it is read from there"


class Reading(NamedTuple):
    """One way to read an array's axes: its role, the layout, and in words what it is then."""

    role: Role
    layout: Layout
    what: str


def fan_axes(layout: Layout) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The fan-in and fan-out axes, counted from the end."""
    last = range(-len(layout), 0)
    named = list(zip(last, layout, strict=True))
    fan_in = tuple(axis for axis, name in named if name == "in")
    return fan_in, tuple(axis for axis, name in named if name == "out")


def growing_axes(base: Shape, other: Shape) -> list[int]:
    """The axes whose size differs, counted from the end."""
    axes = len(base)
    return [axis - axes for axis in range(axes) if base[axis] != other[axis]]


def _others(axes: int) -> Iterator[Reading]:
    """Every layout there is, in no order that means anything."""
    for length in range(axes, 0, -1):
        for layout in itertools.product(("out", "in"), repeat=length):
            for role in (Role.hidden, Role.embedding, Role.readout, Role.vector):
                yield Reading(role, layout, f"{role}")


def readings(axes: int, growing: list[int]) -> Iterator[Reading]:
    """The ways to read `axes` axes of which one or two grow, the most usual first."""
    if len(growing) == 1:
        yield from _of_one(axes, *growing)
    elif len(growing) == 2:
        yield from _of_two(axes, *growing)


def _of_one(axes: int, growing: int) -> Iterator[Reading]:
    if axes == 1:
        yield Reading(Role.vector, ("out",), "a bias or gain, added or multiplied entry by entry,")
        yield Reading(Role.hidden, ("in",), "summed over inside the model, as a score's weights,")
        yield Reading(Role.readout, ("in",), "summed over to a result of the model, a readout,")
        return
    before, behind = axes + growing, -growing - 1
    embedding = ("in",) * before + ("out",) + ("out" if before else "in",) * behind
    yield Reading(Role.embedding, embedding, "an embedding")
    fixed = ("in",) * (axes - 2) + ("out",)
    readout = (*fixed[:before], "in", *fixed[before:]) if behind else ("out",) * before + ("in",)
    yield Reading(Role.readout, readout, "a readout")
    if before:
        yield Reading(Role.vector, ("out",) * (behind + 1), "a stack of vectors")
    yield Reading(Role.vector, ("out",) * axes, "a vector, which is one bias or gain,")


def _of_two(axes: int, first: int, second: int) -> Iterator[Reading]:
    between, behind = second - first - 1, -second - 1
    rows = ("out",) * (between + 1) + ("in",) * (behind + 1)
    columns = ("in",) * (between + 1) + ("out",) * (behind + 1)
    front = axes + first
    stack = " and stacked along the axes in front" if front else ""
    yield Reading(Role.hidden, rows, f"hidden, applied as w @ x{stack},")
    yield Reading(Role.hidden, columns, f"hidden, applied as x @ w{stack},")
    if front:
        several = "hidden, with the axes in front"
        yield Reading(Role.hidden, ("out",) * front + rows, f"{several} produced too,")
        yield Reading(Role.hidden, ("in",) * front + columns, f"{several} summed over too,")


def ambiguous(
    path: str, shapes: Shapes, ratios: tuple[Fraction, Fraction], role: Role | None
) -> str:
    """The message that asks what the array at `path` is, and lists what would be accepted.

    **Arguments:** those of `inferred_layout`.
    """
    base, probe, _ = shapes
    growing = growing_axes(base, probe)

    def accepted(candidates: Iterator[Reading]) -> list[Reading]:
        fitting = (one for one in candidates if role in (None, one.role))
        return [one for one in fitting if _is_accepted(one, shapes, ratios)]

    found = accepted(readings(len(base), growing)) or accepted(_others(len(base)))[:3]
    if found:
        said = [f"{one.what} with {_entry(path, one, role)}" for one in found]
        remedy = f"it is {', or '.join(said)}" + (f", where {_LEGEND}" if len(base) > 1 else "")
    elif role is not None:
        remedy = f"as {role} it would have other shapes; correct or drop the entry in roles"
    else:
        remedy = (
            "no layout is accepted, since a weight has at most one growing axis that is summed "
            "over and one that is produced, each growing as the width does"
        )
    if role is None:
        remedy += f"; if it is not trained, frozen=[{_quoted(path)}] leaves it as it is{OR_USE}"
    reason = f"cannot be told from the growth of {', '.join(f'axis {x}' for x in growing)} alone"
    if len(base) == 1:
        reason = "is left open, since its entries differ, as those of a constant do not"
    return (
        f"shape {base} at the base width and {probe} at the probe width; its role {reason}: "
        f"{remedy}{see(Section.unknown_role)}"
    )


def _is_accepted(reading: Reading, shapes: Shapes, ratios: tuple[Fraction, Fraction]) -> bool:
    try:
        shown = growth(WeightSpec(*fan_axes(reading.layout)), shapes, *ratios)[0]
    except ValueError:
        return False
    return shown is (Role.readout if _is_inner(reading) else reading.role)


def _is_inner(reading: Reading) -> bool:
    """Whether it has the shape of a readout, so that the role must be said too."""
    return reading.role is Role.hidden and "out" not in reading.layout


def _entry(path: str, reading: Reading, role: Role | None) -> str:
    layout = reading.layout
    names = ", ".join(f'"{axis}"' for axis in layout)
    entry = f"layouts={{{_quoted(path)}: ({names}{',' * (len(layout) == 1)})}}"
    if _is_inner(reading) and role is None:
        entry += f' and roles={{{_quoted(path)}: "hidden"}}'
    return entry


def _quoted(path: str) -> str:
    """A pattern that matches `path` and nothing else, as it is written in Python."""
    return json.dumps(glob.escape(path), ensure_ascii=False)
