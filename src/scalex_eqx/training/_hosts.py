"""Several hosts that train one model: how they find each other, and that they agree."""

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._usage import UsageError

AUTO = "auto"

# Bytes of an error that the other hosts are told.
_TOLD = 1000


def connect(coordinator: str, processes: int | None = None, process: int | None = None) -> None:
    """Joins this process to the others; has to be called before a device is looked at.

    **Arguments:**

    - `coordinator`: `HOST:PORT` of process 0, or `auto` where a SLURM cluster, a TPU slice or Open
        MPI says where that is, and how many processes there are.
    - `processes`, `process`: how many, and which of them this is, from 0; both beside `HOST:PORT`.

    **Raises:** `UsageError` if the others are not found.
    """
    if coordinator == AUTO and (processes is None) != (process is None):
        raise UsageError("--processes and --process go together; give both, or none of them")
    if coordinator != AUTO and (processes is None or process is None or ":" not in coordinator):
        raise UsageError(
            f"--coordinator {coordinator} needs a port, --processes and --process, as "
            "--coordinator 10.0.0.1:7777 --processes 2 --process 0; auto asks SLURM, a TPU slice "
            "or Open MPI"
        )
    if processes is not None and process is not None and not 0 <= process < processes:
        raise UsageError(
            f"--process is {process} of --processes {processes}; expected 0 to {processes - 1}"
        )
    given: dict[str, Any] = {"num_processes": processes, "process_id": process}
    if coordinator != AUTO:
        given["coordinator_address"] = coordinator
    try:
        jax.distributed.initialize(**given)
    except (RuntimeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise UsageError(
            f"--coordinator {coordinator}: {said}; check that process 0 runs there and that all "
            "have been started"
        ) from error


def check_agreement(facts: Mapping[str, Any]) -> None:
    """Refuses hosts that would not train the same model.

    **Arguments:**

    - `facts`: what has to be the same on all, by the names that an error says.

    **Raises:** `UsageError`, on every host, that names the facts and the processes that differ from
        process 0.
    """
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    digests = {name: _digest(value) for name, value in {**facts, "code": code()}.items()}
    own = np.array([np.frombuffer(digest, np.uint32) for digest in digests.values()])
    found = np.asarray(multihost_utils.process_allgather(own))
    said = [
        f"{name} (process {', '.join(map(str, others))})"
        for index, name in enumerate(digests)
        if (others := np.flatnonzero((found[:, index] != found[0, index]).any(axis=-1))).size
    ]
    if said:
        raise UsageError(
            f"the hosts don't agree on {'; '.join(said)}, beside process 0; start the same "
            "command, on the same data, with the same versions on all of them"
        )


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """What fails in here on one host fails on all, which would wait for it otherwise.

    All hosts have to come here in the same order.

    **Raises:** what was raised in here; on the other hosts `UsageError` that says it, and where.
    """
    if jax.process_count() == 1:
        yield
        return
    try:
        yield
    except Exception as error:
        _told(str(error) or type(error).__name__)
        raise
    said = [f"process {i}: {text}" for i, text in enumerate(_told("")) if text]
    if said:
        raise UsageError("; ".join(said))


def _told(text: str) -> list[str]:
    """The text that each host has."""
    from jax.experimental import multihost_utils

    own = np.frombuffer(text.encode()[:_TOLD].ljust(_TOLD, b"\0"), np.uint8)
    every = np.asarray(multihost_utils.process_allgather(own))
    return [one.tobytes().rstrip(b"\0").decode(errors="ignore") for one in every]


def code() -> dict[str, str]:
    """The versions of what computes, and a digest of this package's source."""
    import equinox as eqx
    import optax

    return {
        "jax": jax.__version__,
        "equinox": eqx.__version__,
        "optax": optax.__version__,
        "scalex_eqx": _source(),
    }


@functools.cache
def _source() -> str:
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _digest(value: Any) -> bytes:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()[:16]
