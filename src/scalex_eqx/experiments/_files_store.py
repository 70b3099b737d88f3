"""Runs in append-only files, one for each process: for machines that share nothing but a disk.

SQLite's locks can't be trusted on many network file systems. So each process of a sweep in shards
writes a file of its own, a line a run, and `merge` puts what is in the files into a store.
"""

import base64
import json
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .._files import sync_folder
from .._usage import UsageError, shown
from ._layout import LAYOUT_VERSION, Warn
from ._rows import Row, SweepRow, canonical, checksum, now, sweep_key

ENDING = ".jsonl"
Entry = Row | SweepRow


class RowWriter:
    """Appends runs to a new file in a folder; a context manager that closes it.

    A run is on the disk when `add` returns. What a process that was killed leaves is whole but for
    its last line.
    """

    def __init__(self, folder: Path | str, shard: str = "") -> None:
        """Begins a file whose name has the host, the process and the shard.

        **Arguments:**

        - `folder`: where; it is made if it isn't there.
        - `shard`: as `3/16`, for people who look into the folder.

        **Raises:** `UsageError` if the folder can't be written.
        """
        words = [socket.gethostname(), str(os.getpid()), shard, secrets.token_hex(4)]
        name = "-".join(re.sub(r"[^\w.]+", "-", word) for word in words if word) + ENDING
        self.path = Path(folder) / name
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            self._descriptor = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise self._failed(error) from error
        sync_folder(self.path.parent)

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        os.close(self._descriptor)

    def add(self, rows: Sequence[Row]) -> None:
        """Keeps all the rows.

        **Raises:** `UsageError` if the disk is full, or the file is no longer where it was begun.
        """
        self._append([_run_line(row) for row in rows])

    def add_sweep(
        self, configuration: Mapping[str, object], environment: Mapping[str, object]
    ) -> None:
        """Notes what is trained, for reports of the store that the file is merged into."""
        time, key = now(), sweep_key(configuration, environment)
        self._append([_sweep_line(SweepRow(key, configuration, environment, time, time))])

    def _append(self, lines: Iterable[str]) -> None:
        content = "".join(f"{line}\n" for line in lines).encode()
        try:
            end = self._check().st_size
            try:
                _write(self._descriptor, content)
                os.fsync(self._descriptor)
            except OSError:
                # What follows a part of a line would be lost with it.
                with suppress(OSError):
                    os.ftruncate(self._descriptor, end)
                raise
        except OSError as error:
            raise self._failed(error) from error

    def _check(self) -> os.stat_result:
        own = os.fstat(self._descriptor)
        with suppress(FileNotFoundError):
            if os.path.samestat(own, os.stat(self.path)):
                return own
        raise UsageError(
            f"file of runs {shown(self.path)} was deleted or replaced while this process wrote "
            "into it; nothing more can be kept there: start again"
        )

    def _failed(self, error: OSError) -> UsageError:
        return UsageError(
            f"file of runs {shown(self.path)}: {error.strerror or error}; expected a folder that "
            "can be written, on a disk that has space; make it so, or name another"
        )


def read_rows(sources: Iterable[Path | str], warn: Warn) -> Iterator[Row]:
    """The runs in some files, or in all files of some folders, each as often as it is there.

    **Arguments:**

    - `sources`: what to read.
    - `warn`: is told in one line of each file that is not one of runs, or has lines that are torn
        or damaged; they are left out.

    **Raises:** `UsageError` if there is no such file or folder.
    """
    for entry in read_entries(sources, warn):
        if isinstance(entry, Row):
            yield entry


def read_entries(sources: Iterable[Path | str], warn: Warn) -> Iterator[Entry]:
    """The runs and the sweeps, as `read_rows` gives the runs."""
    for path in files(sources):
        yield from _read(path, warn)


def files(sources: Iterable[Path | str]) -> Iterator[Path]:
    """The files themselves and those in the folders, in the order of their names."""
    for source in map(Path, sources):
        if source.is_dir():
            yield from sorted(one for one in source.iterdir() if one.suffix == ENDING)
        elif source.is_file():
            yield source
        else:
            raise UsageError(f"{shown(source)} is no file and no folder; name those of the runs")


def _read(path: Path, warn: Warn) -> Iterator[Entry]:
    wrong: list[int] = []
    torn, count = False, 0
    try:
        with path.open("rb") as file:
            for count, line in enumerate(file, 1):
                entry = _entry(line)
                if entry is not None:
                    yield entry
                elif not line.endswith(b"\n"):
                    torn = True
                else:
                    wrong.append(count)
    except OSError as error:
        warn(f"{shown(path)}: {error.strerror}; left out from line {count + 1} on")
    if count and len(wrong) + torn == count:
        warn(f"{shown(path)} is not a file of runs, and left out")
        return
    if wrong:
        places = ", ".join(map(str, wrong[:3])) + (", ..." if len(wrong) > 3 else "")
        warn(f"{shown(path)}: {len(wrong)} of {count} lines are damaged (line {places}), left out")
    if torn:
        warn(f"{shown(path)}: its last line is torn, and left out")


def _line(kind: str, fields: Mapping[str, object]) -> str:
    text = canonical(fields, kind)
    return json.dumps(
        {"scalex": LAYOUT_VERSION, kind: json.loads(text), "checksum": checksum(kind, text).hex()},
        separators=(",", ":"),
    )


def _run_line(row: Row) -> str:
    curves = {
        name: base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()
        for name, values in row.curves.items()
    }
    return _line("run", {**vars(row), "curves": curves})


def _sweep_line(sweep: SweepRow) -> str:
    return _line("sweep", vars(sweep))


def _entry(line: bytes) -> Entry | None:
    """What a line says, or `None` if it is damaged, torn or of something else."""
    try:
        fields = json.loads(line)
        for kind, read in _READERS.items():
            if kind in fields and fields["scalex"] == LAYOUT_VERSION:
                found = fields[kind]
                intact = checksum(kind, canonical(found, kind)).hex() == fields["checksum"]
                return read(found) if intact else None
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return None


def _run(fields: dict[str, Any]) -> Row:
    curves = {
        name: np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)
        for name, text in fields.pop("curves").items()
    }
    return Row(**fields, curves=curves)


def _sweep(fields: dict[str, Any]) -> SweepRow:
    return SweepRow(**fields)


_READERS: dict[str, Callable[[dict[str, Any]], Entry]] = {"run": _run, "sweep": _sweep}


def _write(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
