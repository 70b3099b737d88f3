"""Equations in which a weight meets an example, by what they do with each of its entries."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._jaxprs import parameters
from ..ops._wide import wide

Kind = Literal["dense", "convolution", "lookup", "entries"]

_ELEMENTWISE = frozenset({"mul", "add", "add_any", "sub", "div"})


class Use(NamedTuple):
    """An equation that is linear in the weight and, but for the sign, in the other operand.

    Each entry of the result takes each entry of the weight times one number, so that a function
    with $f(ab) = f(a) f(b)$ of these terms comes of the same equation run on functions of both.

    - `position`: of the weight among the operands.
    - `uses`: how often an example uses each entry: along how many positions.
    - `axes`: the result's axes that number positions: of uses, or of the weight's own entries.
    """

    kind: Kind
    equation: Any
    position: int
    uses: int
    axes: tuple[int, ...]

    @property
    def positions(self) -> int:
        """How many of them the result has."""
        return math.prod(self.result_shape[axis] for axis in self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight."""
        return tuple(self.equation.invars[self.position].aval.shape)

    @property
    def result_shape(self) -> tuple[int, ...]:
        """Of one example's result."""
        return tuple(self.equation.outvars[0].aval.shape)

    def of_one(self, others: Sequence[Array], weight: Array) -> Array:
        """The result for one example."""
        operands = [*others[: self.position], weight, *others[self.position :]]
        params = dict(self.equation.params)
        if params.get("preferred_element_type") is not None:
            # On wide operands it is wide as well.
            wanted = params["preferred_element_type"]
            params["preferred_element_type"] = _wider(wanted, weight.dtype)
        return self.equation.primitive.bind(*operands, **params)

    def of_all(self, others: Sequence[Array], weight: Array) -> Array:
        """The result for a batch of examples, which the first axis of all others numbers."""
        if self.kind == "dense":
            return Sides.of(self).product(others[0], weight)
        return jax.vmap(lambda *others: self.of_one(others, weight))(*others)


def recognised(equation: Any, position: int) -> Use | None:
    """The use that an equation makes of its operand at `position`; `None` if it is another."""
    name = equation.primitive.name
    if len(equation.outvars) != 1:
        return None
    if name == "dot_general":
        return _dense(equation, position)
    if name == "conv_general_dilated" and position == 1:
        return _convolution(equation)
    if name in ("gather", "dynamic_slice") and position == 0:
        return _lookup(equation)
    if name in _ELEMENTWISE:
        return _entries(equation, position)
    return None


def _dense(equation: Any, position: int) -> Use | None:
    product = parameters.product(equation)
    if product is None or len(product.summed[0]) + len(product.batch[0]) == 0:
        return None
    other = 1 - position
    shape = equation.invars[other].aval.shape
    taken = (*product.summed[other], *product.batch[other])
    free = [axis for axis in range(len(shape)) if axis not in taken]
    start = len(product.batch[0])
    if other == 1:
        start = len(equation.outvars[0].aval.shape) - len(free)
    axes = tuple(range(start, start + len(free)))
    return Use("dense", equation, position, math.prod(shape[a] for a in free), axes)


def _convolution(equation: Any) -> Use | None:
    numbers, params = equation.params["dimension_numbers"], equation.params
    if params.get("batch_group_count") != 1 or parameters.convolution(equation) is None:
        return None
    axes = tuple(int(axis) for axis in (numbers.out_spec[0], *numbers.out_spec[2:]))
    shape = equation.outvars[0].aval.shape
    return Use("convolution", equation, 1, math.prod(shape[axis] for axis in axes), axes)


def _lookup(equation: Any) -> Use | None:
    """Of rows that are the same or have nothing in common."""
    gather, shape = parameters.gather(equation), equation.invars[0].aval.shape
    if gather is None or gather.batch:
        return None
    if any(size not in (1, whole) for size, whole in zip(gather.sizes, shape, strict=True)):
        return None
    result = equation.outvars[0].aval.shape
    axes = tuple(axis for axis in range(len(result)) if axis not in gather.places)
    return Use("lookup", equation, 0, math.prod(result[axis] for axis in axes), axes)


