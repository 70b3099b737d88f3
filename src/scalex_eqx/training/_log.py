"""What a training has said of itself: a file of JSON lines."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from .._files import written_whole
from .._usage import UsageError, shown

LOG = "log.jsonl"


class Log:
    """A line a step and one an evaluation, in the order of the steps.

    A training that goes on from a checkpoint drops the lines behind it, which it writes anew.

    **Arguments:**

    - `folder`: where the file is, or will be.
    - `step`: up to which lines are kept, that of the checkpoint from which the training goes on; 0
        for none.
    - `name`: of the file.
    """

    def __init__(self, folder: Path, step: int, name: str = LOG):
        path = folder / name
        kept = [line for line in read_log(path) if line["step"] <= step] if step else []
        with written_whole(path) as unfinished:
            unfinished.write_text("".join(map(_line, kept)), encoding="utf-8")
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def write(self, step: int, **said: Any) -> None:
        """A line about a step; what is no finite number stands as text."""
        self._file.write(_line({"step": step, **said}))

    def flush(self) -> None:
        """Hands what was written to the system."""
        self._file.flush()

    def close(self) -> None:
        """Writes what is left."""
        self._file.close()


def read_log(path: Path) -> Iterator[Mapping[str, Any]]:
    """The lines of a log. The last one of a process that was killed may be cut, and is left out.

    **Raises:** `UsageError` for a line that is none.
    """
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            found = json.loads(line)
            yield {**found, "step": int(found["step"])}
        except (ValueError, TypeError, KeyError):
            raise UsageError(
                f"{shown(path)}: line {number} is no line of a training's log; move the file away"
            ) from None


def _line(said: Mapping[str, Any]) -> str:
    plain = {
        name: str(x) if isinstance(x, float) and not math.isfinite(x) else x
        for name, x in said.items()
    }
    return json.dumps(plain, allow_nan=False) + "\n"
