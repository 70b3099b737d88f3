"""The values of a trained model, under the specs that its layers declare."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .._pages import Section, listed, see
from .._weight import Weight, is_weight, path_string, resolve
from ._law import replaced
from ._nodes import Node, find_nodes, sorted_strings


def with_specs(trained: PyTree, made: PyTree, where: str) -> PyTree:
    """`trained` with a `Weight` of its effective array wherever `made` has one.

    **Arguments:**

    - `trained`: the model; its weights may have a law already, which their arrays keep nothing of.
    - `made`: what `make` builds, or its shapes.
    - `where`: the sizes of that, for the error.

    **Raises:** `ValueError` that lists every path at which the two differ.
    """
    model = resolve(trained)
    found, expected = find_nodes(model), find_nodes(made)
    errors = [
        f"{path} (only in {name})"
        for name, one, another in (("trained", found, expected), ("what is made", expected, found))
        for path in sorted_strings(one.keys() - another.keys())
    ]
    for path in expected.keys() & found.keys():
        problem = _problem(expected[path], found[path])
        errors += [f"{path_string(path) or 'the model itself'}: {problem}"] if problem else []
    if errors:
        heading = f"trained is not the model that make builds {where}:"
        raise ValueError(listed(heading, sorted(errors)) + see(Section.values))
    leaves = {}
    for path, node in expected.items():
        if hasattr(node.array, "shape"):
            # Of NumPy's arrays in bfloat16 filters don't know that they are numbers.
            array = jnp.asarray(found[path].leaf)
            leaves[path] = Weight(array, node.leaf.spec) if is_weight(node.leaf) else array
    return replaced(model, leaves)


def _problem(expected: Node, found: Node) -> str | None:
    """What is wrong with an array of the trained model, if anything is."""
    if not hasattr(expected.array, "shape"):
        return None
    array: Any = found.leaf
    if isinstance(array, jax.ShapeDtypeStruct) or not hasattr(array, "shape"):
        return f"a {type(array).__name__}; expected an array of shape {expected.array.shape}"
    if array.shape != expected.array.shape:
        return f"shape {array.shape}; expected {expected.array.shape}"
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        return f"dtype {array.dtype}, which JAX has not enabled; cast it, to float32 for instance"
    return None
