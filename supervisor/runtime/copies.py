"""Files in and out of a container: ``docker cp`` both ways, and ``docker export``.

Words: what a container's files are seen through is its *view* (:mod:`supervisor.linux.tree_view`): its root file system,
its volumes and host paths, whether it runs or not; not its tmpfs, and nothing of the kernel's, as with dockerd.

Rules: for the time of a copy the root file system is held mounted; a removal cuts the copy off. What is copied is read
and written as the container's own root, so nothing is reached that the owner could not reach from inside, and on the
owner's account. Messages are Docker's where clients look at them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path

import attrs
import trio

from protocol.events import ContainerArchive, ContainerExport
from supervisor.access.owners import Owner
from supervisor.access.requests import MountKind
from supervisor.errors import Conflict, InvalidArgument, NotFound, PermissionDenied
from supervisor.linux import mounts, tree_view
from supervisor.linux.tree_view import Filling, Found, Place, TreeView, ViewMount
from supervisor.runtime.assembly import session_paths
from supervisor.runtime.cgroup_tree import monitors_group
from supervisor.runtime.container_mounts import resolve_mount
from supervisor.runtime.first_process import check_mapped, container_user
from supervisor.runtime.identity_files import identity_place
from supervisor.runtime.keeper import Keeper
from supervisor.runtime.records import ContainerRecord, MountRecord
from supervisor.runtime.status import Status
from supervisor.store import tree_archive
from supervisor.store.scan import ID_MAX
from supervisor.store.tree_archive import Ids
from supervisor.tasks import in_thread

GONE = frozenset({Status.REMOVING, Status.REMOVED})
IDENTITY_FILES = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
READ_ONLY = {
    "rootfs": "container rootfs is marked read-only",
    "volume": "mounted volume is marked read-only",
}
TO_ARCHIVE, TO_DIRECTORY = "archive-path", "extract-to-dir"


@attrs.frozen
class Outgoing:
    """What leaves a container: what was found, and its tar piece by piece."""

    found: Found
    pieces: AsyncIterator[bytes]


async def stat(keeper: Keeper, path: str) -> Found:
    """What is at a path of the container.

    Raises:
        NotFound: Nothing; Docker's wording.
        InvalidArgument: The way there leads through something else than directories.
    """
    place = Place.of(path)
    async with _view(keeper) as (view, _):
        with _told(keeper, path):
            return await tree_view.look(keeper.parts.spawner, view, place)


@asynccontextmanager
async def outgoing(keeper: Keeper, path: str) -> AsyncIterator[Outgoing]:
    """A path of the container as a tar whose root has the path's last name.

    Raises:
        NotFound: Nothing is there; Docker's wording.
        Conflict: The container is removed meanwhile.
    """
    place = Place.of(path)
    async with (
        _view(keeper) as (view, _),
        tree_view.reading(keeper.parts.spawner, view, place) as stream,
    ):
        told = partial(_told, keeper, path)
        with told():
            await stream.begin()
        pieces = tree_archive.pieces(stream, os.fsencode(place.name), told)
        async with aclosing(pieces):
            yield Outgoing(stream.found, pieces)
        await keeper.row.tell(ContainerArchive(action=TO_ARCHIVE, path=path))


@asynccontextmanager
async def exported(keeper: Keeper) -> AsyncIterator[AsyncIterator[bytes]]:
    """The whole root file system as a tar, without what is mounted in it.

    Raises:
        Conflict: The container is removed meanwhile.
    """
    async with _view(keeper) as (view, _):
        bare = attrs.evolve(view, mounts=())
        async with tree_view.reading(keeper.parts.spawner, bare, Place.of("/")) as stream:
            told = partial(_told, keeper, "/")
            with told():
                await stream.begin()
            async with aclosing(tree_archive.pieces(stream, b"", told)) as pieces:
                yield pieces
        await keeper.row.tell(ContainerExport())


async def check_target(keeper: Keeper, path: str) -> None:
    """Files can be copied into this directory of the container.

    Raises:
        NotFound: It is not there; Docker's wording.
        InvalidArgument: It is no directory.
        PermissionDenied: It may not be written to.
    """
    async with _view(keeper) as (view, _):
        await _check_target(keeper, view, path)


async def incoming(
    keeper: Keeper,
    path: str,
    archive: AsyncIterable[bytes],
    *,
    keep_kinds: bool,
    as_user: bool,
) -> None:
    """Unpack a tar, compressed or not, into a directory of the container.

    Args:
        keeper: The container's.
        path: The directory; links at its end are followed too.
        archive: The tar, unpacked as it comes.
        keep_kinds: Refuse to replace a directory by something else, and the other way round.
        as_user: All that is made belongs to the user that the container runs as, not to whom the archive says.

    Raises:
        NotFound: The directory is not there; Docker's wording.
        InvalidArgument: It is none, or the archive is damaged or an attack.
        PermissionDenied: It may not be written to.
        ResourceExhausted: The archive is larger than the bounds, or the disk is full.
        Conflict: The container is removed meanwhile.
    """
    await check_target(keeper, path)  # before the archive, which may be long
    async with _view(keeper) as (view, owner):
        await _check_target(keeper, view, path)
        user = keeper.record.user
        chosen = await _user_ids(keeper, view, owner) if as_user and user else ()
        read_end, write_end = tree_view.wide_pipe()
        filling = Filling(tree_view.clean_path(path), keep_kinds, chosen)
        coming = trio.CancelScope()
        with os.fdopen(read_end, "rb", buffering=0) as received:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_receive, archive, trio.lowlevel.FdStream(write_end), coming)
                feed = partial(tree_archive.feed, received, _ids(owner))
                with _told(keeper, path):
                    await tree_view.write(keeper.parts.spawner, view, filling, feed, coming.cancel)
        await keeper.row.tell(ContainerArchive(action=TO_DIRECTORY, path=path))


async def _receive(
    archive: AsyncIterable[bytes], pipe: trio.lowlevel.FdStream, scope: trio.CancelScope
) -> None:
    """Hand the archive to whoever reads it, until they have ended."""
    async with pipe:
        with scope, suppress(trio.BrokenResourceError):
            async for piece in archive:
                await pipe.send_all(piece)


async def _check_target(keeper: Keeper, view: TreeView, path: str) -> None:
    directory = tree_view.clean_path(path)
    with _told(keeper, path, not_a_directory="extraction point is not a directory"):
        reason = await tree_view.read_only_reason(keeper.parts.spawner, view, directory)
    if reason:
        raise PermissionDenied(READ_ONLY[reason])


async def _user_ids(keeper: Keeper, view: TreeView, owner: Owner) -> tuple[int, int]:
    root_fd = await mounts.open_in_mounts(keeper.parts.spawner, view.rootfs)
    try:
        user = await in_thread(lambda: container_user(root_fd, keeper.record.user, owner))
    finally:
        os.close(root_fd)
    check_mapped(user, owner)
    return user.uid, user.gid


def _ids(owner: Owner) -> Ids:
    return Ids(owner.uid, owner.gid, ID_MAX) if owner.remapped else Ids()


@contextmanager
def _told(keeper: Keeper, path: str, not_a_directory: str = "") -> Iterator[None]:
    """The kernel's refusal in Docker's words where it has some."""
    what = f"copy {path!r:.200} of container {keeper.record.name}"
    with mounts.told_as(what):
        try:
            yield
        except FileNotFoundError as error:
            message = f"Could not find the file {path} in container {keeper.record.name}"
            raise NotFound(message) from error
        except NotADirectoryError as error:
            if not_a_directory:
                raise InvalidArgument(not_a_directory) from error
            raise
        except FileExistsError as error:
            raise InvalidArgument(str(error.strerror)) from error
        except OSError as error:
            if error.errno == errno.ESTALE:
                raise Conflict(f"cannot {what}: {error.strerror}") from error
            raise


@asynccontextmanager
async def _view(keeper: Keeper) -> AsyncIterator[tuple[TreeView, Owner]]:
    """The container's files, for as long as the block runs."""
    parts, record = keeper.parts, keeper.record
    owner = await parts.owners.owner(record.owner, remapped=record.remapped)
    user_pin = await parts.user_namespace(owner)
    await parts.tree.admit(owner.uid)
    async with parts.store.snapshots.held(
        record.id, record.layers, owner, lambda: keeper.state.status not in GONE
    ) as snapshot:
        yield (
            TreeView(
                rootfs=snapshot.rootfs,
                mounts=await _mounts(keeper, owner, snapshot.rootfs),
                read_only=record.request.read_only_rootfs,
                user_pin=user_pin,
                groups=owner.supplementary,
                root_ids=(owner.id_map.uid_outside(0), owner.id_map.gid_outside(0)),
                cgroups=tuple(parts.tree.entry_paths(monitors_group(owner.uid))),
            ),
            owner,
        )


