"""Several processes that train one sweep in one store: none trains what another has claimed."""

import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .. import _process
from . import _alive, _claims
from ._config import Member
from ._opening import BUSY_SECONDS, aside
from ._store import Claim, Store, fold_in

# A claim outlives what a busy disk or two clocks may differ by, and is no long wait where a
# machine was lost whose lock nobody gave back. Four renewals may fail.
HELD = 300.0
_RENEWED = 60.0
_LOOK = 0.5


class Sharing:
    """The runs of a store that this process may train.

    **Arguments:**

    - `store`, `keys`: where they are kept, and what they are called there.
    - `owner`: the process's name in claims.
    """

    def __init__(self, store: Store, keys: Mapping[Member, str], owner: str):
        self._store = store
        self._keys = keys
        self._owner = owner

    def free(self, members: Sequence[Member]) -> list[Member]:
        """Those that have not ended and that nobody else holds."""
        wanted = [self._keys[one] for one in members]
        open_ = set(self._store.missing(wanted)) - {claim.key for claim in self.others()}
        return [one for one in members if self._keys[one] in open_]

    def take(self, members: Sequence[Member]) -> list[Member]:
        """Claims those of the runs that are free."""
        wanted = [self._keys[one] for one in members]
        taken = set(self._store.claim(wanted, self._owner, HELD))
        return [one for one in members if self._keys[one] in taken]

    def give_back(self, members: Sequence[Member]) -> None:
        """Drops the claims on runs that are not trained after all."""
        keys = [self._keys[one] for one in members]
        aside(
            self._store.path,
            lambda file: _claims.give_back(file, keys, self._owner),
            seconds=BUSY_SECONDS,
        )

    def others(self) -> list[Claim]:
        """What other living processes hold, of whatever sweep."""
        bury(self._store)
        return [claim for claim in self._store.claims() if claim.owner != self._owner]

    def holders(self, members: Sequence[Member]) -> dict[str, int]:
        """How many of the runs each other process holds."""
        keys = {self._keys[one] for one in members}
        found: dict[str, int] = {}
        for claim in self.others():
            if claim.key in keys:
                found[claim.owner] = found.get(claim.owner, 0) + 1
        return found

    def look_again(self) -> None:
        """Waits for a moment, while others train what is left."""
        time.sleep(_LOOK)


@contextmanager
def sharing(store: Store, keys: Mapping[Member, str]) -> Iterator[Sharing]:
    """Claims are renewed meanwhile, and given back in the end."""
    folder, path = store.path.parent, store.path
    with _alive.living(folder) as owner, _renewing(path, owner):
        bury(store)

        def let_go() -> None:
            aside(path, lambda file: _claims.release(file, owner), seconds=1.0)

        try:
            # In the order of the last first.
            with _process.if_stopped(lambda: fold_in(path)), _process.if_stopped(let_go):
                yield Sharing(store, keys, owner)
        finally:
            # A store that is gone, or a disk that is full: the lock and the time say the same.
            with suppress(sqlite3.Error):
                let_go()


def bury(store: Store) -> None:
    """Drops the claims of processes that have died, as far as it is known."""
    for ending, path in _alive.dead(store.path.parent):
        for owner in {claim.owner for claim in store.claims() if claim.owner.endswith(ending)}:
            store.release(owner)
        with suppress(OSError):
            path.unlink(missing_ok=True)


def of_the_living(path: Path, claims: Sequence[Claim]) -> list[Claim]:
    """Without those of processes that have died, for whoever only looks."""
    endings = tuple(ending for ending, _ in _alive.dead(path.parent))
    return [claim for claim in claims if not claim.owner.endswith(endings)]


@contextmanager
def _renewing(path: Path, owner: str) -> Iterator[None]:
    """Renews what `owner` holds, whatever the main thread is busy with."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(_RENEWED):
            # What fails now is tried again before the claims expire.
            with suppress(sqlite3.Error):
                aside(path, lambda file: _claims.renew(file, owner, HELD), seconds=BUSY_SECONDS)

    thread = threading.Thread(target=renew, name="scalex-claims", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=5.0)
