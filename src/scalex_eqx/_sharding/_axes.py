"""What the axes of a weight are, by name: declared by its layer, or read from its role."""

from collections.abc import Sequence

from .._spec import WeightSpec
from ..theory import Role

STACK = "stack"

# Fan-in and fan-out of a weight whose layer has not named them. An inner layer is split where it
# is wide: along its outputs, and where it ends a residual branch along its inputs.
_BY_ROLE: dict[Role | None, tuple[str, str]] = {
    Role.embedding: ("vocabulary", "width"),
    Role.hidden: ("width", "inner"),
    Role.readout: ("width", "vocabulary"),
    Role.vector: ("", "width"),
}


def logical_axes(spec: WeightSpec, shape: Sequence[int]) -> tuple[str, ...]:
    """A name for each axis of a weight of that shape; empty for one that has none.

    **Arguments:**

    - `spec`: its names are those of the last axes; what stands in front is a stack.
    - `shape`: of the value. Where a fan has several axes, as a convolution's, the longest is named.
    """
    own = spec.axes or _inferred(spec, shape)
    return (STACK,) * (len(shape) - len(own)) + own


def _inferred(spec: WeightSpec, shape: Sequence[int]) -> tuple[str, ...]:
    names = dict.fromkeys(range(-len(spec.fan_in) - len(spec.fan_out), 0), "")
    into, out = _BY_ROLE.get(spec.role, ("", ""))
    if spec.role is Role.hidden and spec.ends_branch:
        into, out = out, into
    for fan, name in ((spec.fan_in, into), (spec.fan_out, out)):
        if fan:
            names[max(fan, key=lambda axis: shape[axis])] = name
    return tuple(names.values())
