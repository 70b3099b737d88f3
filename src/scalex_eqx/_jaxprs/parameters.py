"""The one place that reads the parameters of JAX's equations.

They are no public interface of JAX, and other releases have others. What can't be read is `None`
here, and not followed elsewhere; nothing is raised.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from jax.extend.core import ClosedJaxpr, Jaxpr

_Read = TypeVar("_Read")


class Scan(NamedTuple):
    """A scan: its body, how many of the operands are constants and carries, and how it turns."""

    body: Any
    constants: int
    carries: int
    length: int
    reverse: bool
    unroll: int


class Loop(NamedTuple):
    """A `while`: its condition and body, and how many operands are constants of each, in front."""

    condition: Any
    body: Any
    condition_constants: int
    body_constants: int


class Product(NamedTuple):
    """A `dot_general`: the axes of both operands that are summed over, and those in common."""

    summed: tuple[tuple[int, ...], tuple[int, ...]]
    batch: tuple[tuple[int, ...], tuple[int, ...]]


class Convolution(NamedTuple):
    """A convolution: where its kernel has what it puts out, what it sums over, and the result's
    axis of what is put out."""

    out: int
    summed: tuple[int, ...]
    place: int


class Gather(NamedTuple):
    """A `gather`, or a `dynamic_slice` as one.

    - `sizes`: of the slice that is taken, along the operand's axes.
    - `places`: for each of the operand's axes the result's axis that runs along the slice, `None`
        where it is dropped.
    - `batch`: pairs of axes, of operand and result, that run along with each other.
    """

    sizes: tuple[int, ...]
    places: tuple[int | None, ...]
    batch: tuple[tuple[int, int], ...] = ()


class Ragged(NamedTuple):
    """A `ragged_dot_general` whose right operand has a matrix for each group of rows.

    - `group`, `summed`: of the right operand's axes the one that numbers the groups, and those
        that are summed over.
    - `simple`: whether it has no batch axes, and the left operand's first axis is in groups.
    """

    group: int
    summed: tuple[int, ...]
    simple: bool


def _read(reader: Callable[..., _Read]) -> Callable[..., _Read | None]:
    """`None` where the parameters are others than the reader knows."""

    @functools.wraps(reader)
    def read(*arguments: Any) -> _Read | None:
        try:
            return reader(*arguments)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            return None

    return read


def parts(program: Any) -> tuple[Any, Sequence[Any]]:
    """A program without its constants, and those: closed or not, in one object or in two."""
    closed = isinstance(program, ClosedJaxpr)
    return (program.jaxpr, program.consts) if closed else (program, ())


def is_way_back(equation: Any) -> bool:
    """Whether it is one of a derivative's way back, such as `jax.vjp` makes within a program.

    It multiplies with the same arrays as on the way forward, the other way round.
    """
    return "transpose(" in str(getattr(equation.source_info, "name_stack", ""))


# Equations that only wrap a program, by the parameter that holds it.
_WRAPPERS = {
    **dict.fromkeys(("jit", "pjit", "remat2", "checkpoint"), "jaxpr"),
    **dict.fromkeys(("closed_call", "core_call", "custom_jvp_call"), "call_jaxpr"),
    **dict.fromkeys(("custom_vjp_call", "custom_vjp_call_jaxpr"), "call_jaxpr"),
    "custom_vmap_call": "call",
}


@_read
def wrapped(equation: Any) -> Any:
    """The program that an equation only wraps; `None` for any other equation."""
    program = equation.params[_WRAPPERS[equation.primitive.name]]
    same = len(parts(program)[0].invars) == len(equation.invars)
    return program if same else None


@_read
def only_program(equation: Any) -> Any:
    """The one program that an unknown equation holds, if its operands are the equation's."""
    [program] = [
        value for value in equation.params.values() if isinstance(value, ClosedJaxpr | Jaxpr)
    ]
    inner = parts(program)[0]
    same = len(inner.invars) == len(equation.invars)
    return program if same and len(inner.outvars) == len(equation.outvars) else None


@_read
def scan(equation: Any) -> Scan:
    """The scan that an equation is."""
    params = equation.params
    if "ft_in" in params:  # From JAX 0.11 on.
        constants, carries, _ = map(len, params["ft_in"].unpack())
    else:
        constants, carries = params["num_consts"], params["num_carry"]
    found = Scan(
        params["jaxpr"],
        int(constants),
        int(carries),
        int(params["length"]),
        bool(params["reverse"]),
        params["unroll"],
    )
    jaxpr = parts(found.body)[0]
    if len(jaxpr.invars) != len(equation.invars) or len(jaxpr.outvars) != len(equation.outvars):
        raise ValueError("its body has other operands than the equation")
    return found


@_read
def loop(equation: Any) -> Loop:
    """The `while` that an equation is."""
    params = equation.params
    return Loop(
        params["cond_jaxpr"],
        params["body_jaxpr"],
        int(params["cond_nconsts"]),
        int(params["body_nconsts"]),
    )


