"""What a new container claims of volumes and host paths, so that a refusal comes before anything is done."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import attrs

from supervisor.access.owners import Owner
from supervisor.access.requests import MountKind
from supervisor.errors import InvalidArgument, NotFound
from supervisor.linux import mounts
from supervisor.runtime.parts import Parts
from supervisor.runtime.records import ContainerRecord, MountRecord
from supervisor.tasks import finish_within, in_thread

CLAIM_SECONDS = 30.0


async def settle_mounts(parts: Parts, owner: Owner, record: ContainerRecord) -> ContainerRecord:
    """The record with its volumes made, named and held; its host paths were looked at.

    Raises:
        InvalidArgument: A host path is not there; Docker's wording.
        PermissionDenied: The owner may not read it.
    """
    settled: list[MountRecord] = []
    for mount in record.mounts:
        match mount.kind:
            case MountKind.VOLUME:
                with finish_within(CLAIM_SECONDS):  # made but not held, it would be nobody's
                    name = await parts.store.volumes.hold(
                        owner,
                        mount.source,
                        record.id,
                        anonymous=mount.anonymous,
                        labels=mount.labels,
                    )
                    settled.append(attrs.evolve(mount, source=name))
            case MountKind.BIND:
                await _look_at(parts, owner, mount)
                settled.append(mount)
            case MountKind.TMPFS:
                settled.append(mount)
    return attrs.evolve(record, mounts=tuple(settled))


async def _look_at(parts: Parts, owner: Owner, mount: MountRecord) -> None:
    """Refuse early what the caller cannot even read; what is granted is decided anew at every start.

    An administrator may also bind what cannot be opened for reading, such as a socket: for them only being there counts.
    """
    if owner.remapped:
        there = await _readable(parts, owner, mount)
    else:
        there = await in_thread(partial(_exists, mount.source))
    if not there and not mount.create_source:  # else made, as the caller, when it is granted
        raise InvalidArgument(
            f'invalid mount config for type "bind": bind source path does not exist: {mount.source}'
        )


def _exists(path: str) -> bool:
    """Whether anything is there.

    Raises:
        PermissionDenied: Not even root may look, on a file system that is another's.
    """
    with mounts.told_as(f"mount {path!r}"):
        return Path(path).exists()


async def _readable(parts: Parts, owner: Owner, mount: MountRecord) -> bool:
    try:
        async with parts.audit.granting(owner.uid, mount.source, read_only=mount.read_only):
            fd = await mounts.open_as(parts.spawner, mount.source, owner.credentials, os.O_RDONLY)
    except NotFound:
        return False
    os.close(fd)
    return True
