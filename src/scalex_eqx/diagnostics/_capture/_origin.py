"""What the values of a traced program are made from."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from . import _parameters as parameters

Axes = tuple[int | None, ...]


class Origin(NamedTuple):
    """What a value is made from: from the inputs, or from weights and constants alone.

    - `is_data`: whether it depends on the inputs.
    - `weights`: the paths of the weights that it is made from; of no interest once it is data.
    - `axes`: for each of its axes the axis of the weight that it runs along, `None` if unknown.
    - `loops`: the scans, numbered from the outermost, in whose turns it takes different values.
    """

    is_data: bool = False
    weights: frozenset[str] = frozenset()
    axes: Axes = ()
    loops: frozenset[int] = frozenset()

    def leaving(self, loop: int) -> "Origin":
        """The origin behind a scan of a value that the scan returns."""
        return self._replace(loops=self.loops - {loop})


DATA = Origin(is_data=True)
CONSTANT = Origin()


def derived(equation: Any, origins: Sequence[Origin]) -> list[Origin]:
    """The origins of an equation's results."""
    if any(origin.is_data for origin in origins):
        return [DATA for _ in equation.outvars]
    weights = frozenset[str]().union(*(origin.weights for origin in origins))
    loops = frozenset[int]().union(*(origin.loops for origin in origins))
    return [
        Origin(False, weights, _axes(equation, origins, variable.aval.shape), loops)
        for variable in equation.outvars
    ]


def _axes(equation: Any, origins: Sequence[Origin], shape: tuple[int, ...]) -> Axes:
    unknown = (None,) * len(shape)
    made_from = [i for i, origin in enumerate(origins) if origin.weights]
    if len(made_from) != 1:
        return unknown
    [i] = made_from
    name, axes = equation.primitive.name, origins[i].axes
    old_shape = equation.invars[i].aval.shape
    if name == "transpose":
        order = parameters.permutation(equation)
        return unknown if order is None else tuple(axes[axis] for axis in order)
    if name == "squeeze":
        dropped = parameters.squeezed(equation)
        if dropped is None:
            return unknown
        return tuple(axis for i, axis in enumerate(axes) if i not in dropped)
    if name == "broadcast_in_dim":
        places = parameters.broadcast(equation)
        return unknown if places is None else _broadcast(axes, old_shape, places, shape)
    if name == "reshape":
        return _reshaped(axes, old_shape, shape)
    keeps = name in _SLICES or (old_shape == shape and name not in _MIXES)
    return axes if keeps else unknown


_SLICES = frozenset({"slice", "dynamic_slice", "split", "pad"})
_MIXES = frozenset(
    {
        *("dot_general", "conv_general_dilated", "gather", "scan", "while", "cond"),
        *("cholesky", "triangular_solve", "custom_linear_solve"),
    }
)


def _broadcast(
    axes: Axes, old_shape: Sequence[int], places: Sequence[int], shape: Sequence[int]
) -> Axes:
    found: list[int | None] = [None] * len(shape)
    for axis, size, place in zip(axes, old_shape, places, strict=True):
        if shape[place] == size:
            found[place] = axis
    return tuple(found)


def _reshaped(axes: Axes, old_shape: Sequence[int], shape: Sequence[int]) -> Axes:
    """An axis is still the same one if its size is and as many entries stand in front of it."""
    old = {(math.prod(old_shape[:i]), size): axes[i] for i, size in enumerate(old_shape)}
    return tuple(old.get((math.prod(shape[:i]), size)) for i, size in enumerate(shape))
