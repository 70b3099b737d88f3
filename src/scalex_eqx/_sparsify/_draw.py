"""Random masks with an exact number of entries, by pattern."""

import functools
import math
import re
from fractions import Fraction

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray

from .._spec import WeightSpec

PATTERNS = "'unstructured', 'balanced', blocks such as '4x4', or n of m such as '2:4'"


def keeps(pattern: str, density: Fraction, spec: WeightSpec, shape: tuple[int, ...]) -> Fraction:
    """The density that a pattern comes to, the nearest that it has to the one that is asked for.

    **Raises:** `ValueError` for a pattern that is none, or that the shape or density doesn't fit.
    """
    fan_out, fan_in = sides(spec, shape)
    if pattern == "unstructured":
        return Fraction(_nearest(density, fan_out * fan_in), fan_out * fan_in)
    if pattern == "balanced":
        return Fraction(_nearest(density, fan_in), fan_in)
    first, sign, second = _parsed(pattern)
    if sign == ":":
        if first > second or fan_in % second:
            raise ValueError(
                f"pattern {pattern!r} keeps {first} of each {second} inputs, and the fan-in is "
                f"{fan_in}; expected no more than there are, and a divisor of the fan-in"
            )
        if density != Fraction(first, second):
            raise ValueError(
                f"pattern {pattern!r} has a density of {Fraction(first, second)}; expected that "
                f"as density, found {density}"
            )
        return density
    if fan_out % first or fan_in % second:
        raise ValueError(
            f"pattern {pattern!r} has blocks of {first} outputs by {second} inputs, and the fans "
            f"are {fan_out} by {fan_in}; expected divisors of these"
        )
    blocks = fan_out // first * (fan_in // second)
    return Fraction(_nearest(density, blocks), blocks)


def drawn(
    key: PRNGKeyArray, pattern: str, density: Fraction, spec: WeightSpec, shape: tuple[int, ...]
) -> Bool[Array, "..."]:
    """A mask of that shape; each of several stacked weights has one of its own.

    **Arguments:**

    - `density`: as `keeps` has returned it.
    """
    fan_out, fan_in = sides(spec, shape)
    stack = shape[: len(spec.stack_axes(len(shape)))]
    matrices = _matrices(key, math.prod(stack), pattern, density, fan_out, fan_in)
    return _as_weight(matrices, spec, shape)


def sides(spec: WeightSpec, shape: tuple[int, ...]) -> tuple[int, int]:
    """Fan-out and fan-in."""
    return (
        math.prod(shape[axis] for axis in spec.fan_out),
        math.prod(shape[axis] for axis in spec.fan_in),
    )


# Compiled once for each shape: one operation after another takes twice as long.
@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4, 5), inline=True)
def _matrices(
    key: PRNGKeyArray, count: int, pattern: str, density: Fraction, fan_out: int, fan_in: int
) -> Bool[Array, "count out in"]:
    keys = jax.random.split(key, count)
    return jax.vmap(lambda key: _matrix(key, pattern, density, fan_out, fan_in))(keys)


def _matrix(
    key: PRNGKeyArray, pattern: str, density: Fraction, fan_out: int, fan_in: int
) -> Bool[Array, "out in"]:
    if pattern == "unstructured":
        return _some(key, (fan_out * fan_in,), density).reshape(fan_out, fan_in)
    if pattern == "balanced":
        return _some(key, (fan_out, fan_in), density)
    first, sign, second = _parsed(pattern)
    if sign == ":":
        groups = _some(key, (fan_out, fan_in // second, second), density)
        return groups.reshape(fan_out, fan_in)
    blocks = (fan_out // first, fan_in // second)
    kept = _some(key, (math.prod(blocks),), density).reshape(blocks)
    return jnp.repeat(jnp.repeat(kept, first, axis=0), second, axis=1)


def _some(key: PRNGKeyArray, shape: tuple[int, ...], density: Fraction) -> Bool[Array, "..."]:
    """As many of the last axis, everywhere at other places: those with the smallest numbers."""
    count = int(density * shape[-1])
    # One sort of plain numbers: a permutation takes eight times as long on the CPU.
    numbers = jax.random.bits(key, shape)
    largest = jnp.sort(numbers, axis=-1)[..., count - 1 : count]
    below, equal = numbers < largest, numbers == largest
    missing = count - jnp.sum(below, axis=-1, keepdims=True)
    return below | (equal & (jnp.cumsum(equal, axis=-1) <= missing))


def _as_weight(
    matrices: Bool[Array, "stack out in"], spec: WeightSpec, shape: tuple[int, ...]
) -> Bool[Array, "..."]:
    stack = len(spec.stack_axes(len(shape)))
    # As the axes of both fans stand in the weight.
    order = [*range(stack), *(axis + len(shape) for axis in (*spec.fan_out, *spec.fan_in))]
    apart = matrices.reshape([shape[axis] for axis in order])
    return apart.transpose(sorted(range(len(shape)), key=order.__getitem__))


def _nearest(density: Fraction, count: int) -> int:
    """How many of them, and one at least."""
    return max(round(density * count), 1)


def _parsed(pattern: str) -> tuple[int, str, int]:
    found = re.fullmatch(r"([1-9]\d*)([x:])([1-9]\d*)", pattern)
    if found is None:
        raise ValueError(f"pattern is {pattern!r}; expected {PATTERNS}")
    return int(found[1]), found[2], int(found[3])
