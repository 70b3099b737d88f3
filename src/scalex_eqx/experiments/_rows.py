"""What is kept of a run and of a sweep, and the keys by which they are found again."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._usage import UsageError

# Raise it when the meaning of a result changes: it enters every key, so that older rows stay in
# the file but are no longer found.
RESULT_VERSION = 2
STATUSES = ("ok", "diverged", "stopped")
# The metric by which runs are judged.
JUDGED = "held_out_loss"

Curves = Mapping[str, NDArray[np.float32]]


def run_key(specification: Mapping[str, object]) -> str:
    """The name of a run: SHA-256 of its specification as canonical JSON and `RESULT_VERSION`.

    The order of the fields is immaterial. Everything else counts, and `1` is not `1.0`.
    """
    return _digest(canonical(specification, "specification"))


def sweep_key(configuration: Mapping[str, object], environment: Mapping[str, object]) -> str:
    """The name of a sweep in an environment."""
    texts = {
        "configuration": canonical(configuration, "configuration"),
        "environment": canonical(environment, "environment"),
    }
    return run_key(texts)


def run_keys(shared: Mapping[str, object], varying: Sequence[Mapping[str, object]]) -> list[str]:
    """`run_key(shared | fields)` for each of the `varying` fields, which all have the same names.

    What is shared becomes text once: of 50,000 keys that is nearly all of the work.
    """
    if not varying:
        return []
    names = sorted({*shared, *varying[0]})
    # Before each of the varying fields, and behind the last: what stands in between.
    varied, between = [], ["{"]
    for place, name in enumerate(names):
        between[-1] += "," if place else ""
        if name in varying[0]:
            varied.append(name)
            between[-1] += f"{json.dumps(name)}:"
            between.append("")
        else:
            between[-1] += canonical({name: shared[name]}, "specification")[1:-1]
    between[-1] += "}"
    return [
        _digest(
            "".join(
                before + _text(fields[name]) for before, name in zip(between, varied, strict=False)
            )
            + between[-1]
        )
        for fields in varying
    ]


def _text(value: object) -> str:
    # Most are numbers, which JSON writes as Python does.
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        return repr(value)
    return canonical({"": value}, "specification")[len('{"":') : -1]


def _digest(text: str) -> str:
    named = f'{{"result_version":{RESULT_VERSION},"specification":{text}}}'
    return hashlib.sha256(named.encode()).hexdigest()


def canonical(fields: Mapping[str, object], name: str) -> str:
    """The one JSON text of some fields; `name` is what to call them if JSON cannot hold them."""
    content = dict(fields)
    _check_json(content, name)
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def checksum(*parts: str | bytes) -> bytes:
    """Eight bytes of BLAKE2b over the parts and their lengths.

    Not CRC-32, which misses one in four billion of the random texts that a damaged page can put
    in a row's place; it would save a microsecond a row.
    """
    content = [part.encode() if isinstance(part, str) else part for part in parts]
    lengths = ",".join([str(len(part)) for part in content]).encode()
    return hashlib.blake2b(b":".join([lengths, *content]), digest_size=8).digest()


def now() -> str:
    """The time in UTC as ISO text, which sorts by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True)
class Row:
    """A run that has ended.

    **Arguments:**

    - `key`: the `run_key` of the specification.
    - `specification`: all that the result depends on.
    - `status`: `"ok"`, `"diverged"`, or `"stopped"` if it was ended before its last step: what it
        has then is not the result of its specification.
    - `metrics`: finite numbers or `None` by name. The one that is judged is `held_out_loss`, and
        only a run that isn't ok may lack it.
    - `result`: anything further.
    - `created`: the time in UTC, in ISO format.
    - `curves`: numbers over the training's steps, by name. They are stored apart, in float32, and
        are only read by those who ask for them: two rows that differ in them alone are equal.
    """

    key: str
    specification: Mapping[str, Any]
    status: str
    metrics: Mapping[str, float | None]
    result: Mapping[str, Any]
    created: str
    curves: Curves = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r}; expected one of {STATUSES}")
        if self.status == "ok" and self.held_out_loss is None:
            raise ValueError(f"{JUDGED} is None; expected a number in a run that is ok")
        for name, value in self.metrics.items():
            if value is not None and not math.isfinite(value):
                raise ValueError(f"metric {name} is {value}; expected a finite number or None")

    @property
    def held_out_loss(self) -> float | None:
        """The metric that is judged."""
        return self.metrics.get(JUDGED)

    @classmethod
    def of(
        cls,
        specification: Mapping[str, Any],
        *,
        status: str,
        metrics: Mapping[str, float | None],
        result: Mapping[str, Any],
        curves: Mapping[str, Any] | None = None,
    ) -> "Row":
        """The row of a run that ended now; `None` replaces what is not finite in `result`."""
        finite = {name: _finite_or_none(value) for name, value in result.items()}
        arrays = {name: np.asarray(value, np.float32) for name, value in (curves or {}).items()}
        key = run_key(specification)
        return cls(key, dict(specification), status, dict(metrics), finite, now(), arrays)


@dataclass(frozen=True)
class SweepRow:
    """A sweep as it was asked for, where it ran, and when it was first and last started."""

    key: str
    configuration: Mapping[str, Any]
    environment: Mapping[str, Any]
    created: str
    updated: str


def _check_json(value: object, name: str) -> None:
    """Refuses what JSON would refuse or quietly change, and names the field."""
    if value is None or isinstance(value, str | int):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UsageError(f"{name} is {value}; expected a finite number, or None")
    elif isinstance(value, dict):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise UsageError(f"{name} has a field named {key!r}; expected text as its name")
            _check_json(entry, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for position, entry in enumerate(value):
            _check_json(entry, f"{name}[{position}]")
    else:
        kind = type(value).__name__
        raise UsageError(f"{name} is of type {kind}; expected what JSON holds; convert it")


def _finite_or_none(value: object) -> object:
    if isinstance(value, dict):
        return {name: _finite_or_none(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite_or_none(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
