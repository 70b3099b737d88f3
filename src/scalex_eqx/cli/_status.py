import dataclasses
import functools
from datetime import datetime, timedelta
from pathlib import Path

import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..experiments._status import GroupStatus, Owner, Status as Found, status
from ..experiments._transfer import STORE

_COLUMNS = ("planned", "ok", "diverged", "stopped", "claimed", "missing")


@dataclasses.dataclass(frozen=True)
class Status:
    """Say how far the last sweep of a store is: what has finished, what somebody is training, and
    how long the rest takes.

    Example: scalex status runs/transfer
    """

    store: tyro.conf.Positional[Path]
    """The store, or the folder it is in."""

    def run(self, console: Console) -> None:
        path = self.store / STORE if self.store.is_dir() else self.store
        found = status(path, functools.partial(console.print, style="yellow", soft_wrap=True))
        for recipe in dict.fromkeys(recipe for recipe, _ in found.groups):
            console.print(_table(recipe, found))
        for owner in found.owners:
            console.print(_said(owner), soft_wrap=True)
        console.print(_summary(found), soft_wrap=True)


def _table(recipe: str, found: Found) -> Table:
    title = Text(recipe, style="bold")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in (found.axis.noun, *_COLUMNS):
        table.add_column(name, justify="right")
    for (name, size), group in found.groups.items():
        if name == recipe:
            table.add_row(str(size), *map(str, _counts(group)))
    return table


def _counts(group: GroupStatus) -> tuple[int, ...]:
    missing = group.planned - group.finished
    return group.planned, group.ok, group.diverged, group.stopped, group.claimed, missing


def _said(owner: Owner) -> str:
    since = datetime.fromtimestamp(owner.since).astimezone().isoformat(" ", "seconds")
    runs = f"{owner.runs} run{'' if owner.runs == 1 else 's'}"
    return f"{owner.name} has claimed {runs}, since {since}"


def _summary(found: Found) -> str:
    planned = sum(group.planned for group in found.groups.values())
    finished = sum(group.finished for group in found.groups.values())
    text = f"{finished} of {planned} runs have finished"
    if finished == planned:
        return text
    if found.seconds_left is None:
        return f"{text}; the time left is known once one has"
    left = timedelta(seconds=round(found.seconds_left))
    processes = max(len(found.owners), 1)
    by = f"{processes} process{'' if processes == 1 else 'es'}"
    return f"{text}; about {left} left by {by}, as long as the finished ones took"
