"""Volumes: what outlives containers, private to its owner.

Words:
    anonymous: Made for one container without a name of its own (64 hex digits), gone with it when asked.
    hold: A container's claim; a held volume is not removed.
    fill: To copy what the image has at the mount point into a volume at its first use.

Rules: a name is safe as a file name; the tree is canonical on disk and shown through the owner's view; another owner's
volume does not exist. Messages are Docker's.
"""

from __future__ import annotations

import os
import re
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import attrs
import orjson
import trio

from protocol.events import VolumeCreate, VolumeDestroy, VolumePrune
from supervisor import clock
from supervisor.access.owners import Owner
from supervisor.access.quota import admit
from supervisor.access.volume_options import volume_source
from supervisor.config import OwnerConfig
from supervisor.database.database import Database
from supervisor.errors import Conflict, Internal, InvalidArgument, NotFound
from supervisor.events.journal import Events
from supervisor.linux import beneath, mounts
from supervisor.linux.spawner import Spawner
from supervisor.store import copying, trees
from supervisor.store.trash import Trash
from supervisor.store.views import Views, gate_name
from supervisor.tasks import WALK, finish_within, in_thread

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,200}")
DATA = "_data"
IN_MEMORY = "volumes"
"""Below the run directory: where volumes are that are gone with the host's memory."""
ROOT_MODE = 0o755
FILL_CLEANUP_SECONDS = 10.0


@attrs.frozen
class Volume:
    """One volume. ``holders`` are ids of containers."""

    owner: int
    name: str
    anonymous: bool
    filled: bool
    labels: Mapping[str, str]
    options: Mapping[str, str]
    created_ns: int
    holders: tuple[str, ...] = ()


