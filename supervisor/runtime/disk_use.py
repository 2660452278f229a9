"""What each owner's things take on the disk, kept so that whoever asks is answered at once.

Words: a *thing* is what a container has written, its logs, or a volume; it is *restless* while a container may write to
it, and until it was looked at after that. A *round* looks at all that is restless. Layers need no looking at: they never
change, and their sizes are written down with them.

Rules: sizes are written down, and go with their things in the same transaction; so none is counted that is not there.
Trees are walked one at a time, beside everything else: a large one holds up nobody who asks, they get what is known. A
quota of the disk is therefore held at the next allocation, not while something grows. While nothing runs and nobody
asks this costs nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs
import trio

from supervisor import clock
from supervisor.errors import BakehouseError, NotFound, ResourceExhausted
from supervisor.runtime.containers import Containers
from supervisor.runtime.keeper import Keeper
from supervisor.runtime.log_files import rotated, size_of
from supervisor.runtime.parts import Parts
from supervisor.store import trees
from supervisor.store.volumes import Volume
from supervisor.tasks import WALK, in_thread

ROUND_SECONDS = 60.0
"""Between two rounds while something runs."""

CONTAINER, LOGS, VOLUME = "container", "logs", "volume"
INODE_BYTES = 256
"""Of a file without contents: many tiny ones are not for nothing."""

_OWN_LAYERS = (
    "SELECT layer FROM image_layers JOIN image_owners USING (image) WHERE image_owners.owner = ?1"
)
_IMAGES = (
    "SELECT coalesce(sum(bytes / (SELECT count(DISTINCT image_owners.owner) FROM image_layers"  # noqa: S608  # ours
    " JOIN image_owners USING (image) WHERE image_layers.layer = layers.id)), 0)"
    f" FROM layers WHERE id IN ({_OWN_LAYERS})"
)
_CACHE = (
    "SELECT coalesce(sum(bytes), 0) FROM layers WHERE id IN"  # noqa: S608  # ours
    f" (SELECT layer FROM build_cache WHERE owner = ?1) AND id NOT IN ({_OWN_LAYERS})"
)
_MEASURED = "SELECT kind, sum(bytes) FROM disk_use WHERE owner = ?1 GROUP BY kind"

Sizes = Mapping[tuple[int, str, str], int]
"""Bytes by owner, kind and name."""


@attrs.frozen
class Thing:
    """Something to look at.

    Attributes:
        path: Its tree; of logs the current file.
        changed_ns: When it may have changed last; now, while it may.
    """

    owner: int
    kind: str
    name: str
    path: Path
    changed_ns: int

    @property
    def key(self) -> tuple[int, str, str]:
        """What it is looked up by."""
        return self.owner, self.kind, self.name


@attrs.define(eq=False)
class DiskUse:
    """The sizes of everybody's things. Made by :func:`open_disk_use`."""

    _parts: Parts
    _containers: Containers
    _wanted: trio.Event = attrs.field(factory=trio.Event)
    _done: trio.Event = attrs.field(factory=trio.Event)
    _touched: dict[str, int] = attrs.field(factory=dict)

    async def look(self) -> None:
        """Wait for a round that begins from now on. Who has no time for it gives up, and the round goes on."""
        self._wanted.set()
        await self._done.wait()

    def touched(self, container_id: str) -> None:
        """Something was copied into a container, which need not run."""
        self._touched[container_id] = clock.now_ns()

    async def sizes(self) -> Sizes:
        """All that was measured, as it was last."""
        return await self._parts.database.read(
            lambda c: {
                (row["owner"], row["kind"], row["name"]): row["bytes"]
                for row in c.execute("SELECT owner, kind, name, bytes FROM disk_use")
            }
        )

    async def of(self, owner: int) -> Mapping[str, int]:
        """What an owner's things take by kind; of layers that several have, their share."""
        return await self._parts.database.read(lambda connection: used(connection, owner))

    async def admit(self, owner: int) -> None:
        """Let an owner put more on the disk.

        Raises:
            ResourceExhausted: What they have takes as much as it may already; what takes most is told.
        """
        allowed = self._parts.owners.limits(owner).disk_bytes_max
        if not allowed:
            return
        parts = await self.of(owner)
        used = sum(parts.values())
        if used >= allowed:
            most = sorted(parts.items(), key=lambda part: -part[1])
            told = ", ".join(f"{name} {count:,}" for name, count in most if count)
            raise ResourceExhausted(
                f"cannot put more on the disk: your things take {used:,} bytes, and {allowed:,} are allowed: {told}",
                hint=_HINTS[most[0][0]],
            )

    async def run(self) -> None:
        """Make rounds: at once when asked, and now and then while something runs."""
        while True:
            running = any(keeper.alive for keeper in self._containers.every())
            with trio.move_on_after(ROUND_SECONDS if running else float("inf")):
                await self._wanted.wait()
            self._wanted, done, self._done = trio.Event(), self._done, trio.Event()
            await self._round()
            done.set()

    async def _round(self) -> None:
        known = await self._parts.database.read(_measured)
        volumes = await self._parts.store.volumes.list(None)
        things = [*self._written(), *self._held(volumes)]
        restless = [one for one in things if known.get(one.key, -1) < one.changed_ns]
        for thing in sorted(restless, key=lambda one: known.get(one.key, -1)):
            with suppress(
                BakehouseError, OSError
            ):  # a bad or full disk: it is as it was, until the next round
                await self._look_at(thing)

    async def _look_at(self, thing: Thing) -> None:
        began = clock.now_ns()
        count = await in_thread(lambda: _occupied(thing), WALK)
        await self._parts.database.write(lambda c: note(c, thing, count, began))

    def _written(self) -> Iterator[Thing]:
        for keeper in self._containers.every():
            changed = self._changed(keeper)
            owner, name = keeper.record.owner, keeper.record.id
            yield Thing(owner, LOGS, name, keeper.log, changed)
            try:
                upper = self._parts.store.snapshots.upper(name)
            except NotFound:
                continue  # it has never run
            yield Thing(owner, CONTAINER, name, upper, changed)

    def _held(self, volumes: Sequence[Volume]) -> Iterator[Thing]:
        changed = {keeper.record.id: self._changed(keeper) for keeper in self._containers.every()}
        for volume in volumes:
            last = max((changed.get(holder, 0) for holder in volume.holders), default=0)
            path = self._parts.store.volumes.path(volume.owner, volume.name)
            yield Thing(volume.owner, VOLUME, volume.name, path, last)

    def _changed(self, keeper: Keeper) -> int:
        """When something may have been written last; now, while it runs."""
        if keeper.active:
            return clock.now_ns()
        return max(keeper.state.finished_ns, self._touched.get(keeper.record.id, 0))