async def _mounts(keeper: Keeper, owner: Owner, rootfs: Path) -> tuple[ViewMount, ...]:
    """What is mounted in the container, or would be when it runs."""
    parts, record = keeper.parts, keeper.record
    session = session_paths(parts.run_root, record)
    shown = []
    for number, asked in enumerate(record.mounts):
        mount = await _resolved(keeper, asked)
        writable = not mount.read_only
        match mount.kind:
            case MountKind.VOLUME:
                if (
                    mount.copy_up and not mount.subpath
                ):  # as at a start: what is copied in must not keep the image's files out
                    await parts.store.volumes.fill(owner, mount.source, rootfs, mount.target)
                source = await parts.store.volumes.path_in_mounts(owner, mount.source)
                shown.append(ViewMount(mount.target, str(source), writable, mount.subpath))
            case MountKind.BIND if keeper.alive:
                source = session.directory / "mounts" / str(number)
                shown.append(ViewMount(mount.target, str(source), writable))
            case MountKind.BIND:
                shown.append(
                    ViewMount(
                        mount.target,
                        mount.source,
                        writable,
                        credentials=owner.credentials,
                        restricted=record.remapped,
                        create=mount.create_source,
                        forbidden=(parts.data_root, parts.run_root),
                    )
                )
            case MountKind.TMPFS:
                continue
    if keeper.alive:
        _, shown_at = await identity_place(parts.store.snapshots, record, owner)
        shown += _identity_files(record, shown_at)
    return tuple(shown)


async def _resolved(keeper: Keeper, mount: MountRecord) -> MountRecord:
    if mount.kind is not MountKind.VOLUME:
        return mount
    volume = await keeper.parts.store.volumes.get(keeper.record.owner, mount.source)
    return resolve_mount(mount, volume.options)


def _identity_files(record: ContainerRecord, shown_at: Path) -> list[ViewMount]:
    """The three files of the container's own; see :mod:`supervisor.runtime.identity_files`."""
    taken = {mount.target for mount in record.mounts}
    writable = not record.request.read_only_rootfs
    return [
        ViewMount(target, str(shown_at / Path(target).name), writable)
        for target in IDENTITY_FILES
        if target not in taken
    ]
