"""Where the axes of a weight are, in what is made from it."""

import math
from collections.abc import Sequence
from typing import Any

from . import parameters

Axes = tuple[int | None, ...]

# Each entry of the result is made from the entries of the operands in its place.
ELEMENTWISE = frozenset(
    {
        *("abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2"),
        *("atanh", "cbrt", "ceil", "clamp", "complex", "conj", "convert_element_type", "copy"),
        *("copy_p", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc", "exp"),
        *("exp2", "expm1", "floor", "ge", "gt", "imag", "integer_pow", "is_finite", "le"),
        *("lgamma", "log", "log1p", "logistic", "lt", "max", "min", "mul", "name", "ne", "neg"),
        *("nextafter", "not", "one_minus_square", "or", "pow", "real", "reduce_precision"),
        *("rem", "round", "rsqrt"),
        *("select_n", "sign", "sin", "sinh", "sqrt", "square", "stop_gradient", "sub", "tan"),
        *("tanh", "xor", "sharding_constraint", "reshard", "mesh_cast", "pvary", "pcast"),
    }
)
_MOVES = frozenset(
    {
        *("transpose", "squeeze", "broadcast_in_dim", "rev", "stack", "unstack", "tile"),
        *("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"),
    }
)
_CUTS = frozenset({"slice", "split", "pad", "concatenate", "dynamic_update_slice"})


def axes_behind(
    equation: Any, position: int, axes: Sequence[Any], shape: Sequence[int]
) -> tuple[Any, ...]:
    """For each axis of a result the axis of the weight that it runs along, `None` if unknown.

    An axis in pieces still runs along that of the weight; see `whole`.

    **Arguments:**

    - `position`, `axes`: of the operand that is made from the weight, and where its axes run.
    - `shape`: of the result.
    """
    name, before = equation.primitive.name, equation.invars[position].aval.shape
    if name == "reshape":
        return _reshaped(axes, before, shape)
    places: Sequence[int | None] | None = None
    if name in ELEMENTWISE or name in _CUTS:
        places = range(len(shape)) if len(before) == len(shape) else None
    elif name in _MOVES:
        places = parameters.moved_axes(equation)
    elif name == "dot_general":
        places = _multiplied(equation, position)
    elif name in ("gather", "dynamic_slice") and position == 0:
        gather = parameters.gather(equation)
        places = None if gather is None else _gathered(gather)
    found: list[Any] = [None] * len(shape)
    for axis, size, place in zip(axes, before, places or (), strict=False):
        if place is not None and (shape[place] == size or size != 1):
            found[place] = axis
    return tuple(found)


def whole(
    equation: Any, position: int, axes: Axes, behind: Axes, shape: Sequence[int]
) -> frozenset[int]:
    """The axes of the weight that run through the result from end to end, as in the operand."""
    before = equation.invars[position].aval.shape
    shifted = parameters.shifted_axes(equation)
    if shifted is None:
        return frozenset()
    sizes = {
        axis: size
        for place, (axis, size) in enumerate(zip(axes, before, strict=True))
        if axis is not None and place not in shifted
    }
    return frozenset(
        axis
        for axis, size in zip(behind, shape, strict=True)
        if axis is not None and sizes.get(axis) == size
    )


def _multiplied(equation: Any, position: int) -> list[int | None] | None:
    """A product has the batch axes, the left operand's own and the right operand's own."""
    if (product := parameters.product(equation)) is None:
        return None
    paired, summed = product.batch[position], product.summed[position]
    before = range(len(equation.invars[position].aval.shape))
    own = [axis for axis in before if axis not in (*paired, *summed)]
    start = len(paired) if position == 0 else len(equation.outvars[0].aval.shape) - len(own)
    ends = [*paired, *(None for _ in range(start - len(paired))), *own]
    return [ends.index(axis) if axis in ends else None for axis in before]


def _gathered(gather: parameters.Gather) -> tuple[int | None, ...]:
    batch = dict(gather.batch)
    return tuple(batch.get(axis, place) for axis, place in enumerate(gather.places))


def _reshaped(
    axes: Sequence[Any], old_shape: Sequence[int], shape: Sequence[int]
) -> tuple[Any, ...]:
    """An axis is still the same one if its size is and as many entries stand in front of it."""
    old = {(math.prod(old_shape[:i]), size): axes[i] for i, size in enumerate(old_shape)}
    return tuple(old.get((math.prod(shape[:i]), size)) for i, size in enumerate(shape))
