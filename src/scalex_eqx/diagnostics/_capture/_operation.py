"""The operations in which a weight may meet what depends on the inputs."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..._jaxprs import axes_behind, parameters
from ._origin import Beside, Origin

Kind = Literal["contraction", "lookup", "elementwise"]

SharedAxes = tuple[int, int | None, int]

_ELEMENTWISE = frozenset(
    {
        *("add", "add_any", "sub", "mul", "div", "pow", "max", "min", "atan2", "rem"),
        *("nextafter", "select_n", "concatenate", "stack", "clamp", "complex"),
    }
)


@dataclasses.dataclass(frozen=True)
class Operation:
    """One equation as a function of a weight and of the input that the weight meets.

    **Arguments:**

    - `kind`: `"contraction"`, a product with a sum over the fan-in; `"lookup"`, rows chosen by
        integers, which is a contraction with one-hot vectors; or `"elementwise"`.
    - `primitive`, `params`: the equation's operation and its parameters.
    - `position`: of the weight among its operands; -1 for a vector that the equation chooses from
        a stack: what it chooses is the weight then, and what comes out.
    - `fan_in`: how many terms are summed over, for a lookup how many rows there are; 1 for
        an elementwise operation. Members of a stack don't count.
    - `summed`: the axes of the weight that are summed over, or in which rows are chosen.
    - `shared`: triples of axes, of weight, input and output, that run along with each other;
        `None` for an input that has no such axis.
    - `part`: for a `concatenate` or a `stack`, and for a weight beside others, where what comes
        of it stands in the result: axis, start and size.
    - `groups`: for a `ragged_dot_general` the axis of the weight that numbers its groups.
    """

    kind: Kind
    primitive: Any
    params: tuple[tuple[str, Any], ...]
    position: int
    fan_in: int = 1
    summed: tuple[int, ...] = ()
    shared: tuple[SharedAxes, ...] = ()
    part: tuple[int, int, int] | None = None
    groups: int | None = None

    @property
    def name(self) -> str:
        """What JAX calls the operation."""
        return self.primitive.name

    def __call__(self, weight: Array, x: Array, rest: Sequence[Array] = ()) -> Array:
        """What comes out; `rest` as `rest_of` returns it."""
        if self.position == -1:
            return weight
        if self.name == "dynamic_slice":
            # Every axis has an index of its own.
            return self.primitive.bind(weight, *x, **dict(self.params))
        operands = (weight, x) if self.position == 0 else (x, weight)
        return self.primitive.bind(*operands, *rest, **dict(self.params))

    def input_of(self, operands: list[Any], is_data: Sequence[bool]) -> Array:
        """What meets the weight, among the equation's operands."""
        if self.name == "dynamic_slice":
            return jnp.stack([jnp.asarray(index, jnp.int32) for index in operands[1:]])
        if self.kind == "elementwise":
            return operands[is_data.index(True)]
        return operands[1] if self.position == -1 else operands[1 - self.position]

    def rest_of(self, operands: list[Any]) -> tuple[Array, ...]:
        """What else the operation needs, such as the sizes of groups."""
        return tuple(operands[2:]) if self.groups is not None else ()

    def output_of(self, result: Array) -> Array:
        """What comes out of the weight's use, in the equation's result."""
        if self.part is None:
            return result
        axis, start, size = self.part
        return jax.lax.slice_in_dim(result, start, start + size, axis=axis)

    def added_to(self, result: Array, tap: Array) -> Array:
        """The equation's result, with `tap` added to what `output_of` finds in it."""
        if self.part is None:
            return result + tap
        axis, start, size = self.part
        behind = result.shape[axis] - start - size
        padding = [(start, behind, 0) if i == axis else (0, 0, 0) for i in range(result.ndim)]
        return result + jax.lax.pad(tap, jnp.zeros((), tap.dtype), padding)


def operation_of(equation: Any, position: int, origins: Sequence[Origin]) -> Operation | None:
    """The operation in which the operand at `position` meets an input; `None` if not known."""
    name, origin = equation.primitive.name, origins[position]
    if name == "dot_general":
        return _product(equation, position, origin)
    if name == "conv_general_dilated" and position == 1:
        return _convolution(equation)
    if name == "ragged_dot_general" and position == 1:
        return _ragged(equation)
    if name in ("gather", "dynamic_slice") and position == 0:
        return _lookup(equation, origin)
    if name in _ELEMENTWISE:
        return _elementwise(equation, position, [origin.is_data for origin in origins].index(True))
    return None


def part_of_product(equation: Any, position: int, along: int, beside: Beside) -> Operation | None:
    """The product in which one of several weights in one operand meets an input, if it is one."""
    product = None
    if equation.primitive.name == "dot_general":
        product = parameters.product(equation)
    if product is None or along in (*product.summed[position], *product.batch[position]):
        return None
    before, after = (v.aval.shape for v in (equation.invars[position], equation.outvars[0]))
    place = axes_behind(equation, position, range(len(before)), after).index(along)
    found = _product(equation, position, beside.origin)
    part = (place, beside.start, beside.size)
    return None if found is None else dataclasses.replace(found, part=part)


