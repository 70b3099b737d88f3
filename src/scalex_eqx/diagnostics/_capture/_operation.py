"""The operations in which a weight may meet what depends on the inputs."""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

from . import _parameters as parameters

Kind = Literal["contraction", "lookup", "elementwise"]

SharedAxes = tuple[int, int | None, int]

_ELEMENTWISE = frozenset(
    {
        *("add", "add_any", "sub", "mul", "div", "pow", "max", "min"),
        *("select_n", "concatenate"),
    }
)


@dataclasses.dataclass(frozen=True)
class Operation:
    """One equation as a function of a weight and of the input that the weight meets.

    **Arguments:**

    - `kind`: `"contraction"`, a product with a sum over the fan-in; `"lookup"`, rows chosen by
        integers, which is a contraction with one-hot vectors; or `"elementwise"`.
    - `primitive`, `params`: the equation's operation and its parameters.
    - `position`: of the weight among its operands.
    - `fan_in`: how many terms are summed over, for a lookup how many rows there are; 1 for
        an elementwise operation.
    - `summed`: the axes of the weight that are summed over, or in which rows are chosen.
    - `shared`: triples of axes, of weight, input and output, that run along with each other;
        `None` for an input that has no such axis.
    """

    kind: Kind
    primitive: Any
    params: tuple[tuple[str, Any], ...]
    position: int
    fan_in: int = 1
    summed: tuple[int, ...] = ()
    shared: tuple[SharedAxes, ...] = ()

    @property
    def name(self) -> str:
        """What JAX calls the operation."""
        return self.primitive.name

    def __call__(self, weight: Array, x: Array) -> Array:
        if self.primitive is jax.lax.dynamic_slice_p:
            # Every axis has an index of its own.
            return self.primitive.bind(weight, *x, **dict(self.params))
        operands = (weight, x) if self.position == 0 else (x, weight)
        return self.primitive.bind(*operands, **dict(self.params))

    def input_of(self, operands: list[Any], is_data: list[bool]) -> Array:
        """What meets the weight, among the equation's operands."""
        if self.primitive is jax.lax.dynamic_slice_p:
            return jnp.stack([jnp.asarray(index, jnp.int32) for index in operands[1:]])
        if self.kind == "elementwise":
            return operands[is_data.index(True)]
        return operands[1 - self.position]


def operation_of(equation: Any, position: int) -> Operation | None:
    """The operation in which the operand at `position` meets an input; `None` if not known."""
    primitive, params = equation.primitive, tuple(equation.params.items())
    shapes = [variable.aval.shape for variable in equation.invars]
    weight = shapes[position]
    if primitive is jax.lax.dot_general_p:
        return _product(equation, position)
    if primitive is jax.lax.conv_general_dilated_p and position == 1:
        if (kernel := parameters.convolution(equation)) is None:
            return None
        fan_in = math.prod(weight) // weight[kernel.out]
        return Operation("contraction", primitive, params, 1, fan_in, kernel.summed)
    if primitive in (jax.lax.gather_p, jax.lax.dynamic_slice_p) and position == 0:
        if (gather := parameters.gather(equation)) is None:
            return None
        sizes = gather.sizes
        chosen = tuple(i for i, size in enumerate(sizes) if size < weight[i])
        fan_in = int(math.prod(weight[i] // sizes[i] for i in chosen))
        return Operation("lookup", primitive, params, 0, fan_in, chosen)
    if primitive.name in _ELEMENTWISE:
        same = len({len(shape) for shape in shapes}) == 1
        shared = tuple((i, i, i) for i in range(len(weight))) if same else ()
        return Operation("elementwise", primitive, params, position, shared=shared)
    return None


def _product(equation: Any, position: int) -> Operation | None:
    if (product := parameters.product(equation)) is None:
        return None
    weight = equation.invars[position].aval.shape
    summed = product.summed[position]
    return Operation(
        "contraction" if summed else "elementwise",
        equation.primitive,
        tuple(equation.params.items()),
        position,
        math.prod(weight[axis] for axis in summed),
        summed,
        _shared(equation, product, position),
    )


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
