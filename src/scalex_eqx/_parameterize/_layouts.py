"""Which axes of an array are summed over and which are produced."""

from collections.abc import Callable
from typing import Any

import equinox as eqx

from .._pages import Section, see
from .._weight import path_string
from ..theory import Role
from ._nodes import Node

Layout = tuple[str, ...]

PATH = "<path>"

_MATRIX: Layout = ("out", "in")
_VECTOR: Layout = ("out",)


def _kernel(conv: Any) -> Layout:
    return (*_MATRIX, *("in",) * conv.num_spatial_dims)


def _channels(conv: Any) -> Layout:
    return _VECTOR * (1 + conv.num_spatial_dims)


def _affine(norm: Any) -> Layout:
    return _VECTOR * len(norm.shape)


_CELL = {"weight_ih": _MATRIX, "weight_hh": _MATRIX, "bias": _VECTOR, "bias_n": _VECTOR}

# What shapes cannot tell. Arrays of PReLU have any shape; shapes alone decide there.
_KNOWN: dict[type, dict[str, Layout | Callable[[Any], Layout]]] = {
    eqx.nn.Linear: {"weight": _MATRIX, "bias": _VECTOR},
    eqx.nn.Embedding: {"weight": ("in", "out")},
    eqx.nn.Conv: {"weight": _kernel, "bias": _channels},
    eqx.nn.ConvTranspose: {"weight": _kernel, "bias": _channels},
    eqx.nn.GRUCell: _CELL,
    eqx.nn.LSTMCell: _CELL,
    eqx.nn.LayerNorm: {"weight": _affine, "bias": _affine},
    eqx.nn.RMSNorm: {"weight": _affine, "bias": _affine},
    eqx.nn.GroupNorm: {"weight": _VECTOR, "bias": _VECTOR},
    eqx.nn.BatchNorm: {"weight": _VECTOR, "bias": _VECTOR},
}


def known_layout(node: Node) -> Layout | None:
    """The layout of an array that is a field of a module of `equinox.nn`, or of a subclass."""
    if not node.parents:
        return None
    owner, relative = node.parents[-1]
    field = path_string(relative)
    for cls in type(owner).__mro__:
        layout = _KNOWN.get(cls, {}).get(field)
        if layout is not None:
            return layout(owner) if callable(layout) else layout
    return None


def inferred_layout(base: tuple[int, ...], probe: tuple[int, ...], role: Role | None) -> Layout:
    """The layout that two shapes of an array of an unknown module leave no choice about.

    **Raises:** `ValueError` with the candidates, `PATH` standing for the array's path, if there
    are several and `role` picks none.
    """
    if len(base) != len(probe):
        raise ValueError(
            f"the shapes {base} at the base width and {probe} at the probe width have different "
            "numbers of axes"
        )
    axes = len(base)
    growing = [axis - axes for axis in range(axes) if base[axis] != probe[axis]]
    if axes <= 1 or not growing:
        return _VECTOR * axes
    if axes == 2 and len(growing) == 2:
        return _MATRIX
    candidates = _candidates(growing[0]) if axes == 2 else {}
    if role is not None and role in candidates:
        return candidates[role]
    raise ValueError(_ambiguous(base, probe, growing, candidates))


def _candidates(growing: int) -> dict[Role, Layout]:
    """The roles that a matrix may have of which one axis grows."""
    if growing == -1:
        return {
            Role.embedding: ("in", "out"),
            Role.readout: ("out", "in"),
            Role.vector: _VECTOR,
        }
    return {Role.embedding: ("out", "in"), Role.readout: ("in", "out")}


def _ambiguous(
    base: tuple[int, ...],
    probe: tuple[int, ...],
    growing: list[int],
    candidates: dict[Role, Layout],
) -> str:
    what = {Role.embedding: "an embedding", Role.readout: "a readout"}
    if candidates:
        remedy = "it is " + ", or ".join(
            f"{what.get(role, 'a stack of vectors')} with {_entry(layout)}"
            for role, layout in candidates.items()
        )
    else:
        remedy = (
            'name its last axes, "in" if summed over and "out" if produced, with '
            f"{_entry(_MATRIX)} for matrices that are stacked along the axes in front"
        )
    return (
        f"shape {base} at the base width and {probe} at the probe width; its role cannot be told "
        f"from the growth of {', '.join(f'axis {axis}' for axis in growing)} alone: {remedy}"
        f"{see(Section.unknown_role)}"
    )


def _entry(layout: Layout) -> str:
    names = ", ".join(f'"{axis}"' for axis in layout)
    return f'layouts={{"{PATH}": ({names}{"," * (len(layout) == 1)})}}'


def parse_layout(value: Any) -> Layout:
    """`value` as a layout. **Raises:** `ValueError` if it is none."""
    if not isinstance(value, tuple | list) or any(axis not in ("in", "out") for axis in value):
        raise ValueError(
            f'{value!r} is no layout; expected the names of the last axes, such as ("out", "in")'
        )
    return tuple(value)


def fan_axes(layout: Layout) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The fan-in and fan-out axes, counted from the end."""
    last = range(-len(layout), 0)
    named = list(zip(last, layout, strict=True))
    fan_in = tuple(axis for axis, name in named if name == "in")
    return fan_in, tuple(axis for axis, name in named if name == "out")
