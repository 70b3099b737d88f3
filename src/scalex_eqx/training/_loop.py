"""The training loop: steps, evaluations, checkpoints, and what is told of them."""

import collections
import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import jax

from .._usage import UsageError, shown
from ..experiments._lock import reporting
from ._checkpoints import Checkpoints
from ._hosts import failing_together
from ._log import Log
from ._scales import SCALES, measure
from ._trainer import State, Trainer

# Steps that the devices are ahead of what is known of their losses, so that they never wait.
_AHEAD = 2


class Listener(Protocol):
    """Who is told how far the training is."""

    def begin(self, step: int, steps: int) -> None:
        """Training begins behind a step, or goes on there."""
        ...

    def stepped(self, step: int, loss: float) -> None:
        """A step is done; the loss is that before its update."""
        ...

    def evaluated(self, step: int, metrics: dict[str, float]) -> None:
        """The metrics after a step."""
        ...

    def saved(self, step: int) -> None:
        """A checkpoint of the state after a step has been begun."""
        ...


class Silent:
    """Tells nobody."""

    def begin(self, step: int, steps: int) -> None: ...

    def stepped(self, step: int, loss: float) -> None: ...

    def evaluated(self, step: int, metrics: dict[str, float]) -> None: ...

    def saved(self, step: int) -> None: ...


@dataclasses.dataclass(frozen=True)
class Pace:
    """How often what is done, in steps; the last step always has an evaluation and a checkpoint.

    **Arguments:**

    - `evaluate`, `save`: every so many steps; 0 for the last alone.
    - `keep`: how many checkpoints stay.
    - `scales`: sizes are measured every so many steps, and behind the last; 0 for never.
    """

    evaluate: int = 0
    save: int = 0
    keep: int = 2
    scales: int = 0

    def __post_init__(self) -> None:
        for option, value, least in (
            ("--evaluate-every", self.evaluate, 0),
            ("--save-every", self.save, 0),
            ("--keep", self.keep, 1),
            ("--scales-every", self.scales, 0),
        ):
            if value < least:
                raise UsageError(f"{option} is {value}; expected at least {least}")


class Diverged(UsageError):
    """The loss is no number any more; what was trained until then is in the checkpoints."""


def train(
    trainer: Trainer, folder: Path, *, pace: Pace | None = None, listener: Listener | None = None
) -> State:
    """Trains to the end, from the newest checkpoint in a folder if there is one.

    **Arguments:**

    - `trainer`: of what is trained.
    - `folder`: for checkpoints and `log.jsonl`; all hosts have it in common.
    - `pace`: how often to evaluate and save.
    - `listener`: is told of progress, if given.

    **Returns:** the last state.

    **Raises:** `UsageError` if the folder is in use, or has checkpoints of another training;
        `Diverged` if a loss is no number.
    """
    pace, listener = pace or Pace(), listener or Silent()
    with contextlib.ExitStack() as held:
        with failing_together():
            held.enter_context(_folder(folder))
        run = held.enter_context(contextlib.closing(_Run(trainer, folder, pace, listener)))
        return run.to_the_end()


class _Run:
    """One passage from a state to the last."""

    def __init__(self, trainer: Trainer, folder: Path, pace: Pace, listener: Listener):
        self._trainer, self._pace, self._listener = trainer, pace, listener
        self._steps = trainer.training.steps
        self._checkpoints = Checkpoints(folder, trainer, keep=pace.keep)
        restored = self._checkpoints.restore()
        self._begun = 0 if restored is None else int(restored.step)
        self._state: Any = restored
        with failing_together():
            self._log = _opened(folder, self._begun)
            # In front of the step with which it goes on is measured again.
            again = self._begun < self._steps
            self._sizes = _opened(folder, self._begun - again, SCALES) if pace.scales else None
        self._pending: collections.deque[tuple[int, Any]] = collections.deque()
        self._before = time.perf_counter()

    def to_the_end(self) -> State:
        self._listener.begin(self._begun, self._steps)
        state = self._trainer.start() if self._state is None else self._state
        self._state = None  # The step uses it up.
        self._before = time.perf_counter()
        for index in range(self._begun, self._steps):
            batch = self._trainer.batch(index)
            self._measure(index, state, batch)
            state, loss = self._trainer.step(state, batch)
            self._pending.append((index + 1, loss))
            self._tell(_AHEAD)
            self._rest(index + 1, state)
        if self._begun < self._steps:
            self._measure(self._steps, state, None)
        self._checkpoints.wait()
        return state

    def _measure(self, index: int, state: State, batch: Any) -> None:
        """The sizes in front of a step, where that is due."""
        every, is_last = self._pace.scales, index == self._steps
        if not every or (index % every and not is_last):
            return
        self._tell(0)
        batch = self._trainer.batch(index) if is_last else batch
        measure(self._trainer, self._sizes, index, state, batch)
        self._before = time.perf_counter()

    def _rest(self, step: int, state: State) -> None:
        """What is due behind a step."""
        is_last = step == self._steps
        saves = is_last or (self._pace.save and step % self._pace.save == 0)
        evaluates = is_last or (self._pace.evaluate and step % self._pace.evaluate == 0)
        if not (saves or evaluates):
            return
        self._tell(0)
        if evaluates:
            metrics = dict(self._trainer.evaluate(state))
            self._write(step, **metrics)
            self._listener.evaluated(step, metrics)
        if self._log is not None:
            self._log.flush()
        if saves:
            self._checkpoints.save(step, state)
            self._listener.saved(step)
        self._before = time.perf_counter()

    def _tell(self, ahead: int) -> None:
        """Writes down the losses that are there, all but the last few."""
        while len(self._pending) > ahead:
            step, loss = self._pending.popleft()
            value = float(loss)
            now = time.perf_counter()
            self._write(step, loss=value, seconds=round(now - self._before, 6))
            self._before = now
            self._listener.stepped(step, value)
            if not math.isfinite(value):
                raise self._diverged(step, value)

    def _write(self, step: int, **said: float) -> None:
        if self._log is not None:
            self._log.write(step, **said)

    def _diverged(self, step: int, loss: float) -> Exception:
        if step == 1:
            return UsageError(
                f"the loss is {loss} at the first step, before any update; look for numbers that "
                "are not finite in the data, and for logarithms, roots and quotients in the loss"
            )
        return Diverged(
            f"the loss is {loss} at step {step}; give a smaller --learning-rate, a --clip or a "
            "longer --warmup, and another --out"
        )

    def close(self) -> None:
        for log in (self._log, self._sizes):
            if log is not None:
                log.close()
        self._checkpoints.close()


def _opened(folder: Path, step: int, *name: str) -> Log | None:
    return Log(folder, step, *name) if jax.process_index() == 0 else None


@contextlib.contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """Made, and held against a second training in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--out {shown(folder)} can't be made: {error.strerror}; name another folder"
        ) from None
    if jax.process_index():
        yield
        return
    with reporting(folder, seconds=0.0):
        yield
