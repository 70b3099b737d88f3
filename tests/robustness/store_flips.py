"""Flips bits of a store, and reports and resumes it: `python tests/robustness/store_flips.py`.

Each damaged store must be survived with the right numbers, or with one line of text that names the
file; runs that are lost must be called missing. Half of the bits are anywhere in the file, half in
the text of rows. To resume is to open the store to write, to train what it lacks and to read
everything again; the training is made up, of the rows that the undamaged store has.
"""

import argparse
import io
import json
import random
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console

from scalex_eqx.experiments import Sweep, UsageError, _transfer
from scalex_eqx.experiments._layout import row_values
from scalex_eqx.experiments._rows import Row
from scalex_eqx.experiments._store import Store

STORE = Path(__file__).parents[1] / "experiments" / "store_version_1.sqlite"
GOOD = ("right numbers", "right numbers and a line", "one line")


class Truth:
    """What the undamaged store holds."""

    def __init__(self, path: Path) -> None:
        self.data = path.read_bytes()
        with Store.open(path, create=False) as store:
            configuration = dict(store.sweeps()[0].configuration)
            sweep = Sweep.from_json(configuration)
            self.keys = list(sweep.keys(configuration["problem"]).values())
            self.rows = store.rows(self.keys, curves=True)
        self.report = reported(path)[0]

    def flips(self, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
        """Kind and content of files with one flipped bit."""
        draw = random.Random(seed)
        texts = [place for row in self.rows.values() for place in self._places(row)]
        for i in range(count):
            place = draw.choice(texts) if i % 2 else draw.randrange(len(self.data))
            changed = bytearray(self.data)
            changed[place] ^= 1 << draw.randrange(8)
            yield ("text of a row" if i % 2 else "anywhere"), bytes(changed)

    def _places(self, row: Row) -> range:
        content = b"".join(
            part.encode() if isinstance(part, str) else part for part in row_values(row)
        )
        start = self.data.index(content)
        return range(start, start + len(content))


def make(path: Path) -> None:
    """A store of this layout, out of the one of layout 1 that the tests have."""
    shutil.copy(STORE, path)
    Store.open(path, create=True).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # Its other sweep would be reported, with one line, where the last one is damaged.
        connection.execute("DELETE FROM sweeps WHERE rowid < (SELECT max(rowid) FROM sweeps)")
        connection.execute("VACUUM")  # Of what stood there before.


def reported(path: Path) -> tuple[Any, str]:
    """Facts and runs of a report, and what it said."""
    said = io.StringIO()
    with mock.patch.object(_transfer, "_write_report") as write:
        _transfer.report(path, Console(file=said, width=10_000))
    _, _, facts, runs, _ = write.call_args.args
    return (facts, runs), said.getvalue()


def outcome_of_report(path: Path, truth: Truth) -> str:
    """What a report of a damaged store is like."""
    try:
        (facts, runs), said = reported(path)
    except UsageError as error:
        return _line(str(error), path)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    lines = [line for line in said.splitlines() if str(path) in line and "damaged" in line]
    if (facts, runs) == truth.report:
        return "right numbers and a line" if lines else "right numbers"
    if not all(run in truth.report[1] for run in runs):
        return "other numbers"
    if len(runs) < len(truth.report[1]) and "runs are missing" in said:
        return "one line"
    return "one line" if lines else "other facts"


def outcome_of_resuming(path: Path, truth: Truth) -> str:
    """What a store is like that was damaged, and gone on with."""
    lines: list[str] = []
    try:
        with Store.open(path, create=True, warn=lines.append) as store:
            missing = store.missing(truth.keys)
            before = store.rows(truth.keys)
            store.claim(missing, "me", 60.0)
            store.add([truth.rows[key] for key in missing])
        with Store.open(path, create=False, warn=lines.append) as store:
            after = store.rows(truth.keys)
    except UsageError as error:
        return _line(str(error), path)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if any(truth.rows[key] != row for key, row in {**before, **after}.items()):
        return "other numbers"
    if set(after) != set(truth.keys):
        return "runs missing after all were trained"
    return "right numbers and a line" if lines else "right numbers"


def _line(text: str, path: Path) -> str:
    clear = str(path) in text and "\n" not in text and ";" in text
    return "one line" if clear else f"unclear: {text}"


def run(count: int, folder: Path, seed: int = 0) -> dict[str, dict[str, int]]:
    """How often each outcome was seen, by what was done and where the bit was."""
    path = folder / "runs.sqlite"
    make(path)
    truth = Truth(path)
    found: dict[str, Counter[str]] = {}
    for kind, data in truth.flips(count, seed):
        for name, outcome in (("report", outcome_of_report), ("resume", outcome_of_resuming)):
            for left in folder.glob("runs.sqlite*"):
                left.unlink()
            path.write_bytes(data)
            found.setdefault(f"{name}, {kind}", Counter())[outcome(path, truth)] += 1
    return {kind: dict(outcomes) for kind, outcomes in sorted(found.items())}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file for the counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(options.flips, Path(folder), options.seed)
    for kind, outcomes in found.items():
        print(f"{kind:24} " + ", ".join(f"{n} {outcome}" for outcome, n in outcomes.items()))
    if options.out:
        options.out.write_text(json.dumps(found, indent=2) + "\n")
    return int(any(set(outcomes) - set(GOOD) for outcomes in found.values()))


if __name__ == "__main__":
    sys.exit(main())
