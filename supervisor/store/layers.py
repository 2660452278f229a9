"""Layers: directories unpacked once for the whole host, the same for every owner.

Words:
    adopt: To make a layer of a directory by renaming it into place.
    fresh: Made since the daemon started and not yet needed by anything: not rubbish yet.
    busy: Needed by a snapshot that is not written down (a build step's).
    init layer: The directories and empty files the runtime mounts over, above every image's own layers, so that an
        image cannot make symbolic links of them (attacks.md 3).

Rules: ids on disk are canonical (0-based), whiteouts are overlayfs' own and belong to 0 or 65536; a layer never changes;
a directory without a row is rubbish and removed at the next start; only the collector takes a row away.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from supervisor import clock
from supervisor.database.database import Database
from supervisor.errors import Internal, NotFound
from supervisor.store import packing, trees
from supervisor.store.content import BlobWriter, Content
from supervisor.store.packing import Packed
from supervisor.store.trash import Trash
from supervisor.tasks import DIGEST, finish_within, in_thread

WorkInUnit = Callable[[sqlite3.Connection, str], object]

ID_BYTES = 6
ADOPT_SECONDS = 60.0
COLLECT_SECONDS = 60.0
INIT_LAYER = "init-1"
_UNNEEDED = (
    "NOT EXISTS (SELECT 1 FROM image_layers WHERE layer = layers.id)"
    " AND NOT EXISTS (SELECT 1 FROM snapshot_layers WHERE layer = layers.id)"
    " AND NOT EXISTS (SELECT 1 FROM leases WHERE layer = layers.id)"
)
"""Its directory; the number changes when what is in it does."""

INIT_DIRECTORIES = ("dev", "dev/pts", "dev/shm", "etc", "proc", "sys")
INIT_FILES = ("dev/console", "etc/hosts", "etc/hostname", "etc/resolv.conf", ".dockerenv")


@attrs.frozen
class Layer:
    """One layer.

    Attributes:
        id: Its directory's name.
        diff_id: Digest of its uncompressed tar; ``None`` while nobody needed to know.
        tar_bytes: Length of that tar; known when ``diff_id`` is.
        blob: Digest of the tar it came as, if that is kept.
        bytes: What its files hold.
    """

    id: str
    diff_id: str | None
    tar_bytes: int | None
    blob: str | None
    bytes: int


@attrs.define(eq=False)
class Layers:
    """The layers of this store. Made by :func:`supervisor.store.store.open_store`."""

    root: Path
    content: Content
    _database: Database
    _trash: Trash
    _fresh: dict[str, str] = attrs.field(factory=dict)
    _busy: Counter[str] = attrs.field(factory=Counter)
    _changing: trio.Lock = attrs.field(factory=trio.Lock)

    async def open(self) -> None:
        """Make what is missing, remove what no row tells of."""
        known = await self._database.read(
            lambda connection: {str(row[0]) for row in connection.execute("SELECT id FROM layers")}
        )
        blobs = await self._database.read(
            lambda connection: {
                str(row[0])
                for row in connection.execute("SELECT blob FROM layers WHERE blob IS NOT NULL")
            }
        )
        await in_thread(lambda: self._open(known, blobs))
        await self.collect()

    def path(self, layer_id: str) -> Path:
        """Its directory."""
        return self.root / layer_id

    def new_place(self) -> Path:
        """A fresh directory of ours that :meth:`adopt` may take; rubbish until then. Blocks briefly."""
        place = self._partial / secrets.token_hex(ID_BYTES)
        place.mkdir(mode=0o755)
        return place

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Path]:
        """:meth:`new_place` for as long as the block runs; what was not adopted then goes."""
        place = await in_thread(self.new_place)
        try:
            yield place
        finally:
            self._trash.take(place)

    async def adopt(
        self,
        directory: Path,
        *,
        packed: Packed | None = None,
        keep: BlobWriter | None = None,
        also: WorkInUnit | None = None,
        maker: str = "",
    ) -> Layer:
        """Make a layer of ``directory``, which must be below the store's root and not be mounted.

        It is fresh: kept until something needs it, or the daemon ends.

        Args:
            directory: What becomes the layer, by renaming it.
            packed: What is known of its tar.
            keep: Has taken the tar it came as; committed here.
            also: Done with the layer's id in the same unit as its row is written.
            maker: By whom it is found again, see :meth:`made_by`.

        Raises:
            OSError: The directory cannot be moved.
        """
        made: list[Layer] = []
        with finish_within(ADOPT_SECONDS):
            made.append(await self._adopt(directory, also, packed, keep, maker))
        if made:
            return made[0]
        message = f"cannot keep a layer: its record was not written within {ADOPT_SECONDS} seconds"
        raise Internal(message)

    async def _adopt(
        self,
        directory: Path,
        also: WorkInUnit | None,
        packed: Packed | None,
        keep: BlobWriter | None,
        maker: str,
    ) -> Layer:
        layer_id = secrets.token_hex(ID_BYTES)
        size = await in_thread(lambda: _take(directory, self.path(layer_id)))
        self._fresh[layer_id] = maker
        if keep is None:
            return await self._insert(Layer(layer_id, *_known(packed), None, size), also)
        async with (
            self._changing
        ):  # else the blob could be collected with the last other layer that came as it
            blob = await in_thread(keep.commit)
            return await self._insert(Layer(layer_id, *_known(packed), blob, size), also)

    async def _insert(self, layer: Layer, also: WorkInUnit | None) -> Layer:
        def insert(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO layers (id, diff_id, tar_bytes, blob, bytes, created_ns)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (*attrs.astuple(layer), clock.now_ns()),
            )
            if also is not None:
                also(connection, layer.id)

        await self._database.write(insert)
        return layer

    async def get(self, layer_ids: Sequence[str]) -> list[Layer]:
        """The layers with these ids, in this order.

        Raises:
            NotFound: One of them is gone.
        """
        return await self._database.read(lambda connection: get_in(connection, layer_ids))

    async def by_diff_id(self, diff_id: str) -> Layer | None:
        """A layer with this content, if there is one."""
        return await self._database.read(lambda connection: by_diff_id_in(connection, diff_id))

    async def packed(self, layer_ids: Sequence[str]) -> list[Layer]:
        """The layers with these ids, in this order, the digests of their tars taken where they were not known.

        Raises:
            NotFound: One of them is gone.
            InvalidArgument: The tree of one is too deep for a tar.
        """
        known = {layer.id: layer for layer in await self.get(layer_ids)}

        async def pack(layer: Layer) -> None:
            path = self.path(layer.id)
            packed = await in_thread(lambda: packing.measure(path), DIGEST)
            known[layer.id] = attrs.evolve(
                layer, diff_id=packed.diff_id, tar_bytes=packed.tar_bytes
            )
            await self._database.write(lambda connection: _told(connection, layer.id, packed))

        async with trio.open_nursery() as nursery:
            for layer in list(known.values()):
                if layer.diff_id is None:
                    nursery.start_soon(pack, layer)
        return [known[layer_id] for layer_id in layer_ids]

    async def lease(self, holder: str, layer_ids: Iterable[str]) -> None:
        """Keep these layers until :meth:`release`; what is held already is success.

        Raises:
            NotFound: One of them is gone.
        """
        wanted = list(layer_ids)
        await self._database.write(lambda connection: lease_in(connection, holder, wanted))

    async def release(self, holder: str) -> None:
        """Give up all that ``holder`` leased; nothing leased is success."""
        await self._database.write(lambda connection: release_in(connection, holder))

    def used(self, layer_ids: Iterable[str]) -> None:
        """These are no longer fresh: something that is written down needs them now, or nothing ever will."""
        for layer_id in layer_ids:
            self._fresh.pop(layer_id, None)

    def made_by(self, maker: str) -> list[str]:
        """What is fresh of the maker's, who may have been cancelled before they heard of it."""
        return [layer_id for layer_id, made_by in self._fresh.items() if made_by == maker]

    async def settle(self, layer_ids: Collection[str]) -> None:
        """No longer fresh: what is written down needs them by now, or nothing does and they go, also when cancelled."""
        self.used(layer_ids)
        if layer_ids:
            await self.collect()

    @asynccontextmanager
    async def busy(self, layer_ids: Sequence[str]) -> AsyncIterator[list[Layer]]:
        """Keep these layers for as long as the block runs.

        Raises:
            NotFound: One of them is gone.
        """
        held = await self.hold_busy(layer_ids)
        try:
            yield held
        finally:
            self.release_busy(layer_ids)

    async def hold_busy(self, layer_ids: Sequence[str]) -> list[Layer]:
        """Begin of :meth:`busy`, for who cannot keep a block open.

        Raises:
            NotFound: One of them is gone; none is held.
        """
        async with self._changing:
            held = await self.get(layer_ids)
            self._busy.update(layer_ids)
        return held

    def release_busy(self, layer_ids: Sequence[str]) -> None:
        """End of :meth:`busy`."""
        self._busy.subtract(layer_ids)
        self._busy = +self._busy

    async def collect(self) -> int:
        """Remove every layer that nothing needs, and the blobs of those; the bytes of the layers that went.

        Done to its end also when it is cancelled: nobody would come back for them soon.
        """
        removed: list[Layer] = []
        with finish_within(COLLECT_SECONDS):
            async with self._changing:
                removed = await self._database.write(lambda c: _collect(c, self._kept()))
                await in_thread(lambda: self._remove_directories(removed))
        return sum(layer.bytes for layer in removed)

    def _kept(self) -> set[str]:
        """Asked in the writer's thread at the last moment; both are only ever replaced or added to whole entries."""
        return set(self._fresh) | set(self._busy)

    @property
    def _partial(self) -> Path:
        return self.root.parent / "partial"

    def _open(self, known: Collection[str], blobs: Collection[str]) -> None:
        for directory in (self.root, self._partial):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.content.open()
        for name in os.listdir(self.root):  # noqa: PTH208
            if name not in known and name != INIT_LAYER:
                self._trash.take(self.root / name)
        for name in os.listdir(self._partial):  # noqa: PTH208
            self._trash.take(self._partial / name)
        for digest in self.content.digests():
            if digest not in blobs:
                self.content.remove(digest)
        self._make_init_layer()

    def _make_init_layer(self) -> None:
        """Complete or absent: made aside, renamed into place."""
        if self.path(INIT_LAYER).exists():
            return
        place = self.new_place()
        place.chmod(0o755)
        for name in INIT_DIRECTORIES:
            (place / name).mkdir()
            (place / name).chmod(0o755)
        for name in INIT_FILES:
            (place / name).touch()
            (place / name).chmod(0o644)
        place.rename(self.path(INIT_LAYER))

    def _remove_directories(self, removed: Iterable[Layer]) -> None:
        for layer in removed:
            self._trash.take(self.path(layer.id))
            if layer.blob:
                self.content.remove(layer.blob)


