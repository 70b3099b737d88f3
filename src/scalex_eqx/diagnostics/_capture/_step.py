"""What is done to a stack of weights once its members are no longer side by side."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from ..._jaxprs import ELEMENTWISE

# What moves entries about and leaves them as they are, by the places of the operands that are
# entries themselves: all others are indices and the like.
_MOVES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("transpose", "squeeze", "broadcast_in_dim", "rev", "reshape", "slice"), (0,)),
    **dict.fromkeys(("split", "unstack", "tile", "dynamic_slice", "gather"), (0,)),
    **dict.fromkeys(("pad", "dynamic_update_slice"), (0, 1)),
    **dict.fromkeys(("concatenate", "stack"), (0,)),
}
# What mixes entries: whose they are can't be said behind it.
_MIXES = frozenset({"reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "dot_general"})


@dataclasses.dataclass(frozen=True)
class Step:
    """An equation as a function of the operand that is made from a weight.

    **Arguments:**

    - `primitive`, `params`: the equation's operation and its parameters.
    - `position`: of what is made from the weight, among its operands.
    - `output`: which of its results is meant.
    """

    primitive: Any
    params: tuple[tuple[str, Any], ...]
    position: int
    output: int = 0

    @property
    def name(self) -> str:
        """What JAX calls the operation."""
        return self.primitive.name

    def __call__(self, x: Array, others: Sequence[Any]) -> Array:
        operands = [*others[: self.position], x, *others[self.position :]]
        result = self.primitive.bind(*operands, **dict(self.params))
        return result[self.output] if self.primitive.multiple_results else result

    @property
    def moves(self) -> bool:
        """Whether entries stay those of one member each."""
        return self.name in ELEMENTWISE or self.position in self._entries(self.position + 1)

    def numbers(self, x: Int[Array, "..."], others: Sequence[Any]) -> Int[Array, "..."]:
        """The same of the members' numbers in the place of their entries; -1 for other entries."""
        if self.name in ELEMENTWISE and self.name != "select_n":
            # An axis of size 1 may go with a longer one.
            return jnp.broadcast_to(x, jnp.broadcast_shapes(x.shape, *map(jnp.shape, others)))
        entries = self._entries(len(others) + 1)
        places = [i for i in range(len(others) + 1) if i != self.position]
        strange = [
            jnp.full(jnp.shape(other), -1, x.dtype) if place in entries else other
            for place, other in zip(places, others, strict=True)
        ]
        params = self.params
        if self.name == "gather":
            # What is out of bounds belongs to nobody; the fill value may be NaN.
            params = tuple((k, -1 if k == "fill_value" else v) for k, v in params)
        return dataclasses.replace(self, params=params)(x, strange)

    def _entries(self, count: int) -> Sequence[int]:
        """Which of so many operands are entries, and no indices or the like."""
        if self.name == "select_n":
            return range(1, count)
        return range(count) if self.name in ("concatenate", "stack") else _MOVES.get(self.name, ())


def step_of(equation: Any, position: int, output: int = 0) -> Step | None:
    """The equation as a step; `None` if it is none that can be repeated by itself."""
    name = equation.primitive.name
    if name not in _MOVES and name not in _MIXES and name not in ELEMENTWISE:
        return None
    return Step(equation.primitive, tuple(equation.params.items()), position, output)


def repeated(steps: Sequence[Step], others: Sequence[Sequence[Any]], x: Array) -> Array:
    """What the steps make of a stack."""
    for step, rest in zip(steps, others, strict=True):
        x = step(x, rest)
    return x


def members(
    steps: Sequence[Step],
    others: Sequence[Sequence[Any]],
    shape: Sequence[int],
    axes: Sequence[int],
) -> Int[Array, "..."]:
    """Which member of a stack each entry behind the steps belongs to.

    Members are numbered over the `axes` of a stack of that `shape`; -1 is none.
    """
    sizes = [size if axis in axes else 1 for axis, size in enumerate(shape)]
    numbers = jnp.arange(math.prod(sizes), dtype=jnp.int32).reshape(sizes)
    x = jax.lax.broadcast_in_dim(numbers, tuple(shape), tuple(range(len(shape))))
    for step, rest in zip(steps, others, strict=True):
        x = step.numbers(x, rest)
    return x
