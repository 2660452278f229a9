"""The journal: what happened, in the order of commit, and waking those who read it.

Words: an *entry* is an event as the journal keeps it, its JSON encoded once; the *recent* entries are also in memory,
so that those who keep up cost the disk nothing; what is *forgotten* was removed by retention, which is per owner.

Rules: an event is recorded in the unit that changes what it tells of, so one cannot be without the other; nobody is
told before the commit; a reader has a cursor, never a queue, and no transaction outlives one page. ``visible_to`` is
a host uid, who sees their own, or None, an admin, who sees all.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from protocol import codec
from protocol.events import Actor, Event, EventData
from protocol.ids import Cursor
from protocol.messages import Want
from supervisor import clock
from supervisor.config import JournalConfig
from supervisor.database.database import Database
from supervisor.events import retention

EVERYTHING = Want()

_COLUMNS = "SELECT seq, time_ns, owner, type, subject, body FROM event"
_PAGE = f"{_COLUMNS} WHERE seq > :after ORDER BY seq LIMIT :most"
_PAGE_OF_OWNER = (
    f"{_COLUMNS} INDEXED BY event_by_owner WHERE owner = :owner AND seq > :after"
    " ORDER BY seq LIMIT :most"
)


@attrs.frozen
class Entry:
    """An event as it is kept; ``json`` is the whole of it, encoded."""

    seq: int
    owner: int
    type: str
    subject: str
    json: bytes

    def event(self) -> Event:
        """The event itself."""
        return codec.decode_event(self.json)


@attrs.frozen
class EntryPage:
    """A bounded piece of the journal, in order, as one reader may see and wants it.

    Attributes:
        entries: What is wanted of (after, upto].
        upto: Everything up to here is accounted for.
        first_seq: From here on nothing the reader may see is forgotten.
    """

    entries: tuple[Entry, ...]
    upto: int
    first_seq: int


@attrs.frozen
class Page:
    """An :class:`EntryPage` with its entries decoded."""

    events: tuple[Event, ...]
    upto: int
    first_seq: int


@attrs.frozen
class _Committing:
    """What a group adds, until its commit is known to be good."""

    entries: tuple[Entry, ...]
    last_seq: int
    forgotten: Mapping[int, int]


@attrs.define(eq=False)
class Events:
    """The open journal. Made by :func:`open_events`."""

    database: Database
    config: JournalConfig
    last_seq: int
    _forgotten: Mapping[int, int]
    _recent: list[Entry] = attrs.field(factory=list)
    _recent_after: int = 0
    _recent_bytes: int = 0
    _committing: _Committing | None = None
    _readers: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    @property
    def epoch(self) -> str:
        """The identity of this journal."""
        return self.database.epoch

    @property
    def cursor(self) -> Cursor:
        """The place after the newest entry."""
        return Cursor(self.epoch, self.last_seq)

    def first_seq(self, visible_to: int | None = None) -> int:
        """From here on nothing this reader may see is forgotten."""
        return _forgotten_for(self._forgotten, visible_to) + 1

    def record(
        self,
        connection: sqlite3.Connection,
        data: EventData,
        *,
        owner: int,
        subject: str,
        attributes: Mapping[str, str] | None = None,
        actor_id: str = "",
    ) -> int:
        """Put an event into the journal, within a unit of the database; return its seq.

        Args:
            connection: The unit's.
            data: What happened.
            owner: The host uid whose thing it is; 0 for the daemon's own.
            subject: The full id of the thing, or a volume's name.
            attributes: Docker's Actor.Attributes: name, image, labels, exitCode, …
            actor_id: Docker's Actor.ID where that is not the subject.
        """
        body = codec.encode_body(Actor(actor_id or subject, attributes or {}), data)
        row = (clock.now_ns(), owner, data.type, subject, body)
        cursor = connection.execute(
            "INSERT INTO event (time_ns, owner, type, subject, body) VALUES (?, ?, ?, ?, ?)", row
        )
        retention.count(connection, owner, len(body), self.config)
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    async def emit(
        self,
        data: EventData,
        *,
        owner: int,
        subject: str,
        attributes: Mapping[str, str] | None = None,
    ) -> int:
        """Record an event in a unit of its own; return its seq once it is on disk.

        Raises:
            ResourceExhausted: The disk is full.
        """
        return await self.database.write(
            lambda connection: self.record(
                connection, data, owner=owner, subject=subject, attributes=attributes
            )
        )

    async def wait_beyond(self, seq: int) -> None:
        """Wait until there is an entry after ``seq``, whoever may see it."""
        if self.last_seq > seq:
            await trio.lowlevel.checkpoint()
        while self.last_seq <= seq:
            await self._readers.park()

    async def entries(
        self, after: int, *, visible_to: int | None, want: Want = EVERYTHING, limit: int = 0
    ) -> EntryPage:
        """The next page after ``after``: at most ``limit`` entries (0: ``page_events_max``) are looked at.

        An empty page whose ``upto`` is ``after`` means there is nothing newer. When ``first_seq`` is beyond
        ``after + 1``, entries in between are forgotten.
        """
        if after >= self._recent_after:
            await trio.lowlevel.checkpoint()
            if after >= self._recent_after:
                return self._recent_page(after, visible_to, want, limit)
        return await self.database.read(
            lambda connection: self._kept_page(connection, after, visible_to, want, limit)
        )

    async def page(
        self, after: int, *, visible_to: int | None, want: Want = EVERYTHING, limit: int = 0
    ) -> Page:
        """As :meth:`entries`, decoded."""
        page = await self.entries(after, visible_to=visible_to, want=want, limit=limit)
        return Page(tuple(entry.event() for entry in page.entries), page.upto, page.first_seq)

    async def seq_before(self, time_ns: int) -> int:
        """The place before the first kept entry of ``time_ns`` (since 1970) or later."""
        row: sqlite3.Row = await self.database.read(
            lambda connection: connection.execute(
                "SELECT min(seq) AS seq FROM event WHERE time_ns >= ?", (time_ns,)
            ).fetchone()
        )
        return int(row["seq"]) - 1 if row["seq"] is not None else self.last_seq

    def _recent_page(self, after: int, visible_to: int | None, want: Want, limit: int) -> EntryPage:
        start = bisect_right(self._recent, after, key=_seq)
        stop = start + (limit or self.config.page_events_max)
        looked_at = self._recent[start:stop]
        upto = looked_at[-1].seq if stop < len(self._recent) else max(after, self.last_seq)
        seen = tuple(
            entry
            for entry in looked_at
            if visible_to in {None, entry.owner}
            and entry.seq > self._forgotten.get(entry.owner, 0)
            and want.accepts(entry.type, entry.owner, entry.subject)
        )
        return EntryPage(seen, upto, self.first_seq(visible_to))

    def _kept_page(
        self,
        connection: sqlite3.Connection,
        after: int,
        visible_to: int | None,
        want: Want,
        limit: int,
    ) -> EntryPage:
        """Runs in a reader's thread; touches nothing of ours that changes."""
        most, most_bytes = limit or self.config.page_events_max, self.config.page_bytes_max
        rows = connection.execute(
            _PAGE if visible_to is None else _PAGE_OF_OWNER,
            {"after": after, "owner": visible_to, "most": most},
        )
        seen: list[Entry] = []
        looked_at = page_bytes = upto = 0
        for row in rows:
            looked_at, upto, page_bytes = looked_at + 1, row["seq"], page_bytes + len(row["body"])
            if want.accepts(row["type"], row["owner"], row["subject"]):
                seen.append(self._entry(row))
            if page_bytes >= most_bytes:
                break
        else:
            if looked_at < most:
                upto = max(after, _last_seq(connection))
        forgotten = _forgotten_for(retention.forgotten(connection), visible_to)
        return EntryPage(tuple(seen), upto, forgotten + 1)

    def _entry(self, row: sqlite3.Row) -> Entry:
        head = {
            "id": f"{self.epoch}:{row['seq']}",
            "source": f"/bakehouse/{self.epoch}",
            "type": row["type"],
            "subject": row["subject"],
            "seq": row["seq"],
            "owner": row["owner"],
        }
        encoded = codec.join_event(head, row["time_ns"], row["body"])
        return Entry(row["seq"], row["owner"], row["type"], row["subject"], encoded)

    def _before_commit(self, connection: sqlite3.Connection) -> None:
        """In the writer's thread: read what this group adds, while it is surely all there."""
        last_seq = _last_seq(connection)
        rows: Sequence[sqlite3.Row] = ()
        if last_seq > self.last_seq:
            rows = connection.execute(
                f"{_COLUMNS} WHERE seq > ? ORDER BY seq", (self.last_seq,)
            ).fetchall()
        entries = tuple(self._entry(row) for row in rows)
        self._committing = _Committing(entries, last_seq, retention.forgotten(connection))

    def _after_commit(self) -> None:
        """In trio's thread: it is on disk, tell the readers."""
        committed = self._committing
        assert committed is not None
        self._forgotten = committed.forgotten
        if committed.last_seq == self.last_seq:
            return
        self.last_seq = committed.last_seq
        self._recent.extend(committed.entries)
        self._recent_bytes += sum(len(entry.json) for entry in committed.entries)
        self._trim()
        self._readers.unpark_all()

    def _trim(self) -> None:
        """Drop the older half of the recent entries when they are too many; whoever needs them reads the disk."""
        if (
            len(self._recent) <= self.config.recent_events_max
            and self._recent_bytes <= self.config.recent_bytes_max
        ):
            return
        dropped = self._recent[: (len(self._recent) + 1) // 2]
        del self._recent[: len(dropped)]
        self._recent_after = dropped[-1].seq
        self._recent_bytes -= sum(len(entry.json) for entry in dropped)


def _seq(entry: Entry) -> int:
    return entry.seq


def _forgotten_for(forgotten: Mapping[int, int], visible_to: int | None) -> int:
    if visible_to is None:
        return max(forgotten.values(), default=0)
    return forgotten.get(visible_to, 0)


def _last_seq(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'event'").fetchone()
    return int(row["seq"]) if row else 0


@asynccontextmanager
async def open_events(database: Database, config: JournalConfig) -> AsyncIterator[Events]:
    """Open the journal in ``database``, and forget what is too old now and every hour."""
    last_seq, forgotten = await database.read(
        lambda connection: (_last_seq(connection), retention.forgotten(connection))
    )
    events = Events(database, config, last_seq, forgotten, recent_after=last_seq)
    database.before_commit(events._before_commit)  # noqa: SLF001  # its maker
    database.on_commit(events._after_commit)  # noqa: SLF001  # its maker
    async with trio.open_nursery() as nursery:
        nursery.start_soon(retention.forget_old, database, lambda: events.config)
        yield events
        nursery.cancel_scope.cancel()
