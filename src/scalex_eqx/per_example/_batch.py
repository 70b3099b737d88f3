"""The units of a batch."""

import math
from typing import Any

import jax
import jax.tree_util as jtu
import numpy as np
from jaxtyping import PyTree

from .._weight import path_string


def batch_size(batch: PyTree) -> int:
    """How many examples a batch has.

    **Raises:** `ValueError` that names the leaves without a leading axis, or of another size.
    """
    leaves = jtu.tree_leaves_with_path(batch)
    if not leaves:
        raise ValueError(
            "the batch has no arrays; expected a pytree of arrays whose leading axis numbers the "
            "examples"
        )
    shapes = {path_string(path) or "the batch": np.shape(leaf) for path, leaf in leaves}
    bare = [path for path, shape in shapes.items() if not shape]
    if bare:
        raise ValueError(
            f"no leading axis that numbers the examples: {', '.join(bare)}. What is the same for "
            "all examples belongs into the loss, not into the batch"
        )
    sizes = {shape[0] for shape in shapes.values()}
    if len(sizes) > 1:
        said = ", ".join(f"{path} has {shape[0]}" for path, shape in shapes.items())
        raise ValueError(
            f"the arrays of the batch differ in their leading axis, which numbers the examples: "
            f"{said}"
        )
    (size,) = sizes
    if size == 0:
        raise ValueError("the batch is empty: no example has a gradient, and a mean has no value")
    return size


def check_unit(of: Any, size: int) -> None:
    """Refuses what is no unit of a batch of `size` examples."""
    if of in ("example", "token") and isinstance(of, str):
        return
    if isinstance(of, bool) or not isinstance(of, int) or of < 1:
        raise ValueError(
            f"of is {of!r}; expected 'example', 'token', or how many examples a microbatch has"
        )
    if size % of:
        raise ValueError(
            f"of is {of}: a batch of {size} examples doesn't part into microbatches of {of}; take "
            f"a divisor of {size}, such as {math.gcd(of, size)}"
        )


def microbatches(batch: PyTree, of: int) -> PyTree:
    """Of `of` neighbouring examples each."""
    return jax.tree.map(lambda x: x.reshape(-1, of, *x.shape[1:]), batch)
