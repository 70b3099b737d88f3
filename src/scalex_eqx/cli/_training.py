"""What the commands share that train: who does it, and how much at a time."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Literal

import jax

from ..experiments import Setting, UsageError
from ..experiments._config import check_positive
from ..experiments._engines import Engine, Local
from ..experiments._ray import OnRay
from ..experiments._schedule import DECAY
from ..problems import Problem
from ._problem import TEXTS, ProblemOptions


@dataclasses.dataclass(frozen=True)
class Training(ProblemOptions):
    """A problem, and who trains it."""

    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """How the learning rate falls behind its rise; wsd stays, and falls over --decay."""
    warmup: float = 0.1
    """The share of the steps in which the learning rate rises."""
    decay: float = DECAY
    """The share of the steps in which it falls, with --schedule wsd."""
    engine: Literal["local", "ray"] = "local"
    """Who trains: this machine's devices, or a Ray cluster, to whose nodes parts are sent."""
    ray_address: str | None = None
    """Of a Ray cluster that runs, as auto or ray://HOST:10001; one of this machine alone is started
    if not given."""
    at_once: int | None = None
    """How many runs train together at most; one on each core by default, and on accelerators as
    many as their memory holds. With Ray, in each of its tasks."""

    def check_engine(self) -> None:
        """Refuses what doesn't go together; has to be called before a device is looked at.

        **Raises:** `UsageError`.
        """
        if self.at_once is not None:
            check_positive(self, "at_once")
        if self.ray_address is not None and self.engine != "ray":
            raise UsageError(f"--ray-address is {self.ray_address} without --engine ray; give both")
        if self.engine == "ray":
            # The accelerators are the workers', also those of this machine.
            jax.config.update("jax_platforms", "cpu")

    @contextlib.contextmanager
    def training(self, setting: Setting, problem: Problem) -> Iterator[Engine]:
        """Who trains the runs of a setting."""
        if self.engine == "local":
            yield Local(self.at_once)
            return
        source = None if self.problem in TEXTS else self.problem
        on_ray = OnRay(
            setting, problem, source=source, address=self.ray_address, at_once=self.at_once
        )
        with contextlib.closing(on_ray):
            yield on_ray