def _known(packed: Packed | None) -> tuple[str | None, int | None]:
    return (packed.diff_id, packed.tar_bytes) if packed else (None, None)


def _told(connection: sqlite3.Connection, layer_id: str, packed: Packed) -> None:
    connection.execute(
        "UPDATE layers SET diff_id = ?, tar_bytes = ? WHERE id = ?",
        (packed.diff_id, packed.tar_bytes, layer_id),
    )


def get_in(connection: sqlite3.Connection, layer_ids: Sequence[str]) -> list[Layer]:
    """:meth:`Layers.get` within a unit.

    Raises:
        NotFound: One of them is gone.
    """
    found: dict[str, Layer] = {}
    for layer_id in set(layer_ids):
        row = connection.execute("SELECT * FROM layers WHERE id = ?", (layer_id,)).fetchone()
        if row is None:
            message = f"cannot find the layer {layer_id}: it was removed"
            raise NotFound(message, hint="its image was removed meanwhile; try again")
        found[layer_id] = _layer(row)
    return [found[layer_id] for layer_id in layer_ids]


def by_diff_id_in(connection: sqlite3.Connection, diff_id: str) -> Layer | None:
    """:meth:`Layers.by_diff_id` within a unit; one whose tar is kept is preferred."""
    row = connection.execute(
        "SELECT * FROM layers WHERE diff_id = ? ORDER BY blob IS NULL, created_ns LIMIT 1",
        (diff_id,),
    ).fetchone()
    return None if row is None else _layer(row)


