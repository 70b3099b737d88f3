"""A program run with its weights' statistics on the way back.

Each weight comes with *slots*, zeros that no result depends on. Where an equation uses the weight,
the slots' cotangents are defined to be its statistics: they are computed in the backward pass,
where what they are made of is at hand, also inside of a scan, and what JAX does with cotangents
carries them back through whatever stands between the weight and its use.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.extend.core import Literal
from jaxtyping import Array

from .._jaxprs import parameters, run_equation
from ._backward import Units, of_copies, statistics_of
from ._equations import Use
from ._follow import Origin, Path, inner, is_structural
from ._sums import POWERS


class Slots(NamedTuple):
    """Of a piece of a weight: zeros by statistic, and where it has a gradient (`None`: everywhere).

    The norms' is by example, or by token; the others have the piece's shape.
    """

    zeros: dict[str, Array]
    keep: Array | None = None


class Taps(NamedTuple):
    """Where statistics are taken.

    - `uses`: by equation.
    - `copies`: where a weight comes in of which each example gets a copy.
    - `witness`: a number of the example's own, so that what meets it is mapped over.
    """

    uses: Mapping[Path, Use]
    copies: frozenset[Origin]
    units: Units
    witness: Array


def run(
    taps: Taps,
    jaxpr: Any,
    operands: Sequence[Any],
    slots: Sequence[Slots | None],
    path: Path = (),
    constants: Sequence[Any] = (),
) -> tuple[list[Any], list[Slots | None]]:
    """The results of one example's program, and the slots of those that are weights.

    **Arguments:**

    - `slots`: of each operand that is a weight.
    - `path`: of the equation that holds the program.
    - `constants`: of the program.
    """
    values = dict(zip(jaxpr.constvars, constants, strict=True))
    pieces: dict[Any, Slots | None] = {}
    for position, variable in enumerate(jaxpr.invars):
        value, own = operands[position], slots[position]
        if own is not None and (path, position) in taps.copies:
            value, own = _copied(taps, value, own), None
        values[variable], pieces[variable] = value, own

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    def slots_of(variable: Any) -> Slots | None:
        return None if isinstance(variable, Literal) else pieces.get(variable)

    for number, equation in enumerate(jaxpr.eqns):
        inputs = [read(variable) for variable in equation.invars]
        own = [slots_of(variable) for variable in equation.invars]
        results, moved = _ran(taps, jaxpr, equation, inputs, own, (*path, number))
        values.update(zip(equation.outvars, results, strict=True))
        pieces.update(zip(equation.outvars, moved, strict=True))
    ends = jaxpr.outvars
    return [read(variable) for variable in ends], [slots_of(variable) for variable in ends]


Ran = tuple[list[Any], list[Slots | None]]


def _ran(
    taps: Taps, jaxpr: Any, equation: Any, inputs: list[Any], own: list[Any], path: Path
) -> Ran:
    pieces = [i for i, one in enumerate(own) if one is not None]
    nothing: list[Slots | None] = [None] * len(equation.outvars)
    if pieces and path in taps.uses:
        use = taps.uses[path]
        return [_used(taps, use, inputs, own[use.position])], nothing
    if pieces and (program := inner(equation)) is not None:
        return _inner(taps, equation, program, inputs, own, path)
    if pieces and (scan := parameters.scan(equation)) is not None:
        return _scanned(taps, scan, inputs, own, path), nothing
    results = run_equation(equation, jaxpr, inputs)
    if len(pieces) == 1 and is_structural(equation, pieces[0]):
        return results, [_moved(equation, inputs, pieces[0], own[pieces[0]])]
    return results, nothing


def _used(taps: Taps, use: Use, inputs: list[Any], slots: Slots) -> Array:
    """The result of a use, whose way back fills the slots."""
    position = use.position
    others = [x for i, x in enumerate(inputs) if i != position]

    def of_all(others: Any, weight: Array, zeros: Any, keep: Any, witness: Any) -> Array:
        return use.of_all(others, weight)

    def back(kept: Any, cotangent: Array) -> Any:
        others, weight, keep, zeros = kept
        of_others, of_weight = jax.vjp(use.of_all, others, weight)[1](cotangent)
        found = statistics_of(use, others, cotangent, keep, tuple(zeros), taps.units)
        return of_others, of_weight, _like(found, zeros), None, None

    def of_one(others: Any, weight: Array, *_: Any) -> Array:
        return use.of_one(others, weight)

    return _batched(of_one, of_all, back)(others, inputs[position], slots, taps.witness)


def _copied(taps: Taps, weight: Array, slots: Slots) -> Array:
    """A weight of which each example has a copy, so that the cotangents are by example."""

    def of_all(others: Any, weight: Array, zeros: Any, keep: Any, witness: Array) -> Array:
        return jnp.broadcast_to(weight, (witness.shape[0], *weight.shape))

    def back(kept: Any, cotangent: Array) -> Any:
        _, _, keep, zeros = kept
        found = of_copies(cotangent, keep, tuple(zeros), taps.units)
        return [], jnp.sum(cotangent, axis=0), _like(found, zeros), None, None

    def of_one(others: Any, weight: Array, *_: Any) -> Array:
        return weight

    return _batched(of_one, of_all, back)([], weight, slots, taps.witness)


def _like(found: dict[str, Array], zeros: dict[str, Array]) -> dict[str, Array]:
    return {name: found[name].astype(x.dtype) for name, x in zeros.items()}


def _batched(of_one: Any, of_all: Any, back: Any) -> Callable[..., Array]:
    """`of_one`, which is `of_all` with `back` as its way back once it is mapped over examples."""
    of_all = jax.custom_vjp(of_all)

    def forward(others: Any, weight: Array, zeros: Any, keep: Any, witness: Array) -> Any:
        return of_all(others, weight, zeros, keep, witness), (others, weight, keep, zeros)

    of_all.defvjp(forward, back)
    one = custom_vmap(of_one)

    @one.def_vmap
    def rule(size: int, mapped: Any, *operands: Any) -> tuple[Array, bool]:
        others, *rest = operands
        others = jax.tree.map(
            lambda x, is_mapped: x if is_mapped else jnp.broadcast_to(x, (size, *jnp.shape(x))),
            others,
            mapped[0],
        )
        return of_all(others, *rest), True

    def call(others: Any, weight: Array, slots: Slots, witness: Array) -> Array:
        return one(others, weight, slots.zeros, slots.keep, witness)

    return call


def _moved(equation: Any, inputs: list[Any], position: int, slots: Slots) -> Slots:
    """The slots of what is made from a piece, entry by entry."""
    name = equation.primitive.name
    if name in ("add", "sub", "convert_element_type"):
        return slots
    if name in ("mul", "div", "neg"):
        factor = -1.0 if name == "neg" else inputs[1 - position]
        return slots._replace(zeros=_scaled(name, slots.zeros, factor))
    if name == "select_n":
        return _selected(inputs[0], position, inputs[position].shape, slots)

    def move(x: Array) -> Array:
        return equation.primitive.bind(x, **equation.params)

    zeros = {k: x if k == "norm" else move(x) for k, x in slots.zeros.items()}
    return Slots(zeros, None if slots.keep is None else move(slots.keep))


def _scaled(name: str, zeros: dict[str, Array], factor: Any) -> dict[str, Array]:
    """What is a function of the gradient takes the same function of a factor."""

    def scaled(statistic: str, x: Array) -> Array:
        function = POWERS["square" if statistic == "norm" else statistic]
        by = function(jnp.asarray(factor, x.dtype))
        return x / by if name == "div" else x * by

    return {statistic: scaled(statistic, x) for statistic, x in zeros.items()}


def _selected(predicate: Any, position: int, shape: tuple[int, ...], slots: Slots) -> Slots:
    """Where another value stands in the weight's place it has no gradient."""
    kept = jnp.broadcast_to(jnp.asarray(predicate) == (position == 2), shape)
    zeros = {
        k: x if k == "norm" else jnp.where(kept, x, jnp.zeros((), x.dtype))
        for k, x in slots.zeros.items()
    }
    return Slots(zeros, kept if slots.keep is None else kept & slots.keep)


