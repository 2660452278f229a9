"""Suspending people: an administrator's word that nothing new of theirs begins.

Words: *suspended* is an owner whose requests that begin something (containers, execs, builds, networks, volumes, images)
are refused. What runs goes on, restart policies and health probes included; they may look at what is theirs, stop it
and remove it. An administrator who wants it to stop stops it.

Rules: it is written down before it holds, and holds until it is taken back; it changes nothing of what an owner has.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import attrs

from protocol.events import OwnerResume, OwnerSuspend
from supervisor import clock
from supervisor.access.identity import Identity
from supervisor.database.database import Database
from supervisor.errors import InvalidArgument, PermissionDenied
from supervisor.events.journal import Events

RULE = "suspended"
REASON_CHARACTERS_MAX = 500


@attrs.frozen
class Suspension:
    """Why an owner is suspended, by whom and since when."""

    reason: str
    by: str
    since_ns: int


@attrs.define(eq=False)
class Suspensions:
    """Who is suspended. Made by :func:`open_suspensions`."""

    _database: Database
    _events: Events
    _held: dict[int, Suspension]

    def of(self, uid: int) -> Suspension | None:
        """The owner's, if they are suspended."""
        return self._held.get(uid)

    def every(self) -> Mapping[int, Suspension]:
        """All there are, by uid."""
        return dict(self._held)

    def check(self, identity: Identity) -> None:
        """Let somebody begin something new. Administrators are not stopped by what administrators decide.

        Raises:
            PermissionDenied: They are suspended.
        """
        held = None if identity.admin else self._held.get(identity.owner)
        if held is not None:
            because = f": {held.reason}" if held.reason else ""
            raise PermissionDenied(
                f"cannot begin anything new: refused by the rule {RULE}: {held.by} has suspended you{because}",
                hint="what runs goes on; you may look at what is yours, stop it and remove it; ask an administrator",
            )

    async def suspend(self, uid: int, reason: str, by: Identity) -> Suspension:
        """The owner is suspended; one who is already has the new reason. They need not have been here yet.

        Raises:
            InvalidArgument: The reason is too long, or has characters that are not printed.
        """
        if len(reason) > REASON_CHARACTERS_MAX or not (reason.isprintable() or not reason):
            raise InvalidArgument(
                "cannot suspend the owner: the reason is not one line of text",
                hint=f"up to {REASON_CHARACTERS_MAX} characters",
            )
        held = Suspension(reason, by.user, clock.now_ns())

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO owner_suspensions (uid, reason, by_whom, since_ns) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (uid) DO UPDATE SET reason = excluded.reason, by_whom = excluded.by_whom,"
                " since_ns = excluded.since_ns",
                (uid, held.reason, held.by, held.since_ns),
            )
            self._events.record(
                connection,
                OwnerSuspend(reason=reason),
                owner=uid,
                subject=str(uid),
                attributes={"by": by.user},
            )

        await self._database.write(write)
        self._held[uid] = held
        return held

    async def resume(self, uid: int, by: Identity) -> None:
        """The owner may work again; one who may already is success."""

        def write(connection: sqlite3.Connection) -> None:
            gone = connection.execute("DELETE FROM owner_suspensions WHERE uid = ?", (uid,))
            if gone.rowcount:
                self._events.record(
                    connection,
                    OwnerResume(),
                    owner=uid,
                    subject=str(uid),
                    attributes={"by": by.user},
                )

        await self._database.write(write)
        self._held.pop(uid, None)


@asynccontextmanager
async def open_suspensions(database: Database, events: Events) -> AsyncIterator[Suspensions]:
    """Who is suspended, as it was written down."""

    def read(connection: sqlite3.Connection) -> dict[int, Suspension]:
        rows = connection.execute("SELECT uid, reason, by_whom, since_ns FROM owner_suspensions")
        return {
            row["uid"]: Suspension(row["reason"], row["by_whom"], row["since_ns"]) for row in rows
        }

    yield Suspensions(database, events, await database.read(read))
