"""Statistics by the one backward pass that gives the batch's gradient."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..ops._wide import wide, wide_dtype
from ._backward import Units, way_of
from ._follow import Followed, Kind, Piece, follow
from ._run import Slots, Taps, run


class Program(NamedTuple):
    """The loss of one example as a program, and what it does with each parameter.

    - `jaxpr`, `constants`: of the flat parameters and the flat example.
    - `shapes`: of the parameters.
    """

    jaxpr: Any
    constants: Sequence[Any]
    shapes: Sequence[Any]
    found: Followed

    @property
    def result(self) -> Any:
        """The shape of one example's loss."""
        return self.jaxpr.outvars[0].aval


def traced(
    loss: Callable[[list[Any], list[Any]], Array],
    params: Sequence[Any],
    example: Sequence[Any],
    *,
    tokens: int,
) -> Program:
    """The program of one example's loss, followed.

    **Arguments:**

    - `example`: shapes of its arrays.
    - `tokens`: as in `Followed`.
    """
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in params]
    closed = jax.make_jaxpr(loss)(shapes, list(example))
    found = Followed(tokens)
    from_weights = [Piece(i, ((), i)) for i in range(len(shapes))]
    ends = follow(found, closed.jaxpr, [*from_weights, *(Kind.data for _ in example)])
    found.lose(ends, "the loss itself")
    return Program(closed.jaxpr, closed.consts, shapes, found)


class Plan(NamedTuple):
    """By parameter: those with slots, those with a copy for each example, and the others."""

    tapped: frozenset[int]
    copied: frozenset[int]
    left: frozenset[int]


def planned(program: Program, count: int, memory: int) -> Plan:
    """Which way is taken for each parameter.

    What is lost to the surgery gets copies, the smallest first, while all copies and their
    cotangents together stay within `memory`.
    """
    lost = sorted(program.found.lost, key=lambda i: math.prod(program.shapes[i].shape))
    copied, used = set[int](), 0
    for i in lost:
        shape = program.shapes[i]
        used += 2 * count * math.prod(shape.shape) * shape.dtype.itemsize
        if used > memory:
            break
        copied.add(i)
    every = frozenset(range(len(program.shapes)))
    left = frozenset(lost) - copied
    return Plan(every - left - copied, frozenset(copied), left)


def ways(program: Program, plan: Plan, statistics: Sequence[str], units: Units) -> list[str]:
    """The name of the way of each parameter."""
    found = ["vmap" if i not in plan.tapped else "surgery" for i in range(len(program.shapes))]
    if not {"square", "sign", "fourth"} & set(statistics):
        for piece, use in program.found.uses.values():
            if piece.weight in plan.tapped:
                found[piece.weight] = way_of(use, units)
    return found


def surgery(
    program: Program,
    plan: Plan,
    params: Sequence[Array],
    examples: Sequence[Array],
    statistics: Sequence[str],
    units: Units,
    factors_of: Callable[[list[Any]], Array] | None,
) -> dict[str, Any]:
    """Sums over all units: lists with an entry for each parameter, `None` for those left.

    **Arguments:**

    - `factors_of`: each unit's factor in `clipped`, from the squared norms of all parameters.
    """
    count = examples[0].shape[0]
    wanted = without_clipped(statistics)
    tapped = [i not in plan.left for i in range(len(params))]
    zeros = [
        _zeros(x, wanted, count, units) if is_tapped else {}
        for x, is_tapped in zip(params, tapped, strict=True)
    ]
    losses, back = jax.vjp(
        lambda params, zeros: _mapped(program, plan, params, zeros, examples, units), params, zeros
    )
    seed = jnp.full(losses.shape, 1 / units.size, losses.dtype)
    gradient, found = back(seed)
    sums: dict[str, Any] = {"loss": jnp.sum(wide(losses)) / units.size, "gradient": gradient}
    for name in wanted:
        sums[name] = [one.get(name) for one in found]
    if "norm" in sums:
        sums["norm"] = [None if x is None else _by_unit(x, units) for x in sums["norm"]]
    if factors_of is not None:
        factors = factors_of(sums["norm"])
        each = jnp.repeat(factors, units.size) if units.size > 1 else factors
        sums["clipped"] = back(seed * each.astype(seed.dtype))[0]
    return sums


def without_clipped(statistics: Sequence[str]) -> list[str]:
    """What the first pass computes: what is clipped needs norms."""
    found = [name for name in statistics if name not in ("norm", "clipped")]
    return [*found, "norm"] if {"norm", "clipped"} & set(statistics) else found


def _zeros(x: Array, wanted: Sequence[str], count: int, units: Units) -> dict[str, Array]:
    dtype = wide_dtype(x.dtype)
    by_unit = (count, units.tokens) if units.tokens else (count,)
    return {name: jnp.zeros(by_unit if name == "norm" else x.shape, dtype) for name in wanted}


def _by_unit(norms: Array, units: Units) -> Array:
    return norms if units.tokens else jnp.sum(norms.reshape(-1, units.size), axis=1)


def _mapped(
    program: Program,
    plan: Plan,
    params: Sequence[Array],
    zeros: Sequence[dict[str, Array]],
    examples: Sequence[Array],
    units: Units,
) -> Array:
    """The losses of all examples."""
    uses = {path: use for path, (_, use) in program.found.uses.items()}
    origins = (program.found.origin(i) for i in plan.copied)
    copies = frozenset(origin for origin in origins if origin is not None)

    def of_one(zeros: Any, witness: Array, examples: Any) -> Array:
        taps = Taps(uses, copies, units, witness)
        slots = [Slots(one) if one else None for one in zeros]
        operands = [*params, *examples]
        nothing = [None for _ in examples]
        results, _ = run(taps, program.jaxpr, operands, [*slots, *nothing], (), program.constants)
        return results[0]

    axes = [{name: 0 if name == "norm" else None for name in one} for one in zeros]
    witness = jnp.zeros(examples[0].shape[0])
    return jax.vmap(of_one, in_axes=(axes, 0, 0))(zeros, witness, list(examples))
