"""How much of the journal is kept: for each owner so many events, so many bytes, so many days.

Rules: what is forgotten of an owner is always their oldest, and the highest seq of it is noted, so that a reader with
an older cursor is told. One person's noise never shortens another's history.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping

import attrs
import trio

from supervisor import clock
from supervisor.config import JournalConfig
from supervisor.database.database import Database

FORGET_EVERY_SECONDS = 3_600.0
FORGET_EVENTS_AT_ONCE = 1_000
SLACK = (
    50  # when something must go, a fiftieth more goes with it, so that not every event removes one
)
DAY_NS = 86_400 * clock.NANOSECONDS_PER_SECOND


@attrs.frozen
class _Share:
    """What is kept of one owner."""

    events: int
    bytes: int

    def less(self, body_bytes: int) -> _Share:
        return _Share(self.events - 1, self.bytes - body_bytes)

    def within(self, bounds: _Share) -> bool:
        return self.events <= 1 or (self.events <= bounds.events and self.bytes <= bounds.bytes)


def count(
    connection: sqlite3.Connection, owner: int, body_bytes: int, config: JournalConfig
) -> None:
    """Note one more event of the owner; forget their oldest where that is too much. Within a unit."""
    row = connection.execute(
        "INSERT INTO event_share (owner, events, bytes) VALUES (?, 1, ?)"
        " ON CONFLICT (owner) DO UPDATE SET events = events + 1, bytes = bytes + excluded.bytes"
        " RETURNING events, bytes",
        (owner, body_bytes),
    ).fetchone()
    share = _Share(row["events"], row["bytes"])
    if not share.within(_Share(config.events_per_owner_max, config.bytes_per_owner_max)):
        _forget_oldest(connection, owner, share, config)


def _forget_oldest(
    connection: sqlite3.Connection, owner: int, share: _Share, config: JournalConfig
) -> None:
    bounds = _Share(
        config.events_per_owner_max - config.events_per_owner_max // SLACK,
        config.bytes_per_owner_max - config.bytes_per_owner_max // SLACK,
    )
    rows = connection.execute(
        "SELECT seq, length(body) AS bytes FROM event WHERE owner = ? ORDER BY seq", (owner,)
    )
    forgotten = 0
    for row in rows:
        if share.within(bounds):
            break
        share, forgotten = share.less(row["bytes"]), row["seq"]
    rows.close()
    connection.execute("DELETE FROM event WHERE owner = ? AND seq <= ?", (owner, forgotten))
    _note(connection, owner, share, forgotten)


def _note(connection: sqlite3.Connection, owner: int, share: _Share, forgotten: int) -> None:
    connection.execute(
        "UPDATE event_share SET events = ?, bytes = ?, forgotten = max(forgotten, ?) WHERE owner = ?",
        (share.events, share.bytes, forgotten, owner),
    )


def forgotten(connection: sqlite3.Connection) -> Mapping[int, int]:
    """By owner, the highest seq that is no longer kept."""
    rows = connection.execute("SELECT owner, forgotten FROM event_share WHERE forgotten > 0")
    return {row["owner"]: row["forgotten"] for row in rows}


def older_than(time_ns: int) -> Callable[[sqlite3.Connection], bool]:
    """A unit that forgets some of what is older than ``time_ns``; it returns whether there is more."""

    def forget(connection: sqlite3.Connection) -> bool:
        rows = connection.execute(
            "SELECT owner, count(*) AS events, sum(bytes) AS bytes, max(seq) AS seq FROM"
            " (SELECT owner, length(body) AS bytes, seq FROM event WHERE time_ns < ?"
            "  ORDER BY time_ns, seq LIMIT ?) GROUP BY owner",
            (time_ns, FORGET_EVENTS_AT_ONCE),
        ).fetchall()
        connection.execute(
            "DELETE FROM event WHERE seq IN"
            " (SELECT seq FROM event WHERE time_ns < ? ORDER BY time_ns, seq LIMIT ?)",
            (time_ns, FORGET_EVENTS_AT_ONCE),
        )
        for row in rows:
            connection.execute(
                "UPDATE event_share SET events = events - ?, bytes = bytes - ?,"
                " forgotten = max(forgotten, ?) WHERE owner = ?",
                (row["events"], row["bytes"], row["seq"], row["owner"]),
            )
        forgotten_events: int = sum(row["events"] for row in rows)
        return forgotten_events == FORGET_EVENTS_AT_ONCE

    return forget


async def forget_old(database: Database, config: Callable[[], JournalConfig]) -> None:
    """Every hour, in small units, forget what is older than the settings keep."""
    while True:
        while await database.write(older_than(clock.now_ns() - config().age_days_max * DAY_NS)):
            await trio.lowlevel.checkpoint()
        await trio.sleep(FORGET_EVERY_SECONDS)
