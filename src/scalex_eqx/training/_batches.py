"""The batches of a training: cut into parts, and each part split over the devices."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from .._sharding import batch_partition, batch_shards
from .._usage import UsageError
from ..problems import Problem


class Batches:
    """Where a step's examples come from, and where they go.

    A problem with `data` draws them on the devices, which all have a copy; of one with `read` each
    host reads the batch and keeps what its own devices need.

    **Arguments:**

    - `problem`: its step t has the batch of the seed's t-th key, as in sweeps.
    - `mesh`: its devices share a batch as the rule for `batch` says.
    - `parts`: into how many a batch is cut.

    **Raises:** `UsageError` if the batch can't be cut and split so.
    """

    def __init__(self, problem: Problem, mesh: Mesh, parts: int):
        self._problem, self._mesh, self._parts = problem, mesh, parts
        self.shapes = _shapes(problem)
        self.examples = _examples(self.shapes)
        shards = batch_shards(mesh)
        if self.examples is None and shards * parts > 1:
            raise UsageError(
                f"the problem {problem.name} has batches {_said(self.shapes)} whose arrays have no "
                "first axis in common; expected one that numbers the examples, so that they can "
                f"be cut into {parts} parts and split over {shards} devices"
            )
        if self.examples is not None and self.examples % (shards * parts):
            raise UsageError(
                f"a batch of {self.examples} examples is not a multiple of {shards} devices along "
                f"{_axes(mesh)} x {parts} parts of --accumulate; give a --batch-size that is, or "
                "another --mesh"
            )

    @property
    def sharding(self) -> NamedSharding:
        """Of an array in parts: its second axis numbers a part's examples."""
        return NamedSharding(self._mesh, PartitionSpec(None, *batch_partition(self._mesh)))

    def of_step(self, seed: int, step: int) -> PyTree:
        """What a step is given: the batch in parts, or `None` where the step draws it itself."""
        if self._problem.read is None:
            return None
        batch = jax.tree.map(self._cut, self._problem.host_batch(seed, step))
        return jax.tree.map(self._placed, batch)

    def _placed(self, x: np.ndarray) -> jax.Array:
        # Every host has read the same; each device takes its own.
        return jax.make_array_from_callback(x.shape, self._of(x), lambda index: x[index])

    @property
    def placed_shapes(self) -> PyTree:
        """Of what a step is given by a problem with `read`."""

        def placed(x: Any) -> jax.ShapeDtypeStruct:
            cut = jax.eval_shape(self._cut, x)
            return jax.ShapeDtypeStruct(cut.shape, cut.dtype, sharding=self._of(cut))

        return jax.tree.map(placed, self.shapes)

    @property
    def cut_shapes(self) -> PyTree:
        """Of a batch in parts."""
        return jax.tree.map(lambda x: jax.eval_shape(self._cut, x), self.shapes)

    def in_parts(self, batch: PyTree) -> PyTree:
        """The same for a batch that the step has drawn; traced."""
        return jax.tree.map(
            lambda x: jax.lax.with_sharding_constraint(self._cut(x), self._of(x)), batch
        )

    def _cut(self, x: Any) -> Any:
        if self.examples is None:
            return x[None]
        return x.reshape(self._parts, self.examples // self._parts, *x.shape[1:])

    def _of(self, x: Any) -> NamedSharding:
        return self.sharding if self.examples is not None else whole(self._mesh)

    @property
    def part_size(self) -> int:
        """How many examples are computed at a time."""
        return (self.examples or 1) // self._parts


def whole(mesh: Mesh) -> NamedSharding:
    """Of an array that every device has."""
    return NamedSharding(mesh, PartitionSpec())


def replicated(tree: PyTree, mesh: Mesh) -> PyTree:
    """Arrays of this host, which all hosts have alike, on every device."""

    def place(x: Any) -> jax.Array:
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.extended):
            return jax.device_put(x, whole(mesh))
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, whole(mesh), lambda index: x[index])

    return jax.tree.map(place, tree)


def _shapes(problem: Problem) -> PyTree:
    if problem.read is not None:
        batch = problem.host_batch(0, 0)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return eqx.filter_eval_shape(problem.drawn, problem.data, key)


def _examples(batch: PyTree) -> int | None:
    counts = {x.shape[:1] for x in jax.tree.leaves(batch)}
    return next(iter(counts))[0] if len(counts) == 1 and counts != {()} else None


def _said(batch: PyTree) -> str:
    return ", ".join(str(list(x.shape)) for x in jax.tree.leaves(batch))


def _axes(mesh: Mesh) -> str:
    used: Sequence[Any] = jax.tree.leaves(tuple(batch_partition(mesh)))
    return ",".join(f"{name}={mesh.shape[name]}" for name in used) or "no axis"