@attrs.define(eq=False)
class Volumes:
    """The volumes of this store. Made by :func:`supervisor.store.store.open_store`."""

    _database: Database
    _events: Events
    _spawner: Spawner
    _views: Views
    _trash: Trash
    _limits: Callable[[int], OwnerConfig]
    _in_memory: set[Path] = attrs.field(factory=set)
    _changing: trio.Lock = attrs.field(factory=trio.Lock)

    async def open(self) -> None:
        """Remove what no row tells of."""
        known = await self._database.read(
            lambda c: {(row["owner"], row["name"]) for row in c.execute("SELECT * FROM volumes")}
        )
        await in_thread(lambda: self._drop_unknown(known))
        places = self._places(known)
        for place in await mounts.mounted(self._spawner, self._views.run_root / IN_MEMORY):
            if place in places:
                self._in_memory.add(place)
            else:
                await mounts.unmount(self._spawner, place)

    async def create(
        self,
        owner: int,
        name: str = "",
        *,
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        anonymous: bool | None = None,
        holder: str = "",
    ) -> Volume:
        """Make a volume; one of this name that is there already is success.

        Args:
            owner: Whose.
            name: Empty for one we choose.
            labels: Kept for the people who gave them.
            options: See :mod:`supervisor.access.volume_options`.
            anonymous: By default whether we chose the name.
            holder: A container that holds it from the start: made first and held later, it could be left to nobody.

        Raises:
            InvalidArgument: The name is not safe, or the options make no sense.
            ResourceExhausted: The owner has as many as they may.
        """
        _check(name, options or {})
        wanted = Volume(
            owner=owner,
            name=name or secrets.token_hex(32),
            anonymous=(not name) if anonymous is None else anonymous,
            filled=False,
            labels=labels or {},
            options=options or {},
            created_ns=clock.now_ns(),
        )
        async with self._changing:
            await self._admit(owner, wanted.name)
            with finish_within(
                FILL_CLEANUP_SECONDS
            ):  # a directory that no row tells of is nobody's
                await in_thread(lambda: _make(self.path(wanted.owner, wanted.name)))
                return await self._database.write(lambda c: self._create_in(c, wanted, holder))
        raise Internal(f"cannot create volume {wanted.name}: the database does not answer")

    async def _admit(self, owner: int, name: str) -> None:
        """One more may be made, or is there already. Rows come and go only while ``_changing`` is held."""
        allowed = self._limits(owner).volumes_max
        if not allowed:
            return
        have, anonymous, there = await self._database.read(lambda c: _counts(c, owner, name))
        if not there:
            hint = (
                f"{anonymous} of them are anonymous: docker volume prune removes those nobody uses"
            )
            admit("create a volume", have, allowed, hint=hint)

    async def get(self, owner: int, name: str) -> Volume:
        """The owner's volume of this name.

        Raises:
            NotFound: They have none.
        """
        return await self._database.read(lambda connection: _get(connection, owner, name))

    async def list(self, owner: int | None) -> Sequence[Volume]:
        """An owner's volumes, or with ``None`` everybody's, by name."""
        where = "" if owner is None else "WHERE owner = :owner"
        return await self._database.read(
            lambda connection: _select(connection, where, {"owner": owner})
        )

    async def count(self, owner: int) -> int:
        """How many an owner has."""
        return await self._database.read(lambda connection: _counts(connection, owner, "")[0])

    async def remove(self, owner: int, name: str, *, force: bool = False) -> None:
        """Remove a volume with what is in it.

        Args:
            owner: Whose.
            name: Which.
            force: It not being there is success.

        Raises:
            NotFound: They have none of this name.
            Conflict: A container holds it.
        """
        async with self._changing:
            try:
                await self._database.write(lambda c: self._remove_in(c, owner, name))
            except NotFound:
                if not force:
                    raise
            await self._to_trash([(owner, name)])

    async def named(self, name: str) -> Sequence[Volume]:
        """Everybody's volumes of this name."""
        return await self._database.read(
            lambda connection: _select(connection, "WHERE name = :name", {"name": name})
        )

    async def prune(
        self, owner: int, wanted: Callable[[Volume], bool]
    ) -> tuple[Sequence[Volume], int]:
        """Remove the owner's volumes that nobody holds and that are ``wanted``; also the bytes that are free."""
        removed: list[Volume] = []
        reclaimed = 0
        for volume in await self.list(owner):
            if volume.holders or not wanted(volume):
                continue
            size = await self.usage(volume)
            try:
                await self.remove(owner, volume.name)
            except (Conflict, NotFound):
                continue  # somebody was quicker
            removed.append(volume)
            reclaimed += size
        await self._events.emit(
            VolumePrune(reclaimed_bytes=reclaimed),
            owner=owner,
            subject="",
            attributes={"reclaimed": str(reclaimed)},
        )
        return removed, reclaimed

    async def hold(
        self,
        owner: Owner,
        name: str,
        container: str,
        *,
        anonymous: bool = False,
        labels: Mapping[str, str] | None = None,
    ) -> str:
        """Let a container hold the owner's volume, made if it is missing; its name. Holding it already is success.

        ``labels`` are of one that is made.

        Raises:
            InvalidArgument: The name is not safe.
        """
        made = await self.create(
            owner.uid, name, labels=labels, anonymous=anonymous or not name, holder=container
        )
        return made.name

    async def release(self, container: str, *, remove_anonymous: bool) -> None:
        """The container holds nothing any more; its anonymous volumes go too, if asked and nobody else holds them."""

        def work(connection: sqlite3.Connection) -> list[tuple[int, str]]:
            held = connection.execute(
                "SELECT volumes.* FROM volume_holds JOIN volumes USING (owner, name) WHERE container = ?",
                (container,),
            ).fetchall()
            connection.execute("DELETE FROM volume_holds WHERE container = ?", (container,))
            return [
                (row["owner"], row["name"])
                for row in held
                if remove_anonymous and row["anonymous"] and self._gone(connection, row)
            ]

        async with self._changing:
            await self._to_trash(await self._database.write(work))

    def path(self, owner: int, name: str) -> Path:
        """Its directory in the store, in canonical ids; what is in it is hostile."""
        return self._views.data_root / "volumes" / f"u{owner}" / name / DATA

    async def path_in_mounts(self, owner: Owner, name: str) -> Path:
        """Where M shows it in the owner's ids: what a container's mount is made of.

        A volume in memory is made at its first use, and is there until it is removed or the host starts anew.
        """
        source = volume_source((await self.get(owner.uid, name)).options)
        if source is None:
            return await self._views.volumes(owner) / name / DATA
        place = await self._views.gate(owner, IN_MEMORY) / name
        self._in_memory.add(place)  # before it is: a mount that nobody knows of would stay
        await mounts.tmpfs(
            self._spawner,
            place,
            _in_owners_ids(source.options, owner),
            programs="noexec" not in source.options,
        )
        return place

    async def usage(self, volume: Volume) -> int:
        """Bytes of its files."""
        path = self.path(volume.owner, volume.name)
        return await in_thread(lambda: trees.measure(path), WALK)

    async def fill(self, owner: Owner, name: str, rootfs: Path, target: str) -> None:
        """At its first use, copy what the image has at ``target`` into the volume, owners and modes included.

        A volume that was used, or in which there is something, is left alone: that is success too.

        Args:
            owner: Whose.
            name: Which.
            rootfs: Where the container's root is mounted, in M.
            target: The mount point in it; what a container may have made of it is not trusted.

        Raises:
            NotFound: They have none of this name.
        """
        volume = await self.get(owner.uid, name)
        if volume.filled or volume.options:
            return
        into = await mounts.open_in_mounts(self._spawner, await self.path_in_mounts(owner, name))
        try:
            root = await mounts.open_in_mounts(self._spawner, rootfs)
            try:
                await in_thread(lambda: _copy_up(root, target, into))
            finally:
                os.close(root)
        finally:
            os.close(into)
        with finish_within(FILL_CLEANUP_SECONDS):
            await self._database.write(lambda connection: _filled(connection, owner.uid, name))

    def _create_in(self, connection: sqlite3.Connection, wanted: Volume, holder: str) -> Volume:
        made = connection.execute(
            "INSERT INTO volumes (owner, name, anonymous, filled, labels, options, created_ns)"
            " VALUES (?, ?, ?, 0, ?, ?, ?) ON CONFLICT DO NOTHING",
            (
                wanted.owner,
                wanted.name,
                wanted.anonymous,
                orjson.dumps(dict(wanted.labels)).decode(),
                orjson.dumps(dict(wanted.options)).decode(),
                wanted.created_ns,
            ),
        ).rowcount
        if made:
            attributes = {"driver": "local"}
            self._events.record(
                connection,
                VolumeCreate(),
                owner=wanted.owner,
                subject=wanted.name,
                attributes=attributes,
            )
        if holder:
            connection.execute(
                "INSERT OR IGNORE INTO volume_holds (owner, name, container) VALUES (?, ?, ?)",
                (wanted.owner, wanted.name, holder),
            )
        return _get(connection, wanted.owner, wanted.name)

    def _remove_in(self, connection: sqlite3.Connection, owner: int, name: str) -> None:
        volume = _get(connection, owner, name)
        if volume.holders:
            holders = ", ".join(volume.holders)
            message = f"remove {name}: volume is in use - [{holders}]"
            raise Conflict(message, hint="remove these containers first")
        self._forget(connection, owner, name)

    def _gone(self, connection: sqlite3.Connection, row: sqlite3.Row) -> bool:
        """Forget an anonymous volume unless another container holds it; whether it was forgotten."""
        if _get(connection, row["owner"], row["name"]).holders:
            return False
        self._forget(connection, row["owner"], row["name"])
        return True

    def _forget(self, connection: sqlite3.Connection, owner: int, name: str) -> None:
        connection.execute("DELETE FROM volumes WHERE owner = ? AND name = ?", (owner, name))
        attributes = {"driver": "local"}
        self._events.record(
            connection, VolumeDestroy(), owner=owner, subject=name, attributes=attributes
        )

    async def _to_trash(self, gone: Sequence[tuple[int, str]]) -> None:
        paths = [self.path(owner, name).parent for owner, name in gone if NAME.fullmatch(name)]
        with finish_within(FILL_CLEANUP_SECONDS):
            for place in self._places(gone) & self._in_memory:
                await mounts.unmount(self._spawner, place)
                self._in_memory.discard(place)
            await in_thread(lambda: self._take_all(paths))

    def _places(self, volumes: Iterable[tuple[int, str]]) -> set[Path]:
        """Where these would be shown if they were in memory."""
        return {
            self._views.run_root / IN_MEMORY / gate_name(owner, remapped=remapped) / name
            for owner, name in volumes
            for remapped in (True, False)
        }

    def _take_all(self, paths: Iterable[Path]) -> None:
        for path in paths:
            self._trash.take(path)

    def _drop_unknown(self, known: set[tuple[int, str]]) -> None:
        root = self._views.data_root / "volumes"
        root.mkdir(mode=0o700, exist_ok=True)
        for place in root.glob("u*/*"):
            owner = place.parent.name.removeprefix("u")
            if owner.isdecimal() and (int(owner), place.name) not in known:
                self._trash.take(place)


