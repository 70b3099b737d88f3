"""Effective arrays back into the weights that they belong to."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import PyTree

from ._fused import Fused, cut, is_fused
from ._pages import Section, listed, see
from ._parameterize import second_factor
from ._weight import (
    Weight,
    effective,
    from_effective,
    is_array,
    is_weight,
    path_string,
    require_complete,
)


def unresolve(model: PyTree, arrays: PyTree) -> PyTree:
    r"""The model whose effective arrays are `arrays`: the inverse of [`scalex_eqx.resolve`][].

    $$w = r^{a + f}\, W.$$

    Each array $W$ in the place of a weight is divided by the weight's multiplier, and everything
    else is taken from `arrays` as it is. `resolve` of the result is `arrays`, exactly where the
    multiplier is a power of two; elsewhere dividing and multiplying round once each.

    Build `arrays` from `resolve(model)`, with `equinox.tree_at` or `jax.tree.map`: with numbers of
    another framework, of an average of models, or of a smaller model that was made larger.

    **Arguments:**

    - `model`: from `parameterize`, or the shapes of one, of which only the laws are used. Where a
        filter has left `None` in it, `arrays` has `None` too.
    - `arrays`: a tree as `resolve(model)` returns it, of JAX's arrays or NumPy's.

    **Returns:** the model. Works under `jit` and `grad`.

    **Raises:** `ValueError` for a model without its laws, and, listing every path, for arrays of
    another structure, shape or dtype. So do ties with another factor, since the arrays would
    compute something else.
    """
    require_complete(model)
    places, structure = jtu.tree_flatten_with_path(model, is_leaf=_is_place)
    given, other = jtu.tree_flatten_with_path(arrays, is_leaf=_is_place)
    errors = _structure_errors(places, given)
    if not errors and structure != other:
        errors = [
            "the paths are those of the model, but static fields differ, or the factors of ties; "
            "change the arrays of resolve(model) instead of building the tree anew"
        ]
    if not errors:
        for (path, leaf), (_, new) in zip(places, given, strict=True):
            problem = _problem(leaf, new)
            errors += [f"{path_string(path) or 'the model itself'}: {problem}"] if problem else []
    if errors:
        heading = "unresolve cannot put the arrays into the model:"
        raise ValueError(listed(heading, errors) + see(Section.arrays))
    leaves = [
        _weight(leaf, new) if _is_read(leaf) else new
        for (_, leaf), (_, new) in zip(places, given, strict=True)
    ]
    return jtu.tree_unflatten(structure, leaves)


def _is_place(node: Any) -> bool:
    return node is None or _is_read(node)


def _is_read(node: Any) -> bool:
    return is_weight(node) or is_fused(node)


def _weight(weight: Weight | Fused, array: Any) -> Weight | Fused:
    if array is None:
        return weight
    if isinstance(weight, Fused):
        sizes = [part.value.shape[weight.axis] for part in weight.parts]
        pieces = cut(jnp.asarray(array), sizes, weight.axis)
        parts = [_weight(part, x) for part, x in zip(weight.parts, pieces, strict=True)]
        return Fused(tuple(parts), weight.axis)
    return from_effective(jnp.asarray(array), weight.spec, weight)


def _structure_errors(places: list[Any], given: list[Any]) -> list[str]:
    """What stands in one of two trees only."""
    expected, found = ({path_string(path): None for path, _ in x} for x in (places, given))
    return [
        f"{path}: {problem}"
        for one, another, problem in (
            (expected, found, "missing in arrays"),
            (found, expected, "in arrays, but not in the model"),
        )
        for path in one
        if path not in another
    ]


def _problem(leaf: Any, new: Any) -> str | None:
    """What is wrong with one leaf of `arrays`, if anything is."""
    if is_weight(new):
        return "a Weight; expected the effective array, as scalex_eqx.resolve returns it"
    expected = _expected(leaf)
    if expected is None or is_array(expected):
        return _array_problem(expected, new)
    own, other = second_factor(leaf), second_factor(new)
    if own != other:
        return (
            f"a tie with the factor {other}; expected {own}, with which the model uses the weight "
            "a second time"
        )
    return None


def _expected(leaf: Any) -> Any:
    """The array, or its shape, that stands in the place of a leaf once it is resolved."""
    if is_fused(leaf):
        return jax.eval_shape(effective, leaf)
    return leaf.value if is_weight(leaf) else leaf


def _array_problem(expected: Any, new: Any) -> str | None:
    if expected is None or new is None:
        one, another = ("nothing" if x is None else "an array" for x in (new, expected))
        return None if expected is new else f"{one}; expected {another}"
    if not is_array(new) or isinstance(new, jax.ShapeDtypeStruct):
        return f"a {type(new).__name__}; expected an array of shape {expected.shape}"
    if new.shape != expected.shape:
        return f"shape {new.shape}; expected {expected.shape}"
    if new.dtype != expected.dtype:
        return f"dtype {new.dtype}; expected {expected.dtype}: cast it with astype"
    return None
