"""Where a program lets examples of a batch meet: the axis that numbers them, followed."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.core import Tracer
from jax.extend.core import Literal

from .._jaxprs import ELEMENTWISE, axes_behind, parameters
from .._uses._place import place_of


class Shared(NamedTuple):
    """The same for all examples.

    - `uniform`: axes along which all entries are known to be equal.
    - `number`: which it is, if that is known.
    - `is_model`: whether it is made from the model, so that it says nothing of the batch's size.
    """

    uniform: frozenset[int] = frozenset()
    number: float | None = None
    is_model: bool = False


class Along(NamedTuple):
    """Entries for each of so many `examples` along `axis`, made from that example alone.

    There may be several for each, which follow each other, as where positions are joined to it.
    """

    axis: int
    examples: int


class Summed(NamedTuple):
    """Sums over examples, times factors; `more` if something was added that isn't of examples."""

    factors: tuple[float, ...]
    more: bool = False


Value = Shared | Along | Summed


class MixingError(ValueError):
    """An equation in which examples meet."""


_LINEAR = frozenset(
    {
        *("reduce_sum", "convert_element_type", "squeeze", "reshape", "neg", "copy", "copy_p"),
        *("broadcast_in_dim", "transpose"),
    }
)
_ALONG_AXES = frozenset({"sort", "cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"})
_RANDOM = frozenset({"random_bits", "random_wrap", "random_unwrap", "random_seed"})