def lease_in(connection: sqlite3.Connection, holder: str, layer_ids: Iterable[str]) -> None:
    """:meth:`Layers.lease` within a unit.

    Raises:
        NotFound: One of them is gone.
    """
    rows = [(holder, layer_id) for layer_id in layer_ids]
    get_in(connection, [layer_id for _, layer_id in rows])
    connection.executemany("INSERT OR IGNORE INTO leases (holder, layer) VALUES (?, ?)", rows)


def release_in(connection: sqlite3.Connection, holder: str) -> None:
    """:meth:`Layers.release` within a unit."""
    connection.execute("DELETE FROM leases WHERE holder = ?", (holder,))


def orphaned_in(connection: sqlite3.Connection, layer_ids: Sequence[str]) -> bool:
    """Whether nothing written down needs the topmost of these layers, so that it is worth while to collect."""
    if not layer_ids:
        return False
    query = f"SELECT 1 FROM layers WHERE id = ? AND {_UNNEEDED}"  # noqa: S608  # a constant
    return connection.execute(query, (layer_ids[-1],)).fetchone() is not None


def _collect(connection: sqlite3.Connection, kept: Collection[str]) -> list[Layer]:
    """Take away the rows nothing refers to; a blob another layer came as too is left to that one."""
    query = f"SELECT * FROM layers WHERE {_UNNEEDED}"  # noqa: S608  # a constant
    rows = connection.execute(query).fetchall()
    removed = [layer for layer in map(_layer, rows) if layer.id not in kept]
    connection.executemany("DELETE FROM layers WHERE id = ?", [(layer.id,) for layer in removed])
    return [
        attrs.evolve(layer, blob=None)
        if layer.blob and _blob_used(connection, layer.blob)
        else layer
        for layer in removed
    ]


def _blob_used(connection: sqlite3.Connection, blob: str) -> bool:
    return connection.execute("SELECT 1 FROM layers WHERE blob = ?", (blob,)).fetchone() is not None


def _layer(row: sqlite3.Row) -> Layer:
    return Layer(row["id"], row["diff_id"], row["tar_bytes"], row["blob"], row["bytes"])


def _take(directory: Path, place: Path) -> int:
    size = trees.measure(directory)
    directory.rename(place)
    return size