def _entries(equation: Any, position: int) -> Use | None:
    name = equation.primitive.name
    if name in ("sub", "div") and position == 1:
        return None
    shape, result = equation.invars[position].aval.shape, equation.outvars[0].aval.shape
    if len(shape) != len(result):
        return None
    axes = tuple(i for i, (a, b) in enumerate(zip(shape, result, strict=True)) if a != b)
    return Use("entries", equation, position, math.prod(result[axis] for axis in axes), axes)


class Sides(NamedTuple):
    """How a product's operands become matrices: positions, members, and what is summed or made."""

    members: tuple[tuple[int, ...], tuple[int, ...]]
    summed: tuple[tuple[int, ...], tuple[int, ...]]
    free: tuple[tuple[int, ...], tuple[int, ...]]
    use: Use

    @classmethod
    def of(cls, use: Use) -> "Sides":
        """Of the other operand first, and of the weight."""
        product = parameters.product(use.equation)
        assert product is not None
        order = (1 - use.position, use.position)
        summed = product.summed[order[0]], product.summed[order[1]]
        members = product.batch[order[0]], product.batch[order[1]]
        shapes = [use.equation.invars[i].aval.shape for i in order]
        one, two = (
            tuple(axis for axis in range(len(shape)) if axis not in (*s, *m))
            for shape, s, m in zip(shapes, summed, members, strict=True)
        )
        return cls(members, summed, (one, two), use)

    def inputs(self, x: Array) -> Array:
        """The other operand of a batch as (examples, positions, members, summed)."""
        return self._parted(x, self.free[0], self.members[0], self.summed[0])

    def outputs(self, y: Array) -> Array:
        """The result of a batch, or its cotangent, as (examples, positions, members, made)."""
        count, ndim = len(self.members[0]), len(self.use.result_shape)
        rest = tuple(i for i in range(count, ndim) if i not in self.use.axes)
        return self._parted(y, self.use.axes, tuple(range(count)), rest)

    @staticmethod
    def _parted(x: Array, *groups: tuple[int, ...]) -> Array:
        order = [0, *(axis + 1 for group in groups for axis in group)]
        sizes = [math.prod(x.shape[axis + 1] for axis in group) for group in groups]
        return jnp.transpose(x, order).reshape(x.shape[0], *sizes)

    def product(self, x: Array, weight: Array) -> Array:
        """The result of a batch, by one product of matrices.

        Over several axes XLA on the CPU merges what follows into transposing copies.
        """
        rows = self.inputs(x)
        count, _, members, size = rows.shape
        order = (*self.members[1], *self.summed[1], *self.free[1])
        made = [weight.shape[axis] for axis in self.free[1]]
        matrix = jnp.transpose(weight, order).reshape(members, size, math.prod(made))
        params, rows = self.use.equation.params, rows.reshape(-1, members, size)
        wanted = params["preferred_element_type"]
        kind = None if wanted is None else _wider(wanted, weight.dtype)
        how = {"precision": params["precision"], "preferred_element_type": kind}
        if members == 1:
            y = jax.lax.dot_general(rows[:, 0], matrix[0], (((1,), (0,)), ((), ())), **how)
        else:
            y = jax.lax.dot_general(rows, matrix, (((2,), (1,)), ((1,), (0,))), **how)
            y = jnp.swapaxes(y, 0, 1)
        shape = self.use.result_shape
        start, axes = len(self.members[0]), self.use.axes
        rest = tuple(i for i in range(start, len(shape)) if i not in axes)
        groups = (*axes, *range(start), *rest)
        y = y.reshape(count, *(shape[axis] for axis in groups))
        return jnp.transpose(y, [0, *(groups.index(axis) + 1 for axis in range(len(shape)))])


def _wider(one: Any, other: Any) -> Any:
    return one if jnp.finfo(one).bits >= jnp.finfo(other).bits else other


def widened(arrays: Sequence[Array]) -> list[Array]:
    """Floating-point ones in float32 at least."""
    return [wide(x) if jnp.issubdtype(x.dtype, jnp.inexact) else x for x in arrays]


def mapped(function: Any, arrays: Sequence[Array]) -> list[Array]:
    """`function` of floating-point ones; indices stay."""
    return [function(x) if jnp.issubdtype(x.dtype, jnp.inexact) else x for x in arrays]
