"""What is kept of a run and of a sweep, and the keys by which they are found again."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ._errors import UsageError

# Raise it when the meaning of a result changes: it enters every key, so that older rows stay in
# the file but are no longer found.
RESULT_VERSION = 1
STATUSES = ("ok", "diverged")


def run_key(specification: Mapping[str, object]) -> str:
    """The name of a run: SHA-256 of its specification as canonical JSON and `RESULT_VERSION`.

    The order of the fields is immaterial. Everything else counts, and `1` is not `1.0`.
    """
    text = canonical(specification, "specification")
    named = f'{{"result_version":{RESULT_VERSION},"specification":{text}}}'
    return hashlib.sha256(named.encode()).hexdigest()


def canonical(fields: Mapping[str, object], name: str) -> str:
    """The one JSON text of some fields; `name` is what to call them if JSON cannot hold them."""
    content = dict(fields)
    _check_json(content, name)
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def now() -> str:
    """The time in UTC as ISO text, which sorts by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True)
class Row:
    """A finished run.

    **Arguments:**

    - `key`: the `run_key` of the specification.
    - `specification`: all that the result depends on.
    - `status`: `"ok"` or `"diverged"`.
    - `held_out_loss`: finite; `None` only if the run diverged.
    - `result`: anything further.
    - `created`: the time in UTC, in ISO format.
    """

    key: str
    specification: Mapping[str, Any]
    status: str
    held_out_loss: float | None
    result: Mapping[str, Any]
    created: str

    def __post_init__(self) -> None:
        loss = self.held_out_loss
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r}; expected one of {STATUSES}")
        if loss is None and self.status == "ok":
            raise ValueError("held_out_loss is None; expected a number in a run that is ok")
        if loss is not None and not math.isfinite(loss):
            raise ValueError(f"held_out_loss {loss}; expected a finite number or None")

    @classmethod
    def of(
        cls,
        specification: Mapping[str, Any],
        *,
        status: str,
        held_out_loss: float | None,
        result: Mapping[str, Any],
    ) -> "Row":
        """The row of a run that ended now; `None` replaces what is not finite in `result`."""
        finite = {name: _finite_or_none(value) for name, value in result.items()}
        key = run_key(specification)
        return cls(key, dict(specification), status, held_out_loss, finite, now())


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
    if isinstance(value, dict):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise UsageError(f"{name} has a field named {key!r}; expected text as its name")
            _check_json(entry, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for position, entry in enumerate(value):
            _check_json(entry, f"{name}[{position}]")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise UsageError(f"{name} is {value}; expected a finite number, or None")
    elif value is not None and not isinstance(value, str | int):
        kind = type(value).__name__
        raise UsageError(f"{name} is of type {kind}; expected what JSON holds; convert it")


def _finite_or_none(value: object) -> object:
    if isinstance(value, dict):
        return {name: _finite_or_none(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite_or_none(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
