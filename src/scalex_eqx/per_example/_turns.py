"""Sums over units of which only some are looked at at once."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

# Of single units' turns that are compiled as one: their sums are then written once.
_UNROLLED = 4


def at_once(memory: int, bytes_each: Callable[[], int]) -> int:
    """How many units of which each takes `bytes_each` are looked at at once.

    On the CPU one: XLA computes products for several units each by itself with plain loops there,
    which take ten times as long.
    """
    if jax.default_backend() == "cpu":
        return 1
    return max(1, memory // max(1, bytes_each()))


def in_turns(
    some: Callable[[PyTree], tuple[PyTree, PyTree]], units: PyTree, at_once: int
) -> tuple[PyTree, PyTree]:
    """What `some` sums over units, over all of them, and what it says of each unit.

    **Arguments:**

    - `some`: of arrays whose leading axis numbers units, sums over these, and arrays by unit.
    - `units`: arrays whose leading axis numbers all units.
    - `at_once`: how many units `some` is given.
    """
    count = jax.tree.leaves(units)[0].shape[0]
    if at_once >= count:
        return some(units)
    turns, rest = divmod(count, at_once)

    def turn(sums: PyTree, units: PyTree) -> tuple[PyTree, PyTree]:
        more, each = some(units)
        return jax.tree.map(jnp.add, sums, more), each

    body = jax.tree.map(lambda x: _dealt(x[: count - rest], turns), units)
    shapes = jax.eval_shape(lambda units: some(jax.tree.map(lambda x: x[0], units))[0], body)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    unroll = min(turns, _UNROLLED) if at_once == 1 else 1
    sums, each = jax.lax.scan(turn, zeros, body, unroll=unroll)
    each = jax.tree.map(_gathered, each)
    if rest:
        sums, last = turn(sums, jax.tree.map(lambda x: x[count - rest :], units))
        each = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), each, last)
    return sums, each


def each_of(function: Callable[[PyTree], PyTree], units: PyTree) -> PyTree:
    """What a function makes of each unit; one alone runs better without an axis of size one."""
    if jax.tree.leaves(units)[0].shape[0] > 1:
        return jax.vmap(function)(units)
    found = function(jax.tree.map(lambda x: x[0], units))
    return jax.tree.map(lambda x: x[None], found)


def _dealt(x: Array, turns: int) -> Array:
    """The leading axis in turns, and neighbours in different ones.

    Of a batch that is split over devices each then has its part in every turn.
    """
    return jnp.swapaxes(x.reshape(-1, turns, *x.shape[1:]), 0, 1)


def _gathered(x: Array) -> Array:
    return jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])