def _check(name: str, options: Mapping[str, str]) -> None:
    if len(name) == 1:
        raise InvalidArgument(
            "volume name is too short, names should be at least two alphanumeric characters"
        )
    if name and not NAME.fullmatch(name):
        raise InvalidArgument(
            f'create {name[:80]}: "{name[:80]}" includes invalid characters for a local volume name,'
            ' only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory,'
            " use absolute path"
        )
    try:
        volume_source(options)
    except InvalidArgument as error:
        raise InvalidArgument(f"create {name}: {error.message}", error.hint) from error


def _in_owners_ids(options: Iterable[str], owner: Owner) -> list[str]:
    """Options of a tmpfs for the kernel: ids are those of the container's, and without one its root's.

    Raises:
        InvalidArgument: An id that no container of the owner's has.
    """
    values = dict(option.partition("=")[::2] for option in options if "=" in option)
    uid, gid = int(values.get("uid", "0")), int(values.get("gid", "0"))
    try:
        uid, gid = owner.id_map.uid_outside(uid), owner.id_map.gid_outside(gid)
    except LookupError as error:
        raise InvalidArgument(
            f"cannot mount the volume: uid {uid} or gid {gid} is not among the container's ids"
        ) from error
    values |= {"uid": str(uid), "gid": str(gid), "mode": values.get("mode", "1777")}
    return [f"{name}={value}" for name, value in sorted(values.items())]


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.parent.parent.chmod(0o700)
    path.mkdir(mode=ROOT_MODE, exist_ok=True)