def follow(jaxpr: Any, values: Sequence[Value], constants: Sequence[Any] = ()) -> list[Value]:
    """What is known of a program's results.

    **Raises:** `MixingError` that names the equation in which examples meet.
    """
    known: dict[Any, Value] = dict(zip(jaxpr.invars, values, strict=True))
    known.update(
        (variable, _constant(value))
        for variable, value in zip(jaxpr.constvars, constants, strict=True)
    )

    def read(variable: Any) -> Value:
        return _constant(variable.val) if isinstance(variable, Literal) else known[variable]

    for equation in jaxpr.eqns:
        operands = [read(variable) for variable in equation.invars]
        known.update(zip(equation.outvars, _results(equation, operands), strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _constant(value: Any) -> Shared:
    shape = np.shape(value)
    if isinstance(value, Tracer) or shape:
        return Shared()
    try:
        return Shared(frozenset(), float(value))
    except (TypeError, ValueError):
        return Shared()


def _results(equation: Any, operands: list[Value]) -> Sequence[Value]:
    name, count = equation.primitive.name, len(equation.outvars)
    if name == "custom_vjp_call" and any(isinstance(v, Along) for v in operands):
        raise _mixes(equation, "its derivative is no part of the program")
    if (program := parameters.wrapped(equation)) is not None:
        inside, constants = parameters.parts(program)
        return follow(inside, operands, constants)
    if all(isinstance(value, Shared) for value in operands):
        return [_shared(equation, operands, i) for i in range(count)]
    if any(isinstance(value, Summed) for value in operands):
        return [_summed(equation, operands)] * count
    if (scan := parameters.scan(equation)) is not None:
        return _scanned(equation, scan, operands)
    if name == "reduce_sum" and isinstance(operands[0], Along):
        axes = parameters.reduced_axes(equation) or ()
        if operands[0].axis in axes:
            return [Summed((1.0,))]
    return [_along(equation, operands, i) for i in range(count)]


def _mixes(equation: Any, why: str) -> MixingError:
    place = place_of(equation)
    return MixingError(f"{equation.primitive.name}{f' at {place}' if place else ''}: {why}")


def _shared(equation: Any, operands: Sequence[Any], output: int) -> Shared:
    """Of what isn't of examples: a result is uniform where all that it is made of is."""
    name, shape = equation.primitive.name, equation.outvars[output].aval.shape
    is_model = any(value.is_model for value in operands)
    if name == "broadcast_in_dim":
        places = parameters.moved_axes(equation) or ()
        before = equation.invars[0].aval.shape
        own = {
            place
            for axis, place in enumerate(places)
            if place is not None and before[axis] != 1 and axis not in operands[0].uniform
        }
        uniform = frozenset(range(len(shape))) - own
        return Shared(uniform, operands[0].number, is_model)
    if name == "iota":
        own = {int(equation.params["dimension"])}
        return Shared(frozenset(range(len(shape))) - own)
    number = operands[0].number if name in ("convert_element_type", "copy") else None
    if name in ELEMENTWISE:
        every = [
            value.uniform
            for value, variable in zip(operands, equation.invars, strict=True)
            if len(variable.aval.shape) == len(shape)
        ]
        return Shared(frozenset(range(len(shape))).intersection(*every), number, is_model)
    return Shared(frozenset(), number, is_model)


def _summed(equation: Any, operands: Sequence[Value]) -> Summed:
    """Only what is linear may be done to sums over examples."""
    name = equation.primitive.name
    sums = [value for value in operands if isinstance(value, Summed)]
    others = [value for value in operands if not isinstance(value, Summed)]
    if any(isinstance(value, Along) for value in others):
        raise _mixes(equation, "a sum over the examples meets each of them")
    if name in ("add", "sub", "add_any"):
        signs = [-1.0 if name == "sub" and i == 1 else 1.0 for i in range(2)]
        factors = [
            sign * factor
            for sign, value in zip(signs, operands, strict=True)
            if isinstance(value, Summed)
            for factor in value.factors
        ]
        more = bool(others) or any(value.more for value in sums)
        return Summed(tuple(factors), more)
    if name in _LINEAR:
        sign = -1.0 if name == "neg" else 1.0
        return Summed(tuple(sign * factor for factor in sums[0].factors), sums[0].more)
    if len(sums) == 1 and (name == "mul" or (name == "div" and operands[0] is sums[0])):
        (other,) = others
        assert isinstance(other, Shared)
        if other.number is None and not other.is_model:
            raise _mixes(equation, "a factor of the sum over the examples that isn't known")
        by = 1.0 if other.number is None else other.number
        by = by if name == "mul" else 1 / by if by else float("inf")
        return Summed(tuple(by * factor for factor in sums[0].factors), sums[0].more)
    raise _mixes(equation, "it is not linear in a sum over the examples")


def _along(equation: Any, operands: Sequence[Value], output: int) -> Value:
    name = equation.primitive.name
    shape = equation.outvars[output].aval.shape
    found: set[int | None] = set()
    for position, value in enumerate(operands):
        if isinstance(value, Along):
            found.add(_axis_behind(equation, position, value, shape))
    (axis,) = found if len(found) == 1 else (None,)
    if axis is None:
        raise _mixes(equation, "examples meet in it")
    for value, variable in zip(operands, equation.invars, strict=True):
        if isinstance(value, Shared) and name in ELEMENTWISE:
            own = variable.aval.shape
            differs = len(own) == len(shape) and own[axis] > 1 and axis not in value.uniform
            if differs:
                raise _mixes(equation, "it takes something else for each place in the batch")
        elif isinstance(value, Shared) and name == "dot_general":
            _check_paired(equation, operands)
    count = next(value.examples for value in operands if isinstance(value, Along))
    return Along(axis, count)


def _check_paired(equation: Any, operands: Sequence[Value]) -> None:
    """Of a product's common axes along the batch: a constant there differs between examples."""
    product = parameters.product(equation)
    assert product is not None
    for one, two in ((0, 1), (1, 0)):
        value, other = operands[one], operands[two]
        if isinstance(value, Along) and isinstance(other, Shared):
            pairs = dict(zip(product.batch[one], product.batch[two], strict=True))
            if value.axis in pairs and pairs[value.axis] not in other.uniform:
                raise _mixes(equation, "it takes something else for each place in the batch")


def _axis_behind(equation: Any, position: int, value: Along, shape: Sequence[int]) -> int | None:
    """Along which axis of a result the examples are, each made from itself; `None` if they mix."""
    name, before = equation.primitive.name, equation.invars[position].aval.shape
    axis = value.axis
    if name == "reshape":
        return _reshaped(value, before, shape)
    if axis in (parameters.shifted_axes(equation) or ()):
        return None
    if name == "gather" and position == 1:
        return _behind_indices(equation, axis)
    if name == "conv_general_dilated":
        numbers = equation.params["dimension_numbers"]
        single = equation.params.get("batch_group_count") == 1
        is_batch = position == 0 and axis == int(numbers.lhs_spec[0])
        return int(numbers.out_spec[0]) if single and is_batch else None
    if name in _ALONG_AXES or name in ("argmax", "argmin"):
        gone = {int(equation.params[k]) for k in ("dimension", "axis") if k in equation.params}
        gone |= {int(one) for one in equation.params.get("axes", ())}
        if axis in gone:
            return None
        return axis - sum(one < axis for one in gone) if name.startswith("arg") else axis
    if name in _RANDOM and len(shape) > axis and shape[axis] == before[axis]:
        return axis
    if name == "concatenate" and parameters.joined_axis(equation) == axis:
        return None
    found = axes_behind(equation, position, [i == axis or None for i in range(len(before))], shape)
    places = [i for i, one in enumerate(found) if one]
    same = len(places) == 1 and shape[places[0]] == before[axis]
    return places[0] if same else None


def _reshaped(value: Along, before: Sequence[int], shape: Sequence[int]) -> int | None:
    """The axis that as many entries stand in front of, if it has as many for each example."""
    lead = math.prod(before[: value.axis])
    for axis, size in enumerate(shape):
        if math.prod(shape[:axis]) == lead and size % value.examples == 0:
            return axis
    return None


def _behind_indices(equation: Any, axis: int) -> int | None:
    gather = parameters.gather(equation)
    if gather is None or axis == len(equation.invars[1].aval.shape) - 1:
        return None
    ndim = len(equation.outvars[0].aval.shape)
    own = [i for i in range(ndim) if i not in gather.places]
    return own[axis]


def _scanned(equation: Any, scan: parameters.Scan, operands: list[Value]) -> list[Value]:
    body, constants = parameters.parts(scan.body)
    start = scan.constants + scan.carries
    inside: list[Value] = []
    for value in operands[start:]:
        if isinstance(value, Along):
            if value.axis == 0:
                raise _mixes(equation, "it goes through the examples one after the other")
            value = Along(value.axis - 1, value.examples)
        elif isinstance(value, Shared):
            value = Shared(frozenset(i - 1 for i in value.uniform if i), None, value.is_model)
        inside.append(value)
    fixed, carry = operands[: scan.constants], operands[scan.constants : start]
    for _ in range(len(carry) + 1):
        results = follow(body, [*fixed, *carry, *inside], constants)
        after = [_met(a, b) for a, b in zip(carry, results[: len(carry)], strict=True)]
        if after == carry:
            break
        carry = after
    else:
        raise _mixes(equation, "examples meet in what it carries")
    ends = [
        Along(v.axis + 1, v.examples) if isinstance(v, Along) else v for v in results[len(carry) :]
    ]
    if any(isinstance(value, Summed) for value in (*carry, *ends)):
        raise _mixes(equation, "it sums over the examples")
    return [*carry, *(Shared() if isinstance(v, Shared) else v for v in ends)]


def _met(before: Value, after: Value) -> Value:
    """What a carry is that is one value at first and another after a turn."""
    if isinstance(before, Shared) and isinstance(after, Shared):
        return Shared(before.uniform & after.uniform, None, before.is_model or after.is_model)
    return after if isinstance(before, Shared) else before
