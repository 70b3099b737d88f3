"""Training many runs of one program: each device has slots, and each slot one run at a time."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from ._program import Program, RunNumbers
from ._room import check_program, fitting, fitting_by_shapes, is_cpu, shared_out

_AXIS = "runs"
_LONGEST_CHUNK = 20


@dataclasses.dataclass(frozen=True)
class Trained:
    """What came of one run.

    **Arguments:**

    - `index`: which of the runs that were handed in.
    - `metrics`: of the trained model; empty if the run diverged.
    - `training_losses`: of each step, up to where it diverged.
    - `seconds`: the machine's time that it took, compilation included.
    """

    index: int
    metrics: dict[str, float]
    training_losses: np.ndarray
    seconds: float


# Called as the runs train: steps done by all together since the last call, and their mean loss.
Progress = Callable[[int, float], None]

# Called for the next runs, at most so many; fewer mean that there will be no others.
Take = Callable[[int], list[int]]


def train(
    program: Program,
    runs: Sequence[RunNumbers],
    *,
    at_once: int | None,
    progress: Progress,
    slots: "Slots | None" = None,
    take: Take | None = None,
) -> Iterator[Trained]:
    """Trains runs, and yields each when it has ended.

    A slot is free again when its run has ended, or at the next boundary after it diverged, and
    takes the next run then. What one slot trains is no concern of the others.

    **Arguments:**

    - `program`: what all runs have in common.
    - `runs`: their numbers.
    - `at_once`: how many train together at most. By default one on each core of a CPU, whose
        caches then hold it, and on accelerators as many as their memory holds.
    - `progress`: called as the training goes on.
    - `slots`: of a program of the same signature, to go on with what it has compiled.
    - `take`: says which of the runs to train next when slots are free; all in order by default.

    **Raises:** `UsageError` if they need more memory together than there is.
    """
    slots = slots or Slots(program, runs, at_once)
    take = take or _in_order(len(runs))
    more = True
    while True:
        started = time.perf_counter()
        free = slots.free
        taken = take(free) if more and free else []
        more = more and len(taken) == free
        if not (taken or slots.busy):
            return
        slots.fill(taken, runs)
        steps, loss = slots.advance()
        progress(steps, loss)
        ended = slots.ended()
        slots.charge(time.perf_counter() - started)
        for slot in ended:
            yield slots.take(slot)


def _in_order(count: int) -> Take:
    waiting = iter(range(count))
    return lambda at_most: list(itertools.islice(waiting, at_most))


@dataclasses.dataclass
class _Slot:
    """A run under way."""

    index: int
    done: int
    losses: list[np.ndarray]
    seconds: float
    metrics: dict[str, float] | None = None


class Slots:
    """The slots of all devices, and the three compiled functions that move them.

    **Arguments:**

    - `program`, `runs`, `at_once`: as of `train`.
    - `expected`: how many runs may come to wait together; as many as `runs` unless more.
    """

    def __init__(
        self,
        program: Program,
        runs: Sequence[RunNumbers],
        at_once: int | None,
        expected: int = 0,
    ):
        self.program = program
        devices, each = shared_out(max(len(runs), expected), at_once)
        self.mesh = Mesh(np.array(devices), (_AXIS,))
        self.chunk = _chunk(program.schedule.steps)
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        self.data = jax.device_put(program.problem.data, everywhere)
        self.held_out = jax.device_put(program.problem.held_out, everywhere)
        if at_once is not None or is_cpu(devices):
            self._allot(each, runs)
            return
        self._allot(fitting_by_shapes(program, each, devices), runs)
        # What the steps need beside their state is known once they are compiled.
        while (fits := self._fitting()) < self.each:
            self._allot(fits, runs)

    def _allot(self, each: int, runs: Sequence[RunNumbers]) -> None:
        """Gives each device so many slots, none of which has a run yet."""
        self.each = each
        self.slots: list[_Slot | None] = [None] * (self.mesh.size * each)
        self.current = [runs[0]] * len(self.slots)
        self.numbers = self._placed(self.current)
        # The old states must be gone before there are new ones.
        self.state = None
        self.state = self._blank()
        self._start = self._advance = self._evaluate = None

    def _fitting(self) -> int:
        self._advance = self._compiled_advance(self._sources())
        return fitting(self._advance, self.program, self.each, self._devices)

    @property
    def _devices(self) -> list[Any]:
        return list(self.mesh.devices.flat)

    @property
    def busy(self) -> bool:
        """Whether any slot has a run."""
        return any(slot is not None for slot in self.slots)

    @property
    def free(self) -> int:
        """How many slots have no run."""
        return self.slots.count(None)

    def fill(self, waiting: list[int], runs: Sequence[RunNumbers]) -> None:
        """Gives each free slot the next run."""
        fresh = np.zeros(len(self.slots), bool)
        for place, slot in enumerate(self.slots):
            if slot is None and waiting:
                self.slots[place] = _Slot(waiting.pop(0), 0, [], 0.0)
                fresh[place] = True
        if not fresh.any():
            return
        self.current = [runs[0 if slot is None else slot.index] for slot in self.slots]
        self.numbers = self._placed(self.current)
        if self._start is None:
            self._start = self._compiled_start()
        self.state = self._start(self.state, self.numbers, self._shared_out(fresh))

    def advance(self) -> tuple[int, float]:
        """Trains all runs for a chunk of steps; returns how many steps that are, and the loss."""
        sources = self._sources()
        if self._advance is None:
            self._advance = self._compiled_advance(sources)
            check_program(self._advance, self.program, self.each, self._devices)
        self.state, found = self._advance(self.state, self.numbers, self.data, sources)
        losses = np.asarray(found)
        steps, last = 0, []
        for slot, own in zip(self.slots, losses, strict=True):
            if slot is None:
                continue
            slot.losses.append(own)
            slot.done += len(own)
            steps += len(own)
            last.append(own[-1])
            if not np.isfinite(own).all():
                # The rest of its steps is not to be made.
                steps += self.program.schedule.steps - slot.done
                slot.metrics = {}
        return steps, _mean_of_finite(np.array(last))

    def _sources(self) -> PyTree:
        """The steps that each slot makes next, with their batches if those come from the host."""
        firsts = [0 if slot is None else slot.done for slot in self.slots]
        steps = np.array(firsts)[:, None] + np.arange(self.chunk)
        problem = self.program.problem
        if problem.read is None:
            return self._shared_out(steps), None
        seeds = [int(run.seed) for run in self.current]
        batches = [
            jax.tree.map(
                lambda *x: np.stack(x), *[problem.host_batch(seed, int(step)) for step in own]
            )
            for seed, own in zip(seeds, steps, strict=True)
        ]
        batches = jax.tree.map(lambda *x: np.stack(x), *batches)
        return self._shared_out(steps), self._shared_out(batches)

    def ended(self) -> list[int]:
        """The slots whose runs have ended; those that did not diverge are evaluated."""
        finished = [
            slot is not None and slot.metrics is None and slot.done == self.program.schedule.steps
            for slot in self.slots
        ]
        if any(finished):
            if self._evaluate is None:
                self._evaluate = self._compiled_evaluate()
            arguments = self.state, self.numbers, self._shared_out(np.array(finished))
            found = jax.tree.map(np.asarray, self._evaluate(*arguments, self.held_out))
            for place, slot in enumerate(self.slots):
                if finished[place] and slot is not None:
                    slot.metrics = {name: float(x[place]) for name, x in found.items()}
        return [i for i, x in enumerate(self.slots) if x is not None and x.metrics is not None]

    def charge(self, seconds: float) -> None:
        """Divides the time of a chunk among the runs."""
        running = [slot for slot in self.slots if slot is not None]
        for slot in running:
            slot.seconds += seconds / len(running)

    def take(self, place: int) -> Trained:
        """The result of a run that has ended; its slot is free then."""
        slot = self.slots[place]
        assert slot is not None and slot.metrics is not None
        self.slots[place] = None
        finite = all(np.isfinite(x) for x in slot.metrics.values())
        metrics = slot.metrics if finite else {}
        return Trained(slot.index, metrics, np.concatenate(slot.losses), slot.seconds)

    def _blank(self) -> PyTree:
        """States of zeros: only where a run starts is one ever looked at."""
        state = self.program.state
        sharding = NamedSharding(self.mesh, PartitionSpec(_AXIS))
        zeros = jax.jit(
            lambda: jax.tree.map(lambda x: _zeros(x, len(self.slots)), state),
            out_shardings=sharding,
        )
        return zeros()

    def _compiled_start(self) -> Any:
        def start(state, run, fresh):
            return jax.lax.cond(fresh, lambda: self.program.start(run), lambda: state)

        mapped = jax.jit(self._mapped(start), donate_argnums=0)
        fresh = self._shared_out(np.zeros(len(self.slots), bool))
        lowered = mapped.lower(self.state, self.numbers, fresh)
        return lowered.compile(compiler_options=self._quick())

    def _quick(self) -> dict[str, Any]:
        """Compiler options for what is run once: its draws are the same, bit by bit."""
        return {"xla_backend_optimization_level": 1} if is_cpu(self._devices) else {}

    def _compiled_advance(self, sources: PyTree) -> Any:
        mapped = jax.jit(self._mapped(self.program.advance, shared=(2,)), donate_argnums=0)
        return mapped.lower(self.state, self.numbers, self.data, sources).compile()

    def _compiled_evaluate(self) -> Any:
        def evaluate(state, run, finished, held_out):
            def judge():
                return self.program.evaluate(state, run, held_out)

            blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(judge))
            return jax.lax.cond(finished, judge, lambda: blank)

        return jax.jit(self._mapped(evaluate, shared=(3,)))

    def _mapped(self, function: Callable, *, shared: tuple[int, ...] = ()) -> Callable:
        """`function` mapped over all slots; `shared` arguments are the same for all."""

        def on_device(*arguments):
            if self.each > 1:
                axes = tuple(None if i in shared else 0 for i in range(len(arguments)))
                return jax.vmap(function, axes)(*arguments)
            # Not mapped: products of one run are what the CPU is fastest at.
            own = [
                x if i in shared else jax.tree.map(lambda x: x[0], x)
                for i, x in enumerate(arguments)
            ]
            return jax.tree.map(lambda x: x[None], function(*own))

        def placed(*arguments):
            specs = tuple(
                PartitionSpec() if i in shared else PartitionSpec(_AXIS)
                for i in range(len(arguments))
            )
            return jax.shard_map(
                on_device,
                mesh=self.mesh,
                in_specs=specs,
                out_specs=PartitionSpec(_AXIS),
                check_vma=False,
            )(*arguments)

        return placed

    def _placed(self, runs: Sequence[RunNumbers]) -> RunNumbers:
        return self._shared_out(jax.tree.map(lambda *x: np.stack(x), *runs))

    def _shared_out(self, tree: PyTree) -> PyTree:
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec(_AXIS)))


def _chunk(steps: int) -> int:
    """How many steps are made between two looks: a divisor, so that one program does for all."""
    return max(n for n in range(1, _LONGEST_CHUNK + 1) if steps % n == 0)


def _zeros(shape: Any, slots: int) -> Any:
    return jnp.zeros((slots, *shape.shape), shape.dtype)


def _mean_of_finite(losses: np.ndarray) -> float:
    finite = losses[np.isfinite(losses)]
    return float(finite.mean()) if finite.size else float("nan")
