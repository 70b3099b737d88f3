"""Training on a Ray cluster: parts of packs are tasks, and runs come back as they end."""

import importlib
import inspect
import logging
import math
import os
import secrets
import sys
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._usage import UsageError
from ..problems import Problem
from ._config import Member, Setting
from ._engines import Claims, Done, Reporter
from ._foreign import Foreign
from ._ray_worker import Ended, MemberText, Sent, Step, as_text, own_version, train_part
from ._recipe import Recipe
from ._train import Kept, Pack

# So many workers may be lost over one part before it is given up: it may be what kills them.
_LIVES = 5
_MOST_DEVICES = 8
# As many may be missing, three seconds apart, before a node counts as lost; Ray's own number is 5.
_HEARTBEATS = 40
# Parts for each worker: so the last ones end at about the same time.
_PARTS = 2


@dataclass
class _Part:
    """Runs of one pack that a task trains.

    **Arguments:**

    - `members`: as they were sent.
    - `left`: those that have not come back.
    - `lost`: how many workers were lost over it.
    - `told`: the work that it has told of and that is of no run that came back.
    """

    name: str
    members: list[Member]
    work: float
    left: list[Member] = field(default_factory=list)
    lost: int = 0
    told: float = 0.0


class OnRay:
    """Trains on a Ray cluster, or on one of this machine's that lives as long as the training.

    **Arguments:**

    - `setting`, `problem`: of the sweep.
    - `source`: `FILE.py:NAME` of a problem in a file, which goes to the workers with the modules
        beside it. A problem without one is pickled, and what it is made of must be importable.
    - `address`: of the cluster: `auto`, `host:port` or `ray://host:port`; none, unless given.
    - `at_once`: how many runs a task trains together; one on each of its cores by default.
    - `cpus`: how many cores of its node a task has; all, up to eight, by default. On a cluster
        with GPUs a task has one of these.
    """

    def __init__(
        self,
        setting: Setting,
        problem: Problem,
        *,
        source: str | None = None,
        address: str | None = None,
        at_once: int | None = None,
        cpus: int | None = None,
    ):
        self.ray = _imported()
        self._is_ours = False
        self._sent: tuple[set[Recipe], Any] | None = None
        self._setting = setting.of(problem)
        self._problem, self._source = problem, source
        self._address, self._at_once, self.cpus = address, at_once, cpus

    def check(self, packs: Sequence[Pack]) -> None:
        """Leaves it to the workers, whose memory is not known here."""

    def close(self) -> None:
        """Leaves the cluster, and ends it if it is of this process."""
        if self._is_ours:
            self.ray.shutdown()
        self._is_ours, self._sent = False, None

    def __call__(
        self, packs: Sequence[Pack], claims: Claims, reporter: Reporter, kept: Kept | None = None
    ) -> Iterator[Done]:
        """Trains the packs in parts, the heaviest first."""
        if any(claims.free(pack.members) for pack in packs):
            self._connect()
            tasks = _Tasks(self, packs, reporter)
            try:
                yield from tasks.trained(claims)
            finally:
                tasks.cancel()

    @property
    def is_local(self) -> bool:
        """Whether the cluster is of this machine alone, and lives as long as the training."""
        return self._address in (None, "local")

    def _connect(self) -> None:
        ray = self.ray
        if ray.is_initialized():
            return
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if self.is_local:
            options |= {"include_dashboard": False, "num_cpus": os.cpu_count()}
            # Training takes all cores, and what Ray runs beside it may answer late.
            options["_system_config"] = {"health_check_failure_threshold": _HEARTBEATS}
        try:
            with warnings.catch_warnings():
                # JAX says so of every fork; what Ray forks starts another program at once.
                warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
                ray.init(self._address or "local", **options)
        # Ray has no class for it, nor for its own process that answers too late, and says much.
        except Exception as error:
            said = str(error).strip().splitlines()[0] if str(error).strip() else ""
            where = self._address or "local"
            raise UsageError(
                f"no Ray cluster at {where}: {said}; start one with `ray start --head`, name it "
                "with --ray-address, or leave that out to have one of this machine alone"
            ) from error
        self._is_ours = True

    def sent(self, packs: Sequence[Pack], devices: int) -> Any:
        """What workers need once, in the cluster's memory."""
        recipes = {one.recipe for pack in packs for one in pack.members}
        if self._sent is None or not recipes <= self._sent[0]:
            self._sent = recipes, self.ray.put(self._parcel(recipes, devices))
        return self._sent[1]

    def _parcel(self, recipes: set[Recipe], devices: int) -> Sent:
        source, files = self._source, list[str]()
        if source is not None and ".py:" in source:
            source = os.path.abspath(source)
            files = _modules_beside(source.rpartition(":")[0])
        rules = [one.entry.file for one in recipes if isinstance(one.entry, Foreign)]
        files += [os.path.abspath(file) for file in rules if file is not None]
        return Sent(
            name=secrets.token_hex(8),
            version=own_version(),
            setting=self._setting,
            facts=self._problem.facts,
            folder=os.getcwd(),
            files={file: Path(file).read_bytes() for file in files},
            source=source,
            pickled=None if source else self.ray.cloudpickle.dumps(self._problem),
            at_once=self._at_once,
            devices=devices,
        )


