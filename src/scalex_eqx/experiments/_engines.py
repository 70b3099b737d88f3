"""Engines: functions that train the runs of some packs, and yield each when it has ended."""

import functools
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import optax

from ._config import Member
from ._slots import Trained
from ._train import Kept, Pack, check_packs, train_pack


@runtime_checkable
class Reporter(Protocol):
    """Who is told how far the training is; the command line draws a bar of it."""

    def begin(self, runs: int, stored: int, work: float, done: float) -> None:
        """The sweep's runs and how many were stored; the same in floating-point operations.

        A search for verdicts begins anew with every round: `runs` are then those that are known to
        be needed, and `work` is the most that may come.
        """
        ...

    def group(self, name: str, runs: int) -> None:
        """A group of runs begins."""
        ...

    def advance(self, work: float, loss: float) -> None:
        """Some work is done; the mean training loss of the group's runs is `loss`.

        Less than none is done where a worker was lost: what it had begun begins anew.
        """
        ...

    def ended(self, runs: int, work: float) -> None:
        """Some runs are stored; `work` is what of them was not told by `advance`, since others
        have done it."""
        ...

    def say(self, line: str) -> None:
        """Something that happens seldom, such as a worker that was lost."""
        ...


class Done(NamedTuple):
    """A run that has ended, and where."""

    member: Member
    trained: Trained
    environment: Mapping[str, object]


@runtime_checkable
class Claims(Protocol):
    """Which runs this process may train, where others train too."""

    def free(self, members: Sequence[Member]) -> list[Member]:
        """Those that have not ended and that nobody else holds, without claiming them."""
        ...

    def take(self, members: Sequence[Member]) -> list[Member]:
        """Claims those of the runs that are free, until they have ended."""
        ...

    def holders(self, members: Sequence[Member]) -> dict[str, int]:
        """How many of the runs other processes hold, by their names."""
        ...

    def look_again(self) -> None:
        """Waits for a moment, while others train what is left."""
        ...

    def give_back(self, members: Sequence[Member]) -> None:
        """Lets others take what was claimed and isn't trained after all."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Trains those runs of the packs that it can claim, and yields each when it has ended.

    Runs that it can't claim are left out: others train them.
    """

    def check(self, packs: Sequence[Pack]) -> None:
        """Refuses before all training what could not be held at its end, as far as is known."""
        ...

    def __call__(
        self, packs: Sequence[Pack], claims: Claims, reporter: Reporter, kept: Kept | None = None
    ) -> Iterator[Done]: ...


class Local:
    """Trains on the devices of this process.

    **Arguments:**

    - `at_once`: how many runs train together at most; one on each core by default, and on
        accelerators as many as their memory holds.
    """

    def __init__(self, at_once: int | None = None):
        self._at_once = at_once

    def check(self, packs: Sequence[Pack]) -> None:
        """Refuses before all training what could not be held at its end."""
        check_packs(packs, self._at_once)

    def __call__(
        self, packs: Sequence[Pack], claims: Claims, reporter: Reporter, kept: Kept | None = None
    ) -> Iterator[Done]:
        """Trains the packs one after the other."""
        for pack in in_turn(packs, claims):
            reporter.group(pack.name, len(pack.members))
            found = train_pack(
                pack,
                at_once=self._at_once,
                progress=functools.partial(_tell, reporter, pack.work_of_step),
                kept=kept,
                claim=claims.take,
            )
            for member, trained in found:
                yield Done(member, trained, environment())


def _tell(reporter: Reporter, work: float, steps: int, loss: float) -> None:
    reporter.advance(steps * work, loss)


def in_turn(packs: Sequence[Pack], claims: Claims) -> Iterator[Pack]:
    """The free runs of each pack, and first of those packs in which nobody else trains.

    Each process that trains a pack compiles it, and so they share one only when there is no other.
    """
    left = list(packs)
    while left:
        chosen = None
        for pack in list(left):
            free = set(claims.free(pack.members))
            if not free:
                left.remove(pack)
            elif chosen is None or len(free) == len(pack.members):
                chosen = pack, free
                if len(free) == len(pack.members):
                    break
        if chosen is not None:
            pack, free = chosen
            left.remove(pack)
            yield pack.of(free.__contains__)


def environment() -> dict[str, object]:
    """The hardware and the versions that results were made with."""
    return {
        "device": f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "equinox": eqx.__version__,
        "optax": optax.__version__,
    }


@functools.cache
def _processor() -> str:
    """The processor's name; the kernel knows it better than Python's `platform` does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