def choice(equation: Any, position: int, origin: Origin) -> Operation | None:
    """How the inputs choose among the members of a stack in an equation; `None` if they don't.

    The rows of a member are not chosen: that is a lookup.
    """
    name, axes = equation.primitive.name, origin.axes
    members = {i for i, axis in enumerate(axes) if axis in origin.stack}
    if name == "dot_general" and origin.is_matrix:
        # With one-hot vectors, or with any other shares of the members.
        product = parameters.product(equation)
        taken = set() if product is None else set(product.summed[position])
        paired = set() if product is None else set(product.batch[position])
    elif name in ("gather", "dynamic_slice") and position == 0:
        gather = parameters.gather(equation)
        taken = _taken(equation, gather)
        paired = set() if gather is None else {axis for axis, _ in gather.batch}
    else:
        return None
    if origin.in_pieces and name != "dot_general":
        members |= {i for i, axis in enumerate(axes) if axis is None}
    if not taken or not taken <= members or not paired <= members:
        return None
    shared = tuple((i, None, i) for i in range(len(equation.outvars[0].aval.shape)))
    return Operation("lookup", equation.primitive, (), -1, shared=shared)


def _taken(equation: Any, gather: parameters.Gather | None) -> set[int]:
    """The axes along which a slice is taken."""
    if gather is None:
        return set()
    paired = [axis for axis, _ in gather.batch]
    sizes = zip(gather.sizes, equation.invars[0].aval.shape, strict=True)
    return {i for i, (size, every) in enumerate(sizes) if size < every and i not in paired}


def _lookup(equation: Any, origin: Origin) -> Operation | None:
    if (gather := parameters.gather(equation)) is None:
        return None
    chosen = sorted(_taken(equation, gather))
    if origin.stack and not all(_is_own(origin, axis) for axis in chosen):
        return None
    rows = equation.invars[0].aval.shape
    fan_in = math.prod(rows[i] // gather.sizes[i] for i in chosen)
    batch = dict(gather.batch)
    places = [batch.get(i, place) for i, place in enumerate(gather.places)]
    shared = tuple(
        (i, None, place) for i, place in enumerate(places) if place is not None and i not in chosen
    )
    params = tuple(equation.params.items())
    return Operation("lookup", equation.primitive, params, 0, fan_in, tuple(chosen), shared)


def _is_own(origin: Origin, place: int) -> bool:
    """Whether an axis is one of each member, and not one that numbers them."""
    axis = origin.axes[place]
    return axis is not None and axis not in origin.stack


def _fan_in(shape: Sequence[int], summed: Sequence[int], origin: Origin) -> int:
    """The terms of a sum, but for members of a stack where it has others too."""
    own = [axis for axis in summed if origin.axes[axis] not in origin.stack]
    return math.prod(shape[axis] for axis in own or summed)


def _convolution(equation: Any) -> Operation | None:
    if (kernel := parameters.convolution(equation)) is None:
        return None
    weight = equation.invars[1].aval.shape
    fan_in = math.prod(weight) // weight[kernel.out]
    return _sum(equation, 1, fan_in, kernel.summed, ((kernel.out, None, kernel.place),))


def _ragged(equation: Any) -> Operation | None:
    if (ragged := parameters.ragged(equation)) is None:
        return None
    weight = equation.invars[1].aval.shape
    found = _sum(equation, 1, math.prod(weight[axis] for axis in ragged.summed), ragged.summed)
    return dataclasses.replace(found, groups=ragged.group if ragged.simple else -1)


def _sum(
    equation: Any,
    position: int,
    fan_in: int,
    summed: tuple[int, ...],
    shared: tuple[SharedAxes, ...] = (),
) -> Operation:
    """A product in which the axes `summed` of the weight are summed over, if there are any."""
    kind = "contraction" if summed else "elementwise"
    params = tuple(equation.params.items())
    return Operation(kind, equation.primitive, params, position, fan_in, summed, shared)


def _elementwise(equation: Any, position: int, other: int) -> Operation | None:
    shapes = [variable.aval.shape for variable in equation.invars]
    weight, x = shapes[position], shapes[other]
    part, places = None, list(range(len(weight)))
    whole = len(weight) == len(equation.outvars[0].aval.shape)
    beside = [i if len(x) == len(weight) else None for i in places]
    if equation.primitive.name in ("concatenate", "stack"):
        if (axis := parameters.joined_axis(equation)) is None:
            return None
        if equation.primitive.name == "stack":
            part, whole = (axis, position, 1), True
            places = [i + (i >= axis) for i in places]
        else:
            part = (axis, sum(shape[axis] for shape in shapes[:position]), weight[axis])
            beside[axis] = None
    shared = list(zip(range(len(weight)), beside, places, strict=True))
    return Operation(
        "elementwise",
        equation.primitive,
        tuple(equation.params.items()),
        position,
        shared=tuple(shared) if whole else (),
        part=part,
    )


def _product(equation: Any, position: int, origin: Origin) -> Operation | None:
    if (product := parameters.product(equation)) is None:
        return None
    weight = equation.invars[position].aval.shape
    summed = product.summed[position]
    fan_in = _fan_in(weight, summed, origin)
    return _sum(equation, position, fan_in, summed, _shared(equation, product, position))


def _shared(equation: Any, product: parameters.Product, position: int) -> tuple[SharedAxes, ...]:
    """A product's batch axes, and those that the weight alone has.

    Its result has the batch axes, the left operand's own and the right operand's own.
    """
    shapes = [variable.aval.shape for variable in equation.invars]
    weight, x = product.batch[position], product.batch[1 - position]
    contracted = product.summed[position]
    own = [i for i in range(len(shapes[position])) if i not in (*contracted, *weight)]
    start = len(weight) if position == 0 else len(equation.outvars[0].aval.shape) - len(own)
    together = [(w, x, z) for z, (w, x) in enumerate(zip(weight, x, strict=True))]
    return (*together, *((w, None, start + i) for i, w in enumerate(own)))
