"""What a user's function does with a model's arrays, traced at two widths for shapes."""

import contextlib
import dataclasses
import gc
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jax.errors import JAXIndexError, JAXTypeError, UnexpectedTracerError
from jaxtyping import PyTree

from .._pages import Section, see
from .._user_code import user_line
from .._weight import is_array
from ._follow import Differs, follow
from ._record import Record
from ._value import DATA, NUMBER, Piece, Use, Value, bits

Path = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Followed:
    """What a function does with the arrays of a model.

    **Arguments:**

    - `numbers`: of the arrays, by path.
    - `uses`: for each of them.
    - `into`: for each sum over the width, as the bit of the array that is summed over or `OTHER`,
        the arrays that go on to it with no such sum between.
    - `objective`: what is known of the function's results together.
    - `record`: all that was written down.
    """

    numbers: Mapping[Path, int]
    uses: tuple[tuple[Use, ...], ...]
    into: Mapping[int, int]
    objective: Value
    record: Record

    def reached(self, array: int) -> int:
        """The sums over the width that an array, as its bit, goes on to, with none between."""
        found = 0
        for end, starts in self.into.items():
            found |= end if starts & array else 0
        return found


def trace(
    use: Callable[[PyTree], Any],
    models: tuple[PyTree, PyTree],
    paths: Collection[Path],
) -> Followed:
    """Follows the arrays at `paths` through `use(model)`.

    **Arguments:**

    - `use`: what the training does with a model: a loss, `(loss, aux)`, or a forward pass.
    - `models`: at the base and at the probe width; arrays or shapes.
    - `paths`: of the arrays.

    **Raises:** `ValueError` if `use` can't be traced, or its programs at both widths differ.
    """
    if not callable(use):
        raise ValueError(
            f"use is a {type(use).__name__}; expected a function of the model, such as "
            f"lambda model: loss(model, batch){see(Section.use)}"
        )
    (base, found), (probe, _) = (_program(use, model) for model in models)
    numbers = {path: number for number, path in enumerate(found) if path in paths}
    order = {path: i for i, path in enumerate(numbers)}
    record = Record()
    operands = [_argument(order.get(path), leaf) for path, leaf in found.items()]
    try:
        results = follow(record, (base, probe), operands)
    except Differs as error:
        where = f" at {error}" if str(error) else ""
        raise ValueError(
            "use runs other operations at the base width than at the probe width"
            f"{where}, so that what grows can't be followed: make it the same program at both, "
            "choose another probe_width, or say the roles and layouts instead"
            f"{see(Section.use)}"
        ) from None
    for result in results:
        record.commit(result)
    objective = _all_of(results)
    return Followed(
        order,
        _by_array(record.uses, len(order), objective.sites),
        record.into,
        objective,
        record,
    )


def _argument(number: int | None, leaf: Any) -> Value:
    if number is None:
        # Truth values that a model keeps are a mask, with which a weight is what it was.
        return NUMBER if jnp.issubdtype(leaf.dtype, jnp.bool_) else DATA
    array = bits([number])
    axes = tuple(frozenset({axis}) for axis in range(len(leaf.shape)))
    own = frozenset(axis for axis, size in enumerate(leaf.shape) if size > 1)
    return Value((Piece(number, axes, own),), touched=array, trained=array, scales=array)


def _program(use: Callable[[PyTree], Any], model: PyTree) -> tuple[Any, dict[Path, Any]]:
    """The program of `use`, and the leaves that are its arguments, by path."""
    leaves, structure = jtu.tree_flatten_with_path(model)
    dynamic = {path: leaf for path, leaf in leaves if is_array(leaf) or _is_shape(leaf)}

    def run(*arrays: Any) -> list[Any]:
        given = dict(zip(dynamic, arrays, strict=True))
        filled = [given.get(path, leaf) for path, leaf in leaves]
        return _objective(use(jtu.tree_unflatten(structure, filled)))

    arguments = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in dynamic.values()]
    with _told(), _without_searches():
        return jax.make_jaxpr(run)(*arguments), dynamic


def _objective(result: Any) -> list[Any]:
    """The loss that is differentiated, or all that a forward pass returns."""
    if isinstance(result, tuple) and result and _is_scalar(result[0]):
        result = result[0]
    found = [x for x in jtu.tree_leaves(result) if eqx.is_inexact_array(x)]
    if not found:
        raise ValueError(
            "use returns no floating-point array; expected a loss, (loss, aux), or what a forward "
            f"pass puts out{see(Section.use)}"
        )
    return found


def _is_scalar(x: Any) -> bool:
    return eqx.is_inexact_array(x) and x.shape == ()


def _is_shape(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Says of an error that JAX raises in `use` where it is and what helps."""
    remedy = (
        "or leave use out and say roles and layouts of the arrays that parameterize asks about"
        f"{see(Section.use)}"
    )
    try:
        yield
    except UnexpectedTracerError as error:
        raise ValueError(
            f"use takes an array that was made while another function was traced{user_line(error)}"
            f"\nGive it the arrays of the model that it is called with, {remedy}"
        ) from error
    except (JAXTypeError, JAXIndexError) as error:
        raise ValueError(
            f"use asks for the values of an array of which only the shape is known"
            f"{user_line(error)}\nIt is traced for shapes: compute with jax.numpy and choose with "
            f"jax.lax.cond or jax.numpy.where, {remedy}"
        ) from error


@contextlib.contextmanager
def _without_searches() -> Iterator[None]:
    """Without searches for garbage, which takes a third of the time of a long trace."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _by_array(uses: list[Use], count: int, sites: int) -> tuple[tuple[Use, ...], ...]:
    """The uses of each array, without those that no derivative reaches unless there are only such.

    A choice by the nearest of several rows is one: the rows are looked up, and summed over to be
    compared.
    """
    every: list[dict[Use, None]] = [{} for _ in range(count)]
    for one in uses:
        every[one.array][one] = None
    return tuple(
        tuple(use for use in found if not use.site or use.site & sites) or tuple(found)
        for found in every
    )


def _all_of(results: list[Value]) -> Value:
    touched = trained = direct = past = sites = 0
    for value in results:
        touched |= value.touched
        trained |= value.trained
        direct |= value.direct
        past |= value.past
        sites |= value.sites
    return Value((), True, touched, trained, direct, past, sites=sites)
