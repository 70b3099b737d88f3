import dataclasses
from pathlib import Path

import tyro
from rich.console import Console

from .._usage import UsageError, shown
from ..experiments._merge import merge
from ..experiments._transfer import STORE


@dataclasses.dataclass(frozen=True)
class Merge:
    """Put the runs of shards, or of other stores, into one store.

    A run that the store has stays as it is. Lines that are torn or damaged, files of something
    else, and runs that have other numbers in the store are named and left out.

    Example: scalex merge runs/all runs/shards
    """

    store: tyro.conf.Positional[Path]
    """The store to add to, or the folder it is or will be in."""
    sources: tyro.conf.Positional[tuple[Path, ...]]
    """Files of runs, folders of these, and other stores."""

    def run(self, console: Console) -> None:
        if not self.sources:
            raise UsageError("no files are named; give those to add behind the store")
        is_file = self.store.is_file() or self.store.suffix == ".sqlite"
        store = self.store if is_file else self.store / STORE

        def warn(line: str) -> None:
            console.print(line, style="yellow", soft_wrap=True)

        found = merge(store, self.sources, warn)
        console.print(
            f"{shown(store)}: {_counted(found.added, 'run')} added from "
            f"{_counted(found.files, 'file')}; {found.there} were there already, "
            f"{found.differing} of them with other numbers",
            soft_wrap=True,
        )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
