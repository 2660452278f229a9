"""Snapshots: what a container or a build step sees as its root, and may write to.

Words (containerd's): *prepare* makes one of layers, *commit* makes a layer of what was written, *remove* forgets it.
    key: Its name, unique on this host: a container's or a step's id.
    kept: Written down, so that it outlives the daemon; a step's is not, and is gone at the next start.

Rules: snapshots/u<uid>/<key>/{upper,work} on disk in canonical ids, mounted in M through the owner's view, at
run_root/rootfs/<gate>/<key>/merged. Verbs are idempotent and may be called in any order after a crash.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import attrs
import trio

from supervisor import clock
from supervisor.access.owners import Owner, Owners
from supervisor.database.database import Database
from supervisor.errors import Conflict, InvalidArgument, NotFound
from supervisor.linux import mounts
from supervisor.linux.spawner import Spawner
from supervisor.store import copying, packing, trees
from supervisor.store import layers as layer_store
from supervisor.store.changes import Change, changes
from supervisor.store.init_copies import clean_init_copies
from supervisor.store.layers import INIT_LAYER, Layer, Layers
from supervisor.store.trash import Trash
from supervisor.store.views import Views, gate_name
from supervisor.tasks import finish_within, in_thread

CLEAR_SECONDS = 30.0
BESIDE = "beside"
EVICT_PAUSE_SECONDS = 0.01

LOOKING_THROUGH = trio.CapacityLimiter(4)
"""Snapshots read as a whole at once, so that large ones hold up no more than one another."""

RootfsOf = Callable[[str, int, bool], Path]


@attrs.frozen
class Snapshot:
    """One snapshot.

    Attributes:
        key: Its name.
        owner: Whose.
        remapped: Whether its ids are shown through the owner's map.
        layers: Bottom first, without the init layer.
        init_layer: Whether the init layer lies above them.
        kept: Whether it is written down.
        rootfs: Where it is mounted, in M.
    """

    key: str
    owner: int
    remapped: bool
    layers: tuple[str, ...]
    init_layer: bool
    kept: bool
    rootfs: Path


@attrs.define(eq=False)
class Snapshots:
    """The snapshots of this store. Made by :func:`supervisor.store.store.open_store`."""

    _database: Database
    _spawner: Spawner
    _owners: Owners
    _layers: Layers
    _views: Views
    _trash: Trash
    _known: dict[str, Snapshot] = attrs.field(factory=dict)
    _down: set[str] = attrs.field(factory=set)
    """Keys of those that this daemon has unmounted; of the others nobody knows without a look."""
    _locks: defaultdict[str, trio.Lock] = attrs.field(factory=lambda: defaultdict(trio.Lock))
    _holds: defaultdict[str, set[trio.CancelScope]] = attrs.field(factory=lambda: defaultdict(set))
    _idle: set[str] = attrs.field(factory=set)
    """Keys of those that only holders want mounted: the last one unmounts."""

    async def open(self) -> None:
        """Learn what is written down; what is not goes."""
        kept = await self._database.read(lambda connection: _kept(connection, self._rootfs))
        self._known = {snapshot.key: snapshot for snapshot in kept}
        await in_thread(self._drop_unknown_directories)

    async def prepare(
        self,
        key: str,
        layer_ids: Sequence[str],
        owner: Owner,
        *,
        init_layer: bool = True,
        kept: bool = True,
    ) -> Snapshot:
        """Make a snapshot over ``layer_ids`` (bottom first) and mount it. One that is there already is mounted.

        Args:
            key: Its name.
            layer_ids: The image's layers, bottom first.
            owner: Whose.
            init_layer: Put the init layer above them.
            kept: ``False`` for one that need not outlive the daemon; its writes are not brought to disk either.

        Raises:
            NotFound: A layer is gone.
            Conflict: There is one with this key, and it is not the same.
        """
        async with self._locks[key]:
            return await self._prepare(key, layer_ids, owner, init_layer=init_layer, kept=kept)

    async def _prepare(
        self, key: str, layer_ids: Sequence[str], owner: Owner, *, init_layer: bool, kept: bool
    ) -> Snapshot:
        rootfs = self._rootfs(key, owner.uid, owner.remapped)
        wanted = Snapshot(
            key, owner.uid, owner.remapped, tuple(layer_ids), init_layer, kept, rootfs
        )
        known = self._known.get(key)
        if known is None:
            await self._record(wanted)
            self._known[key] = wanted
        elif known != wanted:
            raise Conflict(f"cannot prepare snapshot {key}: it exists with other layers")
        await self._mount(wanted, owner)
        return wanted

    def get(self, key: str) -> Snapshot:
        """The snapshot with this key.

        Raises:
            NotFound: There is none.
        """
        if key not in self._known:
            raise NotFound(f"cannot find snapshot {key}")
        return self._known[key]

    async def mount(self, key: str) -> Snapshot:
        """Mount it; success means it is mounted, as it may have been before.

        Raises:
            NotFound: There is none with this key.
        """
        async with self._locks[key]:
            snapshot = self.get(key)
            owner = await self._owners.owner(snapshot.owner, remapped=snapshot.remapped)
            await self._mount(snapshot, owner)
        return snapshot

    async def unmount(self, key: str) -> None:
        """Unmount it; success means it is not mounted, or will not be when its holders leave. What was written stays."""
        async with self._locks[key]:
            if key in self._known and self._holds.get(key):
                self._idle.add(key)
            elif key in self._known:
                await self._unmount(self._known[key])

    @asynccontextmanager
    async def held(
        self, key: str, layer_ids: Sequence[str], owner: Owner, wanted: Callable[[], bool]
    ) -> AsyncIterator[Snapshot]:
        """It is mounted for as long as the block runs, made if need be, whoever unmounts it; who removes it ends the block.

        Args:
            key: Its name.
            layer_ids: As for :meth:`prepare`, which this is too; so with ``owner``.
            owner: Whose.
            wanted: Whether whoever it is for still wants it, asked when nobody can be removing it.

        Raises:
            NotFound: It is not wanted any more, or a layer of it is gone.
            Conflict: It was removed meanwhile, and the block was cut off.
        """
        with trio.CancelScope() as scope:
            try:
                async with self._locks[key]:
                    if not wanted():
                        raise NotFound(f"cannot look into snapshot {key}: it is being removed")
                    idle = key not in self._known or key in self._down or key in self._idle
                    self._holds[key].add(scope)
                    try:
                        snapshot = await self._prepare(
                            key, layer_ids, owner, init_layer=True, kept=True
                        )
                    finally:
                        self._idle |= {key} if idle else set()
                yield snapshot
            finally:
                with finish_within(CLEAR_SECONDS):
                    await self._release(key, scope)
        if scope.cancelled_caught:
            raise Conflict(f"cannot go on looking into snapshot {key}: it was removed")

    async def _release(self, key: str, scope: trio.CancelScope) -> None:
        """The last holder of one that nobody else wants mounted unmounts it."""
        async with self._locks[key]:
            held = self._holds.get(key, set())
            try:
                if held == {scope} and key in self._idle and key in self._known:
                    await self._unmount(self._known[key])
            finally:
                held.discard(scope)
                if not held:
                    self._holds.pop(key, None)

    async def _evict(self, key: str) -> None:
        """Cut off who holds it, and wait until they have left."""
        while held := self._holds.get(key):
            for scope in held:
                scope.cancel()
            await trio.sleep(EVICT_PAUSE_SECONDS)

    async def commit(self, key: str, *, holder: str = "") -> Layer:
        """Make a layer of what was written, by renaming it; the snapshot is gone afterwards.

        What overlayfs or the runtime left of the init layer is no part of it.

        Args:
            key: Its name.
            holder: Who leases the layer in the same unit; without one it is fresh (see :mod:`supervisor.store.layers`).

        Raises:
            NotFound: There is none with this key.
        """
        async with self._locks[key]:
            snapshot = self.get(key)
            await self._unmount(snapshot)
            upper = self._directory(snapshot) / "upper"
            if snapshot.init_layer:
                await in_thread(lambda: clean_init_copies(upper))

            def forget(connection: sqlite3.Connection, layer_id: str) -> None:
                _forget(connection, key)
                if holder:
                    layer_store.lease_in(connection, holder, [layer_id])

            layer = await self._layers.adopt(upper, also=forget, maker=key)
            await self._dropped(snapshot)
        return layer

    async def remove(self, key: str) -> None:
        """Unmount and forget it, with all that was written; success means it is gone. Its holders are cut off."""
        await self._evict(key)
        async with self._locks[key]:
            snapshot = self._known.get(key)
            if snapshot is not None:
                await self._unmount(snapshot)
                if snapshot.kept:
                    await self._database.write(lambda connection: _forget(connection, key))
                await self._dropped(snapshot)
        if not self._locks[key].locked():  # else it was handed on to the next
            del self._locks[key]

    async def usage(self, key: str) -> int:
        """Bytes written to it.

        Raises:
            NotFound: There is none with this key.
        """
        upper = self._directory(self.get(key)) / "upper"
        return await in_thread(lambda: trees.measure(upper))

    def upper(self, key: str) -> Path:
        """The directory of what was written, in canonical ids; hostile, and changing while it is mounted.

        Raises:
            NotFound: There is none with this key.
        """
        return self._directory(self.get(key)) / "upper"

    async def changes(self, key: str) -> list[Change]:
        """What was changed in it; nothing in one that was never made.

        Raises:
            NotFound: It is removed just now.
        """
        snapshot = self._known.get(key)
        if snapshot is None:
            return []
        upper = self._directory(snapshot) / "upper"

        def look() -> list[Change]:
            lowers = [self._layers.path(name) for name in self._visible(snapshot)]
            return changes(upper, lowers)

        try:
            return await in_thread(look, LOOKING_THROUGH)
        except FileNotFoundError as error:
            raise NotFound(f"cannot tell what changed in snapshot {key}: it is gone") from error

    async def copy_written(self, key: str, target: Path) -> bool:
        """Copy what was written into the empty directory ``target``, as :meth:`commit` would keep it; whether there is any.

        Raises:
            NotFound: There is none with this key.
            InvalidArgument: A directory in it is too deep.
        """
        snapshot = self.get(key)
        upper = self._directory(snapshot) / "upper"

        def copy() -> bool:
            with _opened(upper) as source, _opened(target) as into:
                copying.copy_layer(source, into)
            if snapshot.init_layer:
                clean_init_copies(target)
            return any(target.iterdir())

        try:
            return await in_thread(copy, LOOKING_THROUGH)
        except trees.TooDeep as error:
            message = f"cannot copy what was written: a directory is more than {trees.WALK_DEPTH_MAX} levels deep"
            raise InvalidArgument(message) from error

    def beside(self, key: str) -> Path:
        """A directory for files of the container's that are no part of its root: as it is on disk, in canonical ids.

        It goes with the snapshot, and what is written there lies where what is written to the snapshot does.

        Raises:
            NotFound: There is none with this key.
        """
        return self._directory(self.get(key)) / BESIDE

    async def beside_in_mounts(self, key: str, owner: Owner) -> Path:
        """Where M shows the same directory, in the owner's ids.

        Raises:
            NotFound: There is none with this key.
        """
        return await self._views.snapshots(owner) / self.get(key).key / BESIDE

    async def recover(self, wanted: Collection[str], idle: Collection[str] = ()) -> None:
        """Remove every snapshot that is not ``wanted``, and every mount of one that is not known, or is ``idle``."""
        for key in [key for key in self._known if key not in wanted]:
            await self.remove(key)
        places = {snapshot.rootfs for snapshot in self._known.values()}
        up = {known.rootfs for key, known in self._known.items() if key not in idle}
        for place in await mounts.mounted(self._spawner, self._views.run_root / "rootfs"):
            if place not in up:
                await mounts.unmount(self._spawner, place)
        self._down |= self._known.keys() & idle
        await in_thread(lambda: self._drop_unknown_places(places))

    async def _record(self, snapshot: Snapshot) -> None:
        if snapshot.kept:
            await self._database.write(lambda connection: _insert(connection, snapshot))
            self._layers.used(snapshot.layers)
        else:
            await self._layers.hold_busy(snapshot.layers)

    async def _unmount(self, snapshot: Snapshot) -> None:
        if snapshot.key not in self._down:
            await mounts.unmount(self._spawner, snapshot.rootfs)
            self._down.add(snapshot.key)
        self._idle.discard(snapshot.key)

    async def _mount(self, snapshot: Snapshot, owner: Owner) -> None:
        self._down.discard(snapshot.key)
        self._idle.discard(snapshot.key)
        view = await self._views.layers(owner)
        writable = await self._views.snapshots(owner) / snapshot.key
        await self._views.gate(owner, "rootfs")
        top = snapshot.layers[-1] if snapshot.layers else INIT_LAYER
        directory = self._directory(snapshot)

        def prepare() -> list[str]:
            _make_directories(directory, snapshot.rootfs, self._layers.path(top))
            return self._visible(snapshot)

        lowers = await in_thread(prepare)
        await mounts.overlay(
            self._spawner,
            view,
            lowers,
            writable / "upper",
            writable / "work",
            snapshot.rootfs,
            volatile=not snapshot.kept,
        )

    def _visible(self, snapshot: Snapshot) -> list[str]:
        """Topmost first, down to a layer whose root is opaque: overlayfs does not look at that mark on a root."""
        lowers = [INIT_LAYER] if snapshot.init_layer else []
        for layer in reversed(snapshot.layers):
            lowers.append(layer)
            if packing.is_opaque(self._layers.path(layer)):
                break
        return lowers

    async def _dropped(self, snapshot: Snapshot) -> None:
        """It is unmounted and no longer written down: clear away what it had."""
        directory = self._directory(snapshot)
        with finish_within(CLEAR_SECONDS):  # nobody would know of it any more
            await in_thread(lambda: self._clear(directory, snapshot.rootfs))
        self._known.pop(snapshot.key, None)
        self._down.discard(snapshot.key)
        if not snapshot.kept:
            self._layers.release_busy(snapshot.layers)

    def _clear(self, directory: Path, rootfs: Path) -> None:
        self._trash.take(directory)
        _remove_place(rootfs)

    def _directory(self, snapshot: Snapshot) -> Path:
        return self._views.data_root / "snapshots" / f"u{snapshot.owner}" / snapshot.key

    def _rootfs(self, key: str, uid: int, remapped: bool) -> Path:
        return self._views.run_root / "rootfs" / gate_name(uid, remapped=remapped) / key / "merged"

    def _drop_unknown_directories(self) -> None:
        root = self._views.data_root / "snapshots"
        root.mkdir(mode=0o700, exist_ok=True)
        for directory in root.glob("u*/*"):
            if directory.name not in self._known:
                self._trash.take(directory)

    def _drop_unknown_places(self, known: Collection[Path]) -> None:
        for directory in (self._views.run_root / "rootfs").glob("*/*"):
            if directory / "merged" not in known:
                _remove_place(directory / "merged")


def _kept(connection: sqlite3.Connection, rootfs: RootfsOf) -> list[Snapshot]:
    layers: defaultdict[str, list[str]] = defaultdict(list)
    for key, layer in connection.execute(
        "SELECT key, layer FROM snapshot_layers ORDER BY key, position"
    ):
        layers[key].append(layer)
    return [
        Snapshot(
            key=row["key"],
            owner=row["owner"],
            remapped=bool(row["remapped"]),
            layers=tuple(layers[row["key"]]),
            init_layer=bool(row["init_layer"]),
            kept=True,
            rootfs=rootfs(row["key"], row["owner"], bool(row["remapped"])),
        )
        for row in connection.execute("SELECT * FROM snapshots")
    ]


def _insert(connection: sqlite3.Connection, snapshot: Snapshot) -> None:
    layer_store.get_in(connection, snapshot.layers)
    connection.execute(
        "INSERT INTO snapshots (key, owner, remapped, init_layer, created_ns) VALUES (?, ?, ?, ?, ?)",
        (snapshot.key, snapshot.owner, snapshot.remapped, snapshot.init_layer, clock.now_ns()),
    )
    connection.executemany(
        "INSERT INTO snapshot_layers (key, position, layer) VALUES (?, ?, ?)",
        [(snapshot.key, position, layer) for position, layer in enumerate(snapshot.layers)],
    )


def _forget(connection: sqlite3.Connection, key: str) -> None:
    connection.execute("DELETE FROM snapshots WHERE key = ?", (key,))


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = trees.open_directory(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _make_directories(directory: Path, rootfs: Path, top: Path) -> None:
    """The upper directory has the mode of the topmost layer's root, since it is what the merged root shows."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    upper = directory / "upper"
    if not upper.exists():
        fresh = directory / "fresh"
        fresh.mkdir(exist_ok=True)
        fresh.chmod(stat.S_IMODE(top.lstat().st_mode))
        fresh.rename(upper)
    # A volatile overlay that was not unmounted refuses to be mounted again (work/incompat/volatile).
    shutil.rmtree(directory / "work" / "work" / "incompat", ignore_errors=True)
    (directory / "work").mkdir(mode=0o700, exist_ok=True)
    rootfs.parent.mkdir(mode=0o755, exist_ok=True)
    rootfs.mkdir(mode=0o755, exist_ok=True)


def _remove_place(rootfs: Path) -> None:
    for directory in (rootfs, rootfs.parent):
        try:
            directory.rmdir()
        except FileNotFoundError:
            continue
