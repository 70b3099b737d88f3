"""What a worker of a cluster does: it has the problem sent, and trains parts of packs."""

import atexit
import contextlib
import os
import pickle
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from .._usage import UsageError
from .._version import version
from ..problems import Problem, load_problem
from ._config import Member, Setting
from ._engines import environment
from ._recipe import parse_recipe
from ._rows import RESULT_VERSION
from ._slots import Trained
from ._train import Kept, packs, train_pack

# Between two words of how far a part is, in seconds.
_TELLS = 1.0


class Sent(NamedTuple):
    """What a worker is sent once, whatever it trains.

    **Arguments:**

    - `name`: of this parcel alone.
    - `version`: of the package, and of what a run computes.
    - `setting`, `facts`: of the sweep, and of its problem.
    - `folder`: where the command was started.
    - `files`: the content of files by their absolute paths.
    - `source`: `FILE.py:NAME` among these, with its absolute path, or a name of ours.
    - `pickled`: the problem, if it isn't in a file.
    - `at_once`, `devices`: how many runs train together, on how many devices of the CPU.
    """

    name: str
    version: str
    setting: Setting
    facts: Mapping[str, Any]
    folder: str
    files: Mapping[str, bytes]
    source: str | None
    pickled: bytes | None
    at_once: int | None
    devices: int


class Step(NamedTuple):
    """Some work is done, and the mean training loss."""

    work: float
    loss: float


class Ended(NamedTuple):
    """A run of the part has ended: which one, and where."""

    place: int
    trained: Trained
    environment: Mapping[str, object]


MemberText = tuple[str, int, float, int]


def own_version() -> str:
    """Of the package, and of what a run computes."""
    return f"{version()}, results {RESULT_VERSION}"


def as_text(member: Member) -> MemberText:
    """The run in a form in which any process can be told of it."""
    return str(member.recipe), member.size, member.learning_rate, member.seed


def train_part(sent: Sent, runs: Sequence[MemberText]) -> Iterator[Step | Ended]:
    """Trains runs of one pack, and yields each when it has ended, and about once a second how far
    they are.

    **Raises:** `UsageError` if this worker is of another version, or can't have the problem.
    """
    if sent.version != own_version():
        raise UsageError(
            f"a worker has scalex_eqx {own_version()}, and this process {sent.version}; install "
            "the same on all machines of the cluster"
        )
    # Fails once JAX runs, which then has the devices of an earlier part.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", sent.devices)
    found: queue.SimpleQueue[Step | Ended | BaseException | None] = queue.SimpleQueue()

    def train() -> None:
        try:
            _train(sent, runs, found)
            found.put(None)
        # Whatever it is, the one who waits has to hear of it.
        except BaseException as error:
            found.put(error)

    # A generator can say nothing while its run trains.
    threading.Thread(target=train, daemon=True).start()
    work, loss, told = 0.0, float("nan"), time.monotonic()
    while True:
        item = found.get()
        if isinstance(item, BaseException):
            raise item
        if isinstance(item, Step):
            work, loss = work + item.work, item.loss
            if time.monotonic() - told > _TELLS:
                yield Step(work, loss)
                work, told = 0.0, time.monotonic()
        elif work:
            yield Step(work, loss)
            work, told = 0.0, time.monotonic()
        if item is None:
            return
        if isinstance(item, Ended):
            yield item


def _train(sent: Sent, runs: Sequence[MemberText], found: queue.SimpleQueue) -> None:
    problem, kept = _opened(sent)
    members = [Member(parse_recipe(text), width, rate, seed) for text, width, rate, seed in runs]
    (pack,) = packs(problem, sent.setting, members, kept)
    # What another pack has compiled, and its data on the devices, would stay for ever.
    for signature in [one for one in kept.slots if one != pack.signature]:
        del kept.slots[signature]
    work, where = pack.work_of_step, environment()

    def progress(steps: int, loss: float) -> None:
        found.put(Step(steps * work, loss))

    try:
        for member, trained in train_pack(pack, at_once=sent.at_once, progress=progress, kept=kept):
            found.put(Ended(members.index(member), trained, where))
    except BaseException:
        kept.slots.clear()
        raise


_last: list[tuple[str, Problem, Kept]] = []


def _opened(sent: Sent) -> tuple[Problem, Kept]:
    """The problem, and what is compiled for it, which both stay until another is sent."""
    if not _last or _last[0][0] != sent.name:
        _last[:] = [(sent.name, _problem(sent), Kept(expected=sent.devices))]
    return _last[0][1:]


def _problem(sent: Sent) -> Problem:
    folder, source = _files(sent)
    os.chdir(folder)
    if source is None:
        return pickle.loads(sent.pickled or b"")
    problem = load_problem(source)
    if problem.facts != sent.facts:
        raise UsageError(
            f"the problem {sent.source} is another on a worker: {problem.facts}, and here "
            f"{dict(sent.facts)}; put the same data on all machines"
        )
    return problem


def _files(sent: Sent) -> tuple[Path, str | None]:
    """The folder to be in, and the problem's name there.

    Where the machine has the very files, they are used, with what lies beside them.
    """
    file, _, name = (sent.source or "").rpartition(":")
    if os.path.isdir(sent.folder) and all(map(_is_there, sent.files, sent.files.values())):
        return Path(sent.folder), sent.source
    folder = Path(tempfile.mkdtemp(prefix="scalex-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for path, content in sent.files.items():
        place = folder / placed(path, sent)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return folder, f"{folder / placed(file, sent)}:{name}" if sent.source else None


def placed(path: str, sent: Sent) -> Path:
    """Where a file is to lie in a worker's folder: as from that of the command, or as from that of
    the problem's file."""
    beside = os.path.dirname((sent.source or "").rpartition(":")[0])
    for root in (sent.folder, beside):
        if root and Path(path).is_relative_to(root):
            return Path(path).relative_to(root)
    return Path(Path(path).name)


def _is_there(path: str, content: bytes) -> bool:
    try:
        return Path(path).read_bytes() == content
    except OSError:
        return False
