"""Statistics of one weight, from what an equation took and from its result's cotangents."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ._equations import Sides, Use, mapped, widened
from ._sums import POWERS, entrywise, squared_norms
from ._turns import at_once, each_of, in_turns


class Units(NamedTuple):
    """How a batch parts into units.

    - `size`: how many examples a unit has.
    - `tokens`: how many tokens an example has where each is a unit; 0 if units are examples.
    - `memory`: how many bytes of single units' gradients there may be at once.
    """

    size: int
    tokens: int
    memory: int


def statistics_of(
    use: Use,
    others: Sequence[Array],
    cotangent: Array,
    keep: Array | None,
    wanted: Sequence[str],
    units: Units,
) -> dict[str, Array]:
    """Sums over the batch, in the weight's shape, and `norm`: by example, or by token.

    **Arguments:**

    - `others`: what the equation took beside the weight; the first axis numbers the examples.
    - `cotangent`: of its result, alike.
    - `keep`: where the weight has a gradient at all; everywhere if `None`.
    """
    others, (cotangent,) = widened(others), widened([cotangent])
    found: dict[str, Array] = {}
    entries = [name for name in wanted if name != "norm"]
    if units.tokens or (use.uses == 1 and units.size == 1):
        for name in entries:
            found[name] = _of_terms(use, POWERS[name], others, cotangent)
        if "norm" in wanted:
            found["norm"] = _norms_of_terms(use, others, cotangent, keep, units)
    elif use.kind == "lookup":
        found = _of_rows(use, others, cotangent, keep, wanted, units)
    elif not entries and keep is None and way_of(use, units) == "gram":
        found["norm"] = _of_gram(use, others, cotangent, units)
    else:
        found = _of_gradients(use, others, cotangent, keep, wanted, units)
    return found


def way_of(use: Use, units: Units) -> str:
    """How norms alone are computed."""
    if units.tokens or use.kind != "dense" or (use.uses == 1 and units.size == 1):
        return "surgery"
    sides = Sides.of(use)
    shape = use.shape
    members, taken, made = (
        math.prod(shape[axis] for axis in axes)
        for axes in (sides.members[1], sides.summed[1], sides.free[1])
    )
    positions = units.size * use.uses
    return "gram" if members == 1 and positions * (taken + made) < taken * made else "surgery"


def _back(use: Use, others: Sequence[Array], cotangent: Array) -> Array:
    """The weight's part of an equation run backwards, summed over the batch."""
    zero = jnp.zeros(use.shape, cotangent.dtype)
    return jax.vjp(lambda weight: use.of_all(others, weight), zero)[1](cotangent)[0]


def _of_terms(
    use: Use, function: Callable[[Array], Array], others: Sequence[Array], cotangent: Array
) -> Array:
    r"""$\sum f(s\, r) = \sum f(s)\, f(r)$: the equation backwards on functions of both."""
    return _back(use, mapped(function, others), function(cotangent))


def _norms_of_terms(
    use: Use, others: Sequence[Array], cotangent: Array, keep: Array | None, units: Units
) -> Array:
    squares, square = mapped(jnp.square, others), jnp.square(cotangent)
    if use.kind == "dense" and keep is None:
        sides = Sides.of(use)
        taken = jnp.sum(sides.inputs(squares[0]), axis=-1)
        found = jnp.sum(taken * jnp.sum(sides.outputs(square), axis=-1), axis=-1)
    else:
        zero = jnp.zeros(use.shape, square.dtype)
        ones = jnp.ones_like(zero) if keep is None else keep.astype(zero.dtype)
        each = jax.jvp(lambda weight: use.of_all(squares, weight), (zero,), (ones,))[1] * square
        axes = use.axes if units.tokens else ()
        rest = [axis for axis in range(1, each.ndim) if axis - 1 not in axes]
        found = jnp.sum(each, axis=rest).reshape(each.shape[0], -1)
    return found if units.tokens else found.reshape(-1)


def _units(x: Array, size: int) -> Array:
    return x.reshape(-1, size, *x.shape[1:])


def _of_units(norms: Array, size: int) -> Array:
    """By example: each unit's norm stands at the first of its examples."""
    zeros = jnp.zeros((norms.shape[0], size - 1), norms.dtype)
    return jnp.concatenate([norms[:, None], zeros], axis=1).reshape(-1)