def resources(nodes: Sequence[dict[str, Any]], cpus: int | None) -> tuple[dict[str, int], int]:
    """What a task asks for, and how many tasks the nodes have room for.

    **Arguments:**

    - `nodes`: as `ray.nodes()` lists them.
    - `cpus`: of a task, if they were asked for.
    """
    found = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = sum(int(one.get("GPU", 0)) for one in found)
    if gpus:
        return {"num_cpus": cpus or 1, "num_gpus": 1}, gpus
    cores = [int(one["CPU"]) for one in found if one.get("CPU", 0) >= 1] or [1]
    asked = min(_MOST_DEVICES, *cores) if cpus is None else cpus
    return {"num_cpus": asked}, max(1, sum(one // asked for one in cores))


class _Tasks:
    """The parts that are on their way, and those that wait."""

    def __init__(self, engine: OnRay, packs: Sequence[Pack], reporter: Reporter):
        self._engine, self._ray, self._reporter = engine, engine.ray, reporter
        asked, workers = resources(self._ray.nodes(), engine.cpus)
        self._sent = engine.sent(packs, asked["num_cpus"])
        # A part that is begun again is to lack what has come back of it.
        options = {**asked, "num_returns": "streaming", "max_retries": 0}
        # Ray looks whether it is a generator, which a check of types around it hides.
        self._task = self._ray.remote(**options)(inspect.unwrap(_on_worker))
        self._waiting = deque(_parts(packs, workers, asked["num_cpus"]))
        self._running: dict[Any, _Part] = {}

    def trained(self, claims: Claims) -> Iterator[Done]:
        """Every run that can be claimed, when it has ended."""
        while self._start(claims):
            ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=1.0)
            for generator in ready:
                yield from self._next(generator)

    def cancel(self) -> None:
        """Stops what still trains."""
        for generator in self._running:
            self._ray.cancel(generator, force=True)

    def _start(self, claims: Claims) -> bool:
        """Starts what there is room for and one part more, so that no worker waits for its next."""
        _, workers = resources(self._ray.nodes(), self._engine.cpus)
        while self._waiting and len(self._running) <= workers:
            part = self._waiting.popleft()
            part.members = claims.take(part.members)
            part.left = list(part.members)
            if part.members:
                texts = [as_text(member) for member in part.members]
                self._running[self._task.remote(self._sent, texts)] = part
                self._reporter.group(part.name, len(part.members))
        return bool(self._running)

    def _next(self, generator: Any) -> Iterator[Done]:
        part = self._running[generator]
        errors = self._ray.exceptions
        try:
            item = self._ray.get(next(generator))
        except StopIteration:
            del self._running[generator]
            return
        except errors.RayTaskError as error:
            raise (error.cause or error) from None
        except errors.RayError as error:
            if self._engine.is_local and isinstance(error, errors.LocalRayletDiedError):
                # Ray ends this process soon, without a word.
                raise UsageError(
                    "Ray's own process on this machine has ended, as it does where memory is short "
                    "or the machine too busy"
                ) from error
            del self._running[generator]
            self._begin_again(part, type(error).__name__)
            return
        if isinstance(item, Ended):
            member = part.members[item.place]
            part.left.remove(member)
            part.told -= part.work
            yield Done(member, item.trained, item.environment)
        else:
            part.told += item.work
            self._reporter.advance(item.work, item.loss)

    def _begin_again(self, part: _Part, reason: str) -> None:
        self._reporter.advance(-max(part.told, 0.0), float("nan"))
        count = len(part.left)
        if part.lost + 1 == _LIVES:
            raise UsageError(
                f"{_LIVES} workers were lost ({reason}) while they trained {part.name}; if it is "
                "for want of memory, give --at-once, or smaller widths"
            )
        self._reporter.say(
            f"a worker was lost ({reason}); {count} run{'' if count == 1 else 's'} of {part.name} "
            "begin anew"
        )
        self._waiting.appendleft(_Part(part.name, part.left, part.work, lost=part.lost + 1))


def _on_worker(sent: Sent, texts: list[MemberText]) -> Iterator[Step | Ended]:
    yield from train_part(sent, texts)


def _parts(packs: Sequence[Pack], workers: int, devices: int) -> Iterator[_Part]:
    """Light packs as they are, heavy ones in equal parts, so that all workers have work.

    A worker compiles each pack that it has a part of; of a light one, a single worker does.
    """
    total = sum(pack.work * len(pack.same) for pack in packs)
    for pack in sorted(packs, key=lambda pack: -pack.work):
        same = pack.same
        count = math.ceil(len(same) * pack.work * _PARTS * workers / total)
        size = max(devices, math.ceil(len(same) / count))
        for start in range(0, len(same), size):
            members = [pack.members[i] for group in same[start : start + size] for i in group]
            yield _Part(pack.name, members, pack.work)


def _imported() -> Any:
    # Ray's own: neither statistics of use, nor a line about them.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        for name in ("ray.cloudpickle", "ray.exceptions"):
            importlib.import_module(name)
    except ImportError:
        raise UsageError("the engine ray needs Ray: pip install 'scalex_eqx[ray]'") from None
    return sys.modules["ray"]


def _modules_beside(file: str) -> list[str]:
    """A problem's file, and those beside it that were imported for it."""
    folder = Path(file).parent
    found = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    beside = [x for x in found if x and x.endswith(".py") and Path(x).is_relative_to(folder)]
    return [file, *sorted(x for x in beside if "site-packages" not in x)]