def _inner(
    taps: Taps, equation: Any, program: Any, inputs: list[Any], own: list[Any], path: Path
) -> Ran:
    def call(inputs: list[Any]) -> Ran:
        return run(taps, program, inputs, own, path)

    if equation.primitive.name in ("remat2", "checkpoint"):
        params = equation.params
        call = jax.checkpoint(call, policy=params["policy"], prevent_cse=params["prevent_cse"])
    return call(inputs)


def _scanned(
    taps: Taps, scan: parameters.Scan, inputs: list[Any], own: list[Any], path: Path
) -> list[Any]:
    """A scan whose turns hand the slots of stacked weights on, a layer's at a time."""
    body, _ = parameters.parts(scan.body)
    start = scan.constants + scan.carries
    carry = [
        jnp.asarray(x, variable.aval.dtype)
        for x, variable in zip(
            inputs[scan.constants : start], body.invars[scan.constants : start], strict=True
        )
    ]
    # Of norms all turns share one slot: their cotangents add up.
    norms = [None if one is None else one.zeros.get("norm") for one in own[start:]]
    stacked = [None if one is None else _without_norm(one) for one in own[start:]]

    def turn(carry: list[Any], xs: Any) -> tuple[list[Any], list[Any]]:
        values, layers = xs
        slots = [
            one if one is None or norm is None else one._replace(zeros={**one.zeros, "norm": norm})
            for one, norm in zip(layers, norms, strict=True)
        ]
        operands = [*inputs[: scan.constants], *carry, *values]
        before = [*own[: scan.constants], *(None for _ in carry)]
        results, _ = run(taps, body, operands, [*before, *slots], path)
        return results[: len(carry)], results[len(carry) :]

    carry, results = jax.lax.scan(
        turn,
        carry,
        (inputs[start:], stacked),
        length=scan.length,
        reverse=scan.reverse,
        unroll=scan.unroll,
    )
    return [*carry, *results]


def _without_norm(slots: Slots) -> Slots:
    return slots._replace(zeros={k: x for k, x in slots.zeros.items() if k != "norm"})
