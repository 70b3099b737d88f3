"""Who is training which run, and until when: functions inside a transaction of the store."""

import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# What a damaged claim would hold for ever. Nobody claims for longer.
_LONGEST = 7 * 24 * 3600.0


@dataclass(frozen=True)
class Claim:
    """A run that somebody is training: since when and until when, in seconds of Unix time."""

    key: str
    owner: str
    since: float
    until: float


def take(
    connection: sqlite3.Connection,
    keys: Sequence[str],
    owner: str,
    seconds: float,
    at_most: int | None,
) -> list[str]:
    """Claims those of the keys that nobody else holds, or the first `at_most` of these."""
    time_now = time.time()
    others = {claim.key for claim in held(connection) if claim.owner != owner}
    taken = [key for key in keys if key not in others][:at_most]
    connection.executemany(
        """INSERT INTO claims VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET
        since = CASE owner WHEN excluded.owner THEN since ELSE excluded.since END,
        owner = excluded.owner, until = excluded.until""",
        [(key, owner, time_now, time_now + min(seconds, _LONGEST)) for key in taken],
    )
    return taken


def renew(connection: sqlite3.Connection, owner: str, seconds: float) -> list[str]:
    """Moves the end of the owner's claims, and returns their keys."""
    until = time.time() + min(seconds, _LONGEST)
    connection.execute("UPDATE claims SET until = ? WHERE owner = ?", (until, owner))
    return [claim.key for claim in held(connection) if claim.owner == owner]


def release(connection: sqlite3.Connection, owner: str) -> None:
    """Drops the owner's claims."""
    connection.execute("DELETE FROM claims WHERE owner = ?", (owner,))


def give_back(connection: sqlite3.Connection, keys: Iterable[str], owner: str) -> None:
    """Drops those of the owner's claims that are on the keys."""
    values = [(key, owner) for key in keys]
    connection.executemany("DELETE FROM claims WHERE key = ? AND owner = ?", values)


def drop(connection: sqlite3.Connection, keys: Iterable[str]) -> None:
    """Drops the claims on the keys, whoever holds them."""
    connection.executemany("DELETE FROM claims WHERE key = ?", [(key,) for key in keys])


def held(connection: sqlite3.Connection) -> list[Claim]:
    """The claims that have not expired, in the order of keys.

    One that makes no sense, as damage would leave it, is nobody's: a run is then trained twice
    at worst.
    """
    time_now = time.time()
    claims = (_claim(*values) for values in connection.execute("SELECT * FROM claims"))
    return [one for one in claims if one and time_now < one.until <= time_now + 2 * _LONGEST]


def _claim(key: object, owner: object, since: object, until: object) -> Claim | None:
    if not isinstance(key, bytes) or not isinstance(owner, bytes):
        return None
    if not isinstance(since, float) or not isinstance(until, float):
        return None
    return Claim(key.decode("utf-8", "replace"), owner.decode("utf-8", "replace"), since, until)