_HINTS = {
    "images": "docker image prune, docker image rm",
    "containers": "docker container prune, docker rm",
    "volumes": "docker volume prune, docker volume rm",
    "logs": "docker rm, or --log-opt max-size",
    "cache": "docker builder prune",
}


def used(connection: sqlite3.Connection, owner: int) -> dict[str, int]:
    """Bytes by kind, see :meth:`DiskUse.of`."""
    measured = {str(row[0]): int(row[1]) for row in connection.execute(_MEASURED, (owner,))}
    images, cache = (
        int(connection.execute(statement, (owner,)).fetchone()[0])
        for statement in (_IMAGES, _CACHE)
    )
    return {
        "images": images,
        "containers": measured.get(CONTAINER, 0),
        "volumes": measured.get(VOLUME, 0),
        "logs": measured.get(LOGS, 0),
        "cache": cache,
    }


def _measured(connection: sqlite3.Connection) -> dict[tuple[int, str, str], int]:
    rows = connection.execute("SELECT owner, kind, name, measured_ns FROM disk_use")
    return {(row["owner"], row["kind"], row["name"]): row["measured_ns"] for row in rows}


def note(connection: sqlite3.Connection, thing: Thing, count: int, began_ns: int) -> None:
    """Write a size down, unless its thing has gone meanwhile."""
    there = (
        "SELECT 1 FROM volumes WHERE owner = ?1 AND name = ?3"
        if thing.kind == VOLUME
        else "SELECT 1 FROM containers WHERE owner = ?1 AND id = ?3"
    )
    connection.execute(
        "INSERT INTO disk_use (owner, kind, name, bytes, measured_ns)"
        f" SELECT ?1, ?2, ?3, ?4, ?5 WHERE EXISTS ({there})"
        " ON CONFLICT DO UPDATE SET bytes = excluded.bytes, measured_ns = excluded.measured_ns",
        (*thing.key, count, began_ns),
    )


def _occupied(thing: Thing) -> int:
    """Bytes of its files, hard links once, and something for each name. Blocks."""
    if thing.kind != LOGS:
        return trees.measure(thing.path, entry_bytes=INODE_BYTES)
    sizes = map(size_of, (thing.path, *rotated(thing.path).values()))
    return sum(size for size in sizes if size is not None)


@asynccontextmanager
async def open_disk_use(parts: Parts, containers: Containers) -> AsyncIterator[DiskUse]:
    """The sizes, looked at again as long as this is open."""
    use = DiskUse(parts, containers)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(use.run)
        yield use
        nursery.cancel_scope.cancel()