def _copy_up(root: int, target: str, into: int) -> None:
    if os.listdir(into):
        return
    try:
        source = beneath.open_beneath(root, target, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        copying.copy_tree(source, into)
    finally:
        os.close(source)


def _counts(connection: sqlite3.Connection, owner: int, name: str) -> tuple[int, int, bool]:
    """How many an owner has, how many of them are anonymous, and whether one is called ``name``."""
    found = connection.execute(
        "SELECT count(*), coalesce(sum(anonymous), 0), coalesce(max(name = ?), 0) FROM volumes WHERE owner = ?",
        (name, owner),
    ).fetchone()
    return int(found[0]), int(found[1]), bool(found[2])


def _get(connection: sqlite3.Connection, owner: int, name: str) -> Volume:
    where = "WHERE owner = :owner AND name = :name"
    found = _select(connection, where, {"owner": owner, "name": name})
    if not found:
        message = f"get {name}: no such volume"
        raise NotFound(message)
    return found[0]


def _select(
    connection: sqlite3.Connection, where: str, values: Mapping[str, object]
) -> list[Volume]:
    """Volumes with their holders, by name; ``where`` is one of ours."""
    rows = connection.execute(
        "SELECT volumes.*, (SELECT group_concat(container) FROM volume_holds"  # noqa: S608  # see above
        " WHERE volume_holds.owner = volumes.owner AND volume_holds.name = volumes.name) AS holders"
        f" FROM volumes {where} ORDER BY name, owner",
        values,
    )
    return [
        Volume(
            owner=row["owner"],
            name=row["name"],
            anonymous=bool(row["anonymous"]),
            filled=bool(row["filled"]),
            labels=orjson.loads(row["labels"]),
            options=orjson.loads(row["options"]),
            created_ns=row["created_ns"],
            holders=tuple(sorted(filter(None, (row["holders"] or "").split(",")))),
        )
        for row in rows
    ]


def _filled(connection: sqlite3.Connection, owner: int, name: str) -> None:
    connection.execute("UPDATE volumes SET filled = 1 WHERE owner = ? AND name = ?", (owner, name))
