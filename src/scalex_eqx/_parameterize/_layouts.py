"""Which axes of an array are summed over and which are produced."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import equinox as eqx

from .._weight import path_string
from ..theory import Role
from ._nnx import nnx_layout
from ._nodes import Node
from ._readings import Layout, Shapes, ambiguous, growing_axes, readings
from ._wrapped import unmasked

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
    """The layout of an array that is a field of a layer of a library that is known, by its type.

    Those are `equinox.nn` and Flax NNX. A subclass counts as that layer.
    """
    node = unmasked(node)
    if not node.parents:
        return None
    owner, relative = node.parents[-1]
    field = path_string(relative)
    for cls in type(owner).__mro__:
        layout = _KNOWN.get(cls, {}).get(field)
        if layout is not None:
            return layout(owner) if callable(layout) else layout
    return nnx_layout(node)


def inferred_layout(
    path: str,
    shapes: Shapes,
    ratios: tuple[Fraction, Fraction],
    role: Role | None,
    *,
    drawn: bool,
) -> Layout:
    """The layout that the shapes of an array of an unknown module leave no choice about.

    **Arguments:**

    - `path`, `shapes`: of the array; the shapes at the base, the probe and the wanted width.
    - `ratios`: of the probe and of the wanted width to the base width.
    - `role`: the one that is given, if any.
    - `drawn`: whether its entries differ, so that an array of one axis may be summed over.

    **Raises:** `ValueError` with what is accepted, if there are several layouts and `role` picks
    none.
    """
    base, probe, _ = shapes
    if len(base) != len(probe):
        raise ValueError(
            f"the shapes {base} at the base width and {probe} at the probe width have different "
            "numbers of axes"
        )
    axes, growing = len(base), growing_axes(base, probe)
    if not growing or (axes == 1 and (not drawn or role is Role.vector)):
        return _VECTOR * axes
    if axes == 2 and len(growing) == 2:
        return _MATRIX
    if axes == 2:
        for reading in readings(axes, growing):
            if reading.role is role:
                return reading.layout
    raise ValueError(ambiguous(path, shapes, ratios, role))


def parse_layout(value: Any) -> Layout:
    """`value` as a layout. **Raises:** `ValueError` if it is none."""
    if not isinstance(value, tuple | list) or any(axis not in ("in", "out") for axis in value):
        raise ValueError(
            f'{value!r} is no layout; expected the names of the last axes, such as ("out", "in")'
        )
    return tuple(value)
