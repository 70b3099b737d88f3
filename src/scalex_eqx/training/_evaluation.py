"""The held-out examples, split over the devices as batches are."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, PyTree

from .._sharding import batch_partition, batch_shards
from ..problems import Problem
from ..problems._problem import JUDGED
from ._batches import replicated, whole


class Evaluation:
    """The metrics of a model: the problem's own, or the mean loss over all held-out examples.

    The mean is taken over parts as large as a step's, a device's examples at a time. A problem with
    an `evaluate` of its own is judged by every device on all of the held-out arrays.

    **Arguments:**

    - `problem`: what is judged on.
    - `mesh`: the devices.
    - `size`: how many examples are computed at a time in training.
    - `plain`: makes of a model's arrays the model that the loss takes; traced.
    """

    def __init__(self, problem: Problem, mesh: Mesh, size: int, plain: Callable[[PyTree], PyTree]):
        self._problem, self._mesh = problem, mesh
        shards = batch_shards(mesh)
        self._size = max(size // shards, 1) * shards

        def judged(model: PyTree, held_out: PyTree) -> dict[str, Float[Array, ""]]:
            return problem.judged(plain(model), held_out)

        def mean_loss(model: PyTree, batch: PyTree) -> Float[Array, ""]:
            return problem.mean_loss(plain(model), batch).astype(jnp.float32)

        self._judged = jax.jit(judged, out_shardings=whole(mesh))
        self._mean_loss = jax.jit(mean_loss, out_shardings=whole(mesh))

    def __call__(self, model: PyTree) -> Mapping[str, float]:
        """The metrics by name; `held_out_loss` is one of them."""
        if self._problem.evaluate is not None:
            found = self._judged(model, self._held_out)
            return {name: float(value) for name, value in found.items()}
        losses = [(count, self._mean_loss(model, part)) for count, part in self._parts]
        total = sum(count for count, _ in losses)
        return {JUDGED: sum(count * float(loss) for count, loss in losses) / total}

    @functools.cached_property
    def _held_out(self) -> PyTree:
        return replicated(self._problem.held_out, self._mesh)

    @functools.cached_property
    def _parts(self) -> list[tuple[int, PyTree]]:
        arrays = jax.tree.map(np.asarray, self._problem.held_out)
        count = jax.tree.leaves(arrays)[0].shape[0]
        whole_parts = count - count % self._size
        split = NamedSharding(self._mesh, batch_partition(self._mesh))
        found = [
            (self._size, _placed(arrays, slice(start, start + self._size), split))
            for start in range(0, whole_parts, self._size)
        ]
        if whole_parts < count:
            # Too few to be split evenly.
            rest = slice(whole_parts, count)
            found.append((count - whole_parts, _placed(arrays, rest, whole(self._mesh))))
        return found


def _placed(arrays: PyTree, chosen: slice, place: NamedSharding) -> PyTree:
    def placed(x: Any) -> jax.Array:
        part = x[chosen]
        return jax.make_array_from_callback(part.shape, place, lambda index: part[index])

    return jax.tree.map(placed, arrays)
