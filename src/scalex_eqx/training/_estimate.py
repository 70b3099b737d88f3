"""What a training will take, before the money is spent."""

import dataclasses
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .._memory import available_on, in_words
from .._usage import UsageError
from ._operations import operations
from ._trainer import State, Trainer


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on the device that holds most.

    **Arguments:**

    - `weights`, `moments`, `data`: what is there between steps.
    - `temporary`: what the compiled step takes beside: gradients, activations, gathered weights.
    - `free`: what a device can give; `None` if it doesn't say.
    """

    weights: int
    moments: int
    data: int
    temporary: int
    free: int | None

    @property
    def needed(self) -> int:
        """In all, during a step."""
        return self.weights + self.moments + self.data + self.temporary


def memory(trainer: Trainer) -> Memory:
    """The bytes by device of a training, from the shards' shapes and the compiled step."""
    found, extra = trainer.compiled.memory_analysis(), 0
    if found is not None:
        # What the step puts out takes the place of what it was given.
        extra = found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return dataclasses.replace(kept_memory(trainer), temporary=max(extra, 0))


def kept_memory(trainer: Trainer) -> Memory:
    """The same without what a step takes beside: nothing is compiled."""
    devices = trainer.mesh.devices.flat
    local = [device for device in devices if device.process_index == jax.process_index()]
    free = available_on(local)
    return Memory(
        weights=bytes_on_a_device(trainer.shapes.model),
        moments=bytes_on_a_device(trainer.shapes.optimizer),
        data=bytes_on_a_device(trainer.sources),
        temporary=0,
        free=None if free is None else free // len(local),
    )


def bytes_on_a_device(tree: PyTree) -> int:
    """Of the shards that one device has of a tree of placed shapes."""

    def size(x: Any) -> int:
        shape = x.sharding.shard_shape(x.shape)
        itemsize = jnp.dtype(x.dtype).itemsize if not _is_key(x) else 8
        return math.prod(shape) * itemsize

    return sum(map(size, jax.tree.leaves(tree)))


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.extended)


def check_fits(trainer: Trainer, found: Memory) -> None:
    """Refuses a training whose step takes more than a device has.

    **Raises:** `UsageError` that names what takes most, and the remedy.
    """
    if found.free is None or found.needed <= found.free:
        return
    parts = {"weights": found.weights, "moments": found.moments, "data": found.data}
    parts["gradients and activations"] = found.temporary
    said = ", ".join(f"{in_words(size)} of {name}" for name, size in parts.items() if size)
    raise UsageError(
        f"out of memory: a step takes at least {in_words(found.needed)} on each device, {said}, "
        f"and {in_words(found.free)} are free; give {_remedy(trainer, found)}"
    )


def _remedy(trainer: Trainer, found: Memory) -> str:
    training, mesh = trainer.training, trainer.mesh
    kept = found.weights + found.moments + found.data
    assert found.free is not None
    if kept > found.free:
        whole = [name for name in ("data", "expert") if mesh.shape.get(name, 1) > 1]
        if whole:
            return f"--mesh shard={mesh.size}, which splits weights and moments alike"
        return "more devices with a larger shard in --mesh, or a smaller --width or --depth"
    if not training.recompute:
        return "--recompute, or a larger --accumulate, which computes fewer examples at a time"
    examples = trainer.batches.examples
    if examples is not None and examples // training.accumulate > 1:
        return f"--accumulate {2 * training.accumulate}, or more devices"
    return "more devices, or a smaller --width"


def operations_of_step(trainer: Trainer) -> int:
    """The operations in the matrix products of a step on all devices, without recomputation.

    It is what the formulas ask for, whatever the mesh.
    """
    plain = trainer
    if trainer.training.recompute:
        training = dataclasses.replace(trainer.training, recompute=False)
        plain = Trainer(training, trainer.problem, trainer.mesh)
    model = plain.shapes.model
    batch = plain.batches.cut_shapes
    return operations(plain.gradient, model, batch)


def seconds_of_step(trainer: Trainer, *, steps: int = 3) -> float:
    """The shortest of some steps, measured on the devices from the initial state."""
    state: State = trainer.start()
    taken = []
    for index in range(steps + 1):
        batch = trainer.batch(index)
        jax.block_until_ready((state, batch))
        before = time.perf_counter()
        state, loss = trainer.step(state, batch)
        jax.block_until_ready((state, loss))
        taken.append(time.perf_counter() - before)
    # The first one is slower.
    return min(taken[1:])
