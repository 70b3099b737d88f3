"""Whether a problem's loss is a mean over examples, each of which has a loss of its own."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from .._usage import UsageError
from ..per_example import gradient_statistics
from ._problem import Problem, data_key

# Sums in another order differ by rounding, some 1e-6 of the gradient in float32.
_DIFFERENT = 1e-3


def check_examples(problem: Problem, model: PyTree) -> None:
    """Refuses a problem whose loss on a batch isn't the mean of its losses on the examples.

    That is measured: the gradient of one batch is compared with the mean of those of batches of one
    example each.

    **Arguments:**

    - `model`: weights as plain arrays.

    **Raises:** `UsageError` that says how far apart they are.
    """
    if problem.read is None:
        batch = problem.drawn(jax.tree.map(jnp.asarray, problem.data), data_key(0))
    else:
        batch = problem.host_batch(0, 0)
    sizes = {jnp.shape(x)[:1] for x in jax.tree.leaves(batch)}
    if len(sizes) != 1 or sizes == {()}:
        raise UsageError(
            f"{_NEEDS}; the arrays of a batch have the first axes {sorted(sizes)}, and none that "
            "numbers the examples of all"
        )
    apart = float(_apart(problem, model, batch))
    if not apart <= _DIFFERENT:
        raise UsageError(
            f"{_NEEDS}, but the problem's loss on a batch isn't the mean of its losses on single "
            f"examples: their gradients are {apart:.2g} apart, relative to the batch's. A loss "
            "that normalises over the batch, compares its examples, or divides by a count that "
            "differs between them is no such mean"
        )


_NEEDS = "the gradient of each example is needed"


@eqx.filter_jit
def _apart(problem: Problem, model: PyTree, batch: Any) -> Float[Array, ""]:
    """The norm of the difference of both gradients, over that of the batch's."""
    whole = eqx.filter_grad(problem.mean_loss)(model, batch)
    single = gradient_statistics(problem.example_loss, model, batch, statistics=()).gradient
    difference = jax.tree.map(jnp.subtract, whole, single)
    return optax.tree.norm(difference) / optax.tree.norm(whole)
