"""The step cache: what a step made, by what it says and what it read.

Words: an *entry* leads from a key to the one layer a step added (or to none, when it changed nothing).

Rules: keys are made of our own records (layer ids, which never come back for another content), never of what an image
says of itself (attacks.md 10). A RUN's key holds its owner: nobody is served what another ran. COPY, ADD and WORKDIR
are keyed by content and shared. Each owner's entries are bounded; the longest unused goes first.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import OrderedDict
from collections.abc import Collection, Sequence

import attrs
import orjson

from supervisor import clock
from supervisor.build.graph import Files, MakeDirectory, Run
from supervisor.database.database import Database
from supervisor.store.layers import Layers, lease_in, release_in

HOLDER = "cache:"
RECENT_ENTRIES_MAX = 4_096
"""Entries kept in memory, for all owners together."""


@attrs.frozen
class Entry:
    """What is remembered: the layer, if one was added, and when it was made."""

    key: str
    layer: str | None
    made_ns: int


def run_key(op: Run, layers: Sequence[str], owner: int, *, remapped: bool) -> str:
    """The key of a command: who runs it, what it says, on what."""
    return _key("run", owner, remapped, attrs.asdict(op), list(layers))


def directory_key(op: MakeDirectory, layers: Sequence[str]) -> str:
    """The key of a WORKDIR."""
    return _key("directory", attrs.asdict(op), list(layers))


def files_key(op: Files, layers: Sequence[str], content: str) -> str:
    """The key of a COPY or ADD: what it says but for the names of its sources, and what those hold."""
    return _key("files", attrs.asdict(attrs.evolve(op, sources=())), list(layers), content)


def files_from_key(op: Files, layers: Sequence[str], source: Sequence[str]) -> str:
    """A second key of a COPY from a stage or image, known without looking into it: its layers."""
    return _key("files from", attrs.asdict(op), list(layers), list(source))


def config_key(names: Sequence[str], layers: Sequence[str], owner: int) -> str:
    """The key of a step that only changes the config: the steps of its stage so far, on what."""
    return _key("config", owner, list(names), list(layers))


def image_key(config: bytes, layers: Sequence[str], owner: int) -> str:
    """The key of an image but for its times, so that what was built before keeps its id."""
    return _key("image", owner, hashlib.sha256(config).hexdigest(), list(layers))


def _key(*parts: object) -> str:
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


@attrs.define(eq=False)
class Cache:
    """The cache of this daemon."""

    _database: Database
    _layers: Layers
    _entries_per_owner_max: int
    _recent: OrderedDict[str, Entry] = attrs.field(factory=OrderedDict)

    async def open(self) -> None:
        """Give up what a crash left leased without an entry, and entries whose layer is gone."""
        await self._database.write(_mend)

    async def find(self, key: str) -> Entry | None:
        """The entry with this key; its layer may go at any moment, unless the caller can hold it."""
        if key in self._recent:
            self._recent.move_to_end(key)
            return self._recent[key]
        entry = await self._database.read(lambda connection: _find(connection, key))
        if entry is not None:
            self._keep(entry)
        return entry

    async def remember(self, keys: Sequence[str], owner: int, layer: str | None, title: str) -> int:
        """Put an entry under all ``keys``, over what was there; when it was made, in nanoseconds."""
        made_ns = clock.now_ns()
        gone = await self._database.write(
            lambda connection: self._remember(connection, keys, owner, layer, title, made_ns)
        )
        for key in keys:
            self._keep(Entry(key, layer, made_ns))
        for key in gone:
            self._recent.pop(key, None)
        return made_ns

    async def first_made(self, key: str, owner: int, title: str) -> int:
        """When what has no layer of its own was made first, in nanoseconds: now, unless another build was before."""
        made_ns = clock.now_ns()

        def write(connection: sqlite3.Connection) -> tuple[Entry, list[str]]:
            if (known := _find(connection, key)) is not None:
                return known, []
            gone = self._remember(connection, [key], owner, None, title, made_ns)
            return Entry(key, None, made_ns), gone

        entry, gone = await self._database.write(write)
        self._keep(entry)
        for key_gone in gone:
            self._recent.pop(key_gone, None)
        return entry.made_ns

    def _keep(self, entry: Entry) -> None:
        """Only this class changes the table, so what it last read is what is there."""
        self._recent[entry.key] = entry
        if len(self._recent) > RECENT_ENTRIES_MAX:
            self._recent.popitem(last=False)

    async def used(self, keys: Collection[str]) -> None:
        """These were of use just now."""
        now = clock.now_ns()
        rows = [(now, key) for key in keys]

        def update(connection: sqlite3.Connection) -> None:
            connection.executemany("UPDATE build_cache SET used_ns = ? WHERE key = ?", rows)

        if rows:
            await self._database.write(update)

    async def prune(self, owner: int | None) -> int:
        """Forget all entries of an owner (None: of everybody); bytes that are free now."""
        statement = "SELECT key FROM build_cache WHERE ?1 IS NULL OR owner = ?1"

        def forget(connection: sqlite3.Connection) -> None:
            for row in connection.execute(statement, (owner,)).fetchall():
                _forget(connection, row["key"])

        await self._database.write(forget)
        self._recent.clear()
        return await self._layers.collect()

    async def usage(self, owner: int | None) -> tuple[int, int]:
        """Entries and bytes of an owner (None: of everybody); a layer is counted once."""
        entries = "SELECT count(*) FROM build_cache WHERE ?1 IS NULL OR owner = ?1"
        held = (
            "SELECT coalesce(sum(bytes), 0) FROM layers WHERE id IN"
            " (SELECT layer FROM build_cache WHERE ?1 IS NULL OR owner = ?1)"
        )

        def count(connection: sqlite3.Connection) -> tuple[int, int]:
            numbers = [
                connection.execute(statement, (owner,)).fetchone()[0]
                for statement in (entries, held)
            ]
            return int(numbers[0]), int(numbers[1])

        return await self._database.read(count)

    def _remember(
        self,
        connection: sqlite3.Connection,
        keys: Sequence[str],
        owner: int,
        layer: str | None,
        title: str,
        now: int,
    ) -> list[str]:
        for key in keys:
            _forget(connection, key)
            if layer is not None:
                lease_in(connection, HOLDER + key, [layer])
            connection.execute(
                "INSERT INTO build_cache (key, owner, layer, title, made_ns, used_ns) VALUES (?, ?, ?, ?, ?, ?)",
                (key, owner, layer, title, now, now),
            )
        excess = connection.execute(
            "SELECT key FROM build_cache WHERE owner = ? ORDER BY used_ns DESC, key LIMIT -1 OFFSET ?",
            (owner, self._entries_per_owner_max),
        ).fetchall()
        for row in excess:
            _forget(connection, row["key"])
        return [row["key"] for row in excess]


def _find(connection: sqlite3.Connection, key: str) -> Entry | None:
    row = connection.execute(
        "SELECT key, layer, made_ns FROM build_cache WHERE key = ?", (key,)
    ).fetchone()
    return None if row is None else Entry(row["key"], row["layer"], row["made_ns"])


def _forget(connection: sqlite3.Connection, key: str) -> None:
    connection.execute("DELETE FROM build_cache WHERE key = ?", (key,))
    release_in(connection, HOLDER + key)


def _mend(connection: sqlite3.Connection) -> None:
    connection.execute(
        "DELETE FROM build_cache WHERE layer IS NOT NULL AND layer NOT IN (SELECT id FROM layers)"
    )
    connection.execute(
        "DELETE FROM leases WHERE holder LIKE 'cache:%' AND substr(holder, 7) NOT IN (SELECT key FROM build_cache)"
    )