@_read
def branches(equation: Any) -> tuple[Any, ...]:
    """The programs of which a `cond` runs one; its first operand says which."""
    return tuple(equation.params["branches"])


@_read
def product(equation: Any) -> Product:
    """The `dot_general` that an equation is."""
    summed, batch = equation.params["dimension_numbers"]
    return Product((_axes(summed[0]), _axes(summed[1])), (_axes(batch[0]), _axes(batch[1])))


@_read
def convolution(equation: Any) -> Convolution:
    """The convolution that an equation is."""
    numbers = equation.params["dimension_numbers"]
    out, *summed = numbers.rhs_spec
    return Convolution(int(out), _axes(summed), int(numbers.out_spec[1]))


@_read
def ragged(equation: Any) -> Ragged:
    """The `ragged_dot_general` that an equation is; `None` for other kinds of it."""
    numbers = equation.params["ragged_dot_dimension_numbers"]
    (left, right), (_, batch) = numbers.dot_dimension_numbers
    [group] = numbers.rhs_group_dimensions
    [rows] = numbers.lhs_ragged_dimensions
    if rows in left:
        raise ValueError("what is in groups is summed over")
    return Ragged(int(group), _axes(right), int(rows) == 0 and not batch)


@_read
def gather(equation: Any) -> Gather:
    """The selection that a `gather` or a `dynamic_slice` makes."""
    sizes = _axes(equation.params["slice_sizes"])
    if equation.primitive.name == "dynamic_slice":
        return Gather(sizes, tuple(range(len(sizes))))
    numbers = equation.params["dimension_numbers"]
    paired = _axes(numbers.operand_batching_dims)
    dropped = {*_axes(numbers.collapsed_slice_dims), *paired}
    offsets = iter(_axes(numbers.offset_dims))
    places = tuple(None if axis in dropped else next(offsets) for axis in range(len(sizes)))
    # The result's other axes are those of the indices but for their last, in order.
    own = [i for i in range(len(equation.outvars[0].aval.shape)) if i not in places]
    indices = _axes(numbers.start_indices_batching_dims)
    return Gather(sizes, places, tuple((w, own[i]) for w, i in zip(paired, indices, strict=True)))


_GONE = {"squeeze": "dimensions"}


@_read
def moved_axes(equation: Any) -> tuple[int | None, ...]:
    """Where an operand's axes stand in the result; `None` for one that is gone."""
    name, params = equation.primitive.name, equation.params
    before = range(len(equation.invars[0].aval.shape))
    if name == "transpose":
        order = _axes(params["permutation"])
        return tuple(order.index(axis) for axis in before)
    if name == "broadcast_in_dim":
        return _axes(params["broadcast_dimensions"])
    if name == "rev":
        return tuple(before)
    if name == "tile":
        return tuple(axis if reps == 1 else None for axis, reps in enumerate(params["reps"]))
    if name == "stack":
        return tuple(axis + (axis >= params["axis"]) for axis in before)
    gone = _axes([params["axis"]] if name == "unstack" else params[_GONE.get(name, "axes")])
    left = [axis for axis in before if axis not in gone]
    return tuple(left.index(axis) if axis in left else None for axis in before)


@_read
def shifted_axes(equation: Any) -> tuple[int, ...]:
    """The axes along which a `rev` or a `pad` puts entries elsewhere; none for other equations."""
    name, params = equation.primitive.name, equation.params
    if name == "rev":
        return _axes(params["dimensions"])
    config = params["padding_config"] if name == "pad" else ()
    return tuple(axis for axis, padding in enumerate(config) if any(padding))


@_read
def reduced_axes(equation: Any) -> tuple[int, ...]:
    """The axes along which a reduction, or a cumulative one, runs."""
    params = equation.params
    return _axes(params["axes"] if "axes" in params else [params["axis"]])


@_read
def cuts(equation: Any) -> tuple[tuple[int, tuple[tuple[int, int], ...]], ...]:
    """The axes that a `slice` or a `split` cuts, each with where its parts start and stop."""
    params, shape = equation.params, equation.invars[0].aval.shape
    if equation.primitive.name == "split":
        ends = list(itertools.accumulate(_axes(params["sizes"])))
        return ((int(params["axis"]), tuple(zip([0, *ends[:-1]], ends, strict=True))),)
    if params["strides"] is not None and set(params["strides"]) != {1}:
        return ()
    limits = zip(_axes(params["start_indices"]), _axes(params["limit_indices"]), strict=True)
    return tuple(
        (axis, ((start, stop),))
        for axis, (start, stop) in enumerate(limits)
        if stop - start != shape[axis]
    )


@_read
def joined_axis(equation: Any) -> int:
    """The axis along which a `concatenate` or a `stack` joins its operands."""
    is_stack = equation.primitive.name == "stack"
    return int(equation.params["axis" if is_stack else "dimension"])


def _axes(axes: Sequence[Any]) -> tuple[int, ...]:
    # JAX has NumPy's integers in some places.
    return tuple(int(axis) for axis in axes)
