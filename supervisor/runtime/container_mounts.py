"""A container's mounts: volumes, host paths and tmpfs, made ready in M for the runtime to bind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import evolve

from supervisor.access.owners import Owner
from supervisor.access.requests import MountKind
from supervisor.access.volume_options import VolumeSource, volume_source
from supervisor.errors import InvalidArgument
from supervisor.linux import mounts
from supervisor.runtime.conmon import SessionPaths
from supervisor.runtime.parts import Parts
from supervisor.runtime.records import ContainerRecord, MountRecord
from supervisor.runtime.spec import SpecMount

TMPFS_OPTIONS = ("noexec", "nosuid", "nodev")
FOLLOWING = ("slave", "rslave")
"""Propagation by which what the host mounts later appears in the container."""


async def prepare_mounts(
    parts: Parts, record: ContainerRecord, owner: Owner, session: SessionPaths
) -> tuple[SpecMount, ...]:
    """Everything the container mounts, as the runtime shall do it, in order.

    Raises:
        PermissionDenied: A host path the owner may not have.
        NotFound: A host path or volume that is gone.
    """
    shown = []
    for number, mount in enumerate(record.mounts):
        place = session.directory / "mounts" / str(number)
        shown.append(await _mount(parts, record, owner, mount, place))
    return tuple(sorted(shown, key=lambda mount: mount.target.count("/")))


async def _mount(
    parts: Parts, record: ContainerRecord, owner: Owner, mount: MountRecord, place: Path
) -> SpecMount:
    mode = "ro" if mount.read_only else "rw"
    match mount.kind:
        case MountKind.TMPFS:
            # Docker's defaults, without what the caller contradicts: runtimes do not agree on which of two holds.
            given = [one for one in TMPFS_OPTIONS if one.removeprefix("no") not in mount.options]
            return SpecMount(mount.target, "tmpfs", "tmpfs", (*given, *mount.options))
        case MountKind.VOLUME:
            volume = await parts.store.volumes.get(owner.uid, mount.source)
            mount = resolve_mount(mount, volume.options)
            if mount.kind is MountKind.BIND:
                return await _granted(parts, record, owner, mount, place)
            mode = "ro" if mount.read_only else "rw"
            rootfs = parts.store.snapshots.get(record.id).rootfs
            if mount.copy_up and not mount.subpath:
                await parts.store.volumes.fill(owner, mount.source, rootfs, mount.target)
            source = await parts.store.volumes.path_in_mounts(owner, mount.source)
            if mount.subpath:
                await mounts.bind_below(
                    parts.spawner, source, mount.subpath, place, read_only=mount.read_only
                )
                source = place
            # As the view is: see own_file.
            content = volume_source(volume.options)
            flags = ("nosuid", *content.flags) if content else ()
            return SpecMount(mount.target, str(source), "bind", ("rbind", mode, "nodev", *flags))
        case MountKind.BIND:
            return await _granted(parts, record, owner, mount, place)


def resolve_mount(mount: MountRecord, options: Mapping[str, str]) -> MountRecord:
    """A volume's mount with what the volume's options say; one that is a directory of the host's is a bind of it. Pure.

    Raises:
        InvalidArgument: Only a part of a directory of the host's is asked for.
    """
    content = volume_source(options) or VolumeSource()
    mount = evolve(mount, read_only=mount.read_only or content.read_only)
    if not content.directory:
        return mount
    if mount.subpath:
        raise InvalidArgument(
            f"cannot mount a part of volume {mount.source}: it is a directory of the host",
            "mount that part with a bind",
        )
    return evolve(mount, kind=MountKind.BIND, source=content.directory, create_source=False)


async def _granted(
    parts: Parts, record: ContainerRecord, owner: Owner, mount: MountRecord, place: Path
) -> SpecMount:
    """A host path, opened with its owner's credentials."""
    mode = "ro" if mount.read_only else "rw"
    flags = ("nosuid", "nodev") if record.remapped else ()
    async with parts.audit.granting(owner.uid, mount.source, read_only=mount.read_only):
        await mounts.grant_path(
            parts.spawner,
            mount.source,
            owner.credentials,
            writable=not mount.read_only,
            create=mount.create_source,
            target=place,
            forbidden=(parts.data_root, parts.run_root),
            restricted=record.remapped,
            below=mounts.Below(
                mount.recursive,
                mount.read_only_recursive,
                mount.propagation in FOLLOWING,
            ),
        )
    follows = (mount.propagation,) if mount.propagation in FOLLOWING else ()
    options = ("rbind", mode, *flags, *follows)
    return SpecMount(mount.target, str(place), "bind", options)


async def take_down_mounts(parts: Parts, record: ContainerRecord, session: SessionPaths) -> None:
    """What :func:`prepare_mounts` mounted is unmounted."""
    for number in range(len(record.mounts)):
        place = session.directory / "mounts" / str(number)
        await mounts.unmount(parts.spawner, place, detach=True)
