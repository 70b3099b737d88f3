"""What the commands share that train a few steps of a problem's model and measure it."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from .._memory import bytes_of, check_runs
from .._weight import is_trainable, resolve
from ..experiments import Recipe
from ..experiments._recipe import check_on
from ..problems import Problem


def batches(problem: Problem, places: Sequence[tuple[int, int]]) -> Callable[[PRNGKeyArray], Any]:
    """What draws a batch by a key; where the host reads them, one of those at `places`, each a seed
    and a step."""
    if problem.read is None:
        data = jax.tree.map(jnp.asarray, problem.data)
        return lambda key: problem.drawn(data, key)
    read = [problem.host_batch(*place) for place in places]
    stacked = jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *read)

    def drawn(key: PRNGKeyArray) -> Any:
        chosen = jax.random.randint(key, (), 0, len(places))
        return jax.tree.map(lambda x: x[chosen], stacked)

    return drawn


def check_shapes(problem: Problem, recipe: Recipe, model: PyTree, width: int) -> None:
    """Refuses, from the shapes of a model, one that the recipe or the loss doesn't fit, and one
    that can't be held with what its training needs."""
    problem.check(eqx.filter_eval_shape(resolve, model))
    arrays = eqx.filter(model, is_trainable)
    check_on(recipe, arrays)
    # Gradient and two moments.
    check_runs(4 * bytes_of(arrays), 1, jax.devices()[:1], width=width)
