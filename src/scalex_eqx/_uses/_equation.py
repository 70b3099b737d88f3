"""An equation of a program that was traced at two widths, and what is known of its results."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from .._jaxprs import axes_behind
from ._place import place_of
from ._record import Record
from ._value import Piece, Value

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
        return self.name in LINEAR or self.name in PRODUCTS

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


PRODUCTS = frozenset({"dot_general", "conv_general_dilated", "ragged_dot_general"})


_FLAT = frozenset({"stop_gradient", "sign", "round", "floor", "ceil", "nextafter"})


LINEAR = frozenset(
    {
        *("neg", "convert_element_type", "copy", "copy_p", "add", "add_any", "sub", "mul", "div"),
        *("transpose", "squeeze", "broadcast_in_dim", "rev", "reshape", "slice", "split", "pad"),
        *("concatenate", "stack", "unstack", "tile", "dynamic_slice", "gather", "reduce_precision"),
        *("real", "name", "sharding_constraint", "reshard", "mesh_cast", "pvary", "pcast"),
        *("expand_dims", "stop_gradient", "reduce_sum", "select_n"),
    }
)


MOVES = frozenset(
    {
        *("transpose", "squeeze", "broadcast_in_dim", "rev", "reshape", "tile", "slice", "split"),
        *("unstack", "expand_dims", "pad", "concatenate", "stack", "dynamic_update_slice"),
    }
)


CUTS = frozenset({"slice", "split", "unstack"})


REDUCTIONS = frozenset(
    {
        *("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"),
        *("argmax", "argmin", "cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"),
    }
)


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
    return piece._replace(axes=axes, linear=piece.linear and equation.name in LINEAR)


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


def unknown(record: Record, equation: Equation, operands: list[Value]) -> Value:
    """An operation that isn't known: arrays of the model are lost in it."""
    found = together(equation, operands)
    for value in operands:
        record.commit(value)
        if found.is_data and value.is_pure:
            record.lose(value._replace(pieces=()), equation.place, equation.name)
    scales = found.lost or (None if found.is_data else equation.name)
    return found._replace(lost=scales)
