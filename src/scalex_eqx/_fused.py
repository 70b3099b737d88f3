"""Weights that stand in one array of a module, each with a scaling law of its own."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NoReturn, TypeGuard

import jax
import jax.tree_util as jtu

from ._pages import Section, see


def not_an_array(wanted: str, kind: str = "Weight") -> str:
    """The message where `wanted` was asked of a `Weight` that had to be resolved before."""
    return (
        f"{wanted} of a {kind}: it is no array but carries one, with its scaling law. Apply "
        "`model = scalex_eqx.resolve(model)` inside the loss, before modules that expect plain "
        f"arrays, or use `scalex_eqx.effective(weight)`{see(Section.arithmetic)}"
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Fused:
    r"""Several weights in the place of one array, such as query, key and value of one projection.

    $$W = \begin{pmatrix} r_1^{-a} w_1 \\ r_2^{-a} w_2 \\ \vdots \end{pmatrix}$$

    [`scalex_eqx.parameterize`][] makes it where `parts` says that an array is several. The parts
    are weights like others, with paths that end in their numbers, and every rule, plan and
    checkpoint has them by these. [`scalex_eqx.resolve`][] and [`scalex_eqx.effective`][] put the
    array together.

    **Arguments:**

    - `parts`: the weights, as they stand behind each other.
    - `axis`: along which, counted from the end.
    """

    parts: tuple[Any, ...]
    axis: int

    def _refuse(self, *_: Any) -> NoReturn:
        raise TypeError(not_an_array("arithmetic", "Fused"))

    __jax_array__ = __array__ = __getitem__ = __neg__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __matmul__ = __rmatmul__ = __truediv__ = __rtruediv__ = __pow__ = _refuse


def _with_keys(fused: Fused) -> Any:
    return [(jtu.SequenceKey(i), part) for i, part in enumerate(fused.parts)], fused.axis


jtu.register_pytree_with_keys(
    Fused,
    _with_keys,
    lambda axis, parts: Fused(tuple(parts), axis),
    lambda fused: (fused.parts, fused.axis),
)


def is_fused(node: Any) -> TypeGuard[Fused]:
    """Whether `node` is a `Fused`; made for `is_leaf`."""
    return type(node) is Fused


def cut(x: Any, sizes: Sequence[int], axis: int) -> list[Any]:
    """An array, or the shape of one, in parts of these sizes along an axis counted from the end."""
    found, start = [], 0
    for size in sizes:
        piece = functools.partial(_piece, start=start, size=size, axis=axis)
        is_shape = isinstance(x, jax.ShapeDtypeStruct)
        found.append(jax.eval_shape(piece, x) if is_shape else piece(x))
        start += size
    return found


def _piece(x: Any, *, start: int, size: int, axis: int) -> Any:
    return x[(..., slice(start, start + size), *(slice(None),) * (-axis - 1))]