def _of_gram(use: Use, others: Sequence[Array], cotangent: Array, units: Units) -> Array:
    r"""$\lvert \sum_t s_t r_t^\top \rvert^2 = \langle S S^\top, R R^\top \rangle$."""
    sides = Sides.of(use)
    s, r = sides.inputs(others[0]), sides.outputs(cotangent)

    def norms(pair: tuple[Array, Array]) -> Array:
        s, r = (x.reshape(-1, x.shape[-1]) for x in pair)
        return jnp.sum((s @ s.T) * (r @ r.T))

    pairs = (_units(s, units.size), _units(r, units.size))
    positions = units.size * use.uses
    several = max(1, units.memory // (2 * s.dtype.itemsize * positions**2))
    if several >= pairs[0].shape[0]:
        return _of_units(jax.vmap(norms)(pairs), units.size)
    return _of_units(jax.lax.map(norms, pairs, batch_size=several), units.size)


def _of_rows(
    use: Use,
    others: Sequence[Array],
    cotangent: Array,
    keep: Array | None,
    wanted: Sequence[str],
    units: Units,
) -> dict[str, Array]:
    """Of a table in which a unit looks up several rows, and some of them more than once."""
    axes = tuple(axis + 1 for axis in use.axes)
    rest = tuple(axis for axis in range(1, cotangent.ndim) if axis not in axes)
    order = (0, *axes, *rest)
    # Which entry of the table each entry of the result is: below zero where it is none.
    places = jnp.arange(math.prod(use.shape), dtype=jnp.int32).reshape(use.shape)
    places = jax.vmap(lambda *others: use.of_one(others, places))(*others)
    groups = math.prod(cotangent.shape[axis] for axis in rest)
    flat = (cotangent.shape[0] // units.size, units.size * use.uses, groups)
    first = jnp.transpose(places, order).reshape(flat)[:, :, 0]
    rows = jnp.transpose(cotangent, order).reshape(flat)
    same = first[:, :, None] == first[:, None, :]
    sums = jnp.einsum("upq,uqd->upd", same.astype(rows.dtype), rows)
    earlier = jnp.tril(jnp.ones(same.shape[1:], bool), -1)
    counts = ~jnp.any(same & earlier[None], axis=-1) & (first >= 0)
    sums = jnp.where(counts[:, :, None], sums, jnp.zeros((), sums.dtype))
    shape = [cotangent.shape[axis] for axis in order]
    back = [order.index(axis) for axis in range(len(order))]
    summed = jnp.transpose(sums.reshape(shape), back)
    found = {name: _back(use, others, POWERS[name](summed)) for name in wanted if name != "norm"}
    if "norm" in wanted:
        squares = jnp.square(summed)
        if keep is not None:
            squares = squares * use.of_all(others, keep.astype(squares.dtype))
        found["norm"] = _of_units(jnp.sum(squares.reshape(*flat[:1], -1), axis=1), units.size)
    return found


def _of_gradients(
    use: Use,
    others: Sequence[Array],
    cotangent: Array,
    keep: Array | None,
    wanted: Sequence[str],
    units: Units,
) -> dict[str, Array]:
    """By the units' own gradients of this weight, some at once."""
    operands = tuple(_units(x, units.size) for x in (*others, cotangent))

    def of_unit(operands: tuple[Array, ...]) -> Array:
        found = _back(use, operands[:-1], operands[-1])
        return found if keep is None else jnp.where(keep, found, jnp.zeros((), found.dtype))

    def some(operands: tuple[Array, ...]) -> tuple[dict[str, Array], Array | None]:
        gradients = each_of(of_unit, operands)
        return _entries(gradients, wanted), _norms(gradients, wanted)

    bytes_each = math.prod(use.shape) * cotangent.dtype.itemsize
    sums, norms = in_turns(some, operands, at_once(units.memory, lambda: bytes_each))
    return sums if norms is None else {**sums, "norm": _of_units(norms, units.size)}


def of_copies(
    cotangent: Array, keep: Array | None, wanted: Sequence[str], units: Units
) -> dict[str, Array]:
    """Of a weight of which every example had a copy; the cotangents are its gradients."""
    gradients = jnp.sum(_units(widened([cotangent])[0], units.size), axis=1)
    if keep is not None:
        gradients = jnp.where(keep[None], gradients, jnp.zeros((), gradients.dtype))
    found, norms = _entries(gradients, wanted), _norms(gradients, wanted)
    return found if norms is None else {**found, "norm": _of_units(norms, units.size)}


def _entries(gradients: Array, wanted: Sequence[str]) -> dict[str, Array]:
    return {name: entrywise(name, gradients) for name in wanted if name != "norm"}


def _norms(gradients: Array, wanted: Sequence[str]) -> Array | None:
    return squared_norms(gradients) if "norm" in wanted else None
