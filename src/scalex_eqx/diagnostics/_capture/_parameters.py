"""The one place that reads the parameters of JAX's equations.

They are no public interface of JAX, and other releases have others. What can't be read is `None`
here, and not followed elsewhere; nothing is raised.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from jax.extend.core import ClosedJaxpr

_Read = TypeVar("_Read")


class Scan(NamedTuple):
    """A scan: its body, how many of the operands are constants and carries, and how it turns."""

    body: Any
    constants: int
    carries: int
    length: int
    reverse: bool
    unroll: int


class Product(NamedTuple):
    """A `dot_general`: the axes of both operands that are summed over, and those in common."""

    summed: tuple[tuple[int, ...], tuple[int, ...]]
    batch: tuple[tuple[int, ...], tuple[int, ...]]


class Convolution(NamedTuple):
    """A convolution: where its kernel has what it puts out, and what it sums over."""

    out: int
    summed: tuple[int, ...]


class Gather(NamedTuple):
    """A `gather` or `dynamic_slice` as a `gather`.

    - `sizes`: of the slice that is taken, along the operand's axes.
    - `places`: for each of the operand's axes the result's axis that runs along the slice, `None`
        where it is dropped.
    - `batch`: pairs of axes, of operand and result, that run along with each other.
    """

    sizes: tuple[int, ...]
    places: tuple[int | None, ...]
    batch: tuple[tuple[int, int], ...] = ()


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
    out, *summed = equation.params["dimension_numbers"].rhs_spec
    return Convolution(int(out), _axes(summed))


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


@_read
def permutation(equation: Any) -> tuple[int, ...]:
    """The order in which a `transpose` puts the axes."""
    return _axes(equation.params["permutation"])


@_read
def squeezed(equation: Any) -> tuple[int, ...]:
    """The axes that a `squeeze` drops."""
    return _axes(equation.params["dimensions"])


@_read
def broadcast(equation: Any) -> tuple[int, ...]:
    """Where the operand's axes stand in the result of a `broadcast_in_dim`."""
    return _axes(equation.params["broadcast_dimensions"])


def _axes(axes: Sequence[Any]) -> tuple[int, ...]:
    # JAX has NumPy's integers in some places.
    return tuple(int(axis) for axis in axes)
