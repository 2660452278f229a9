"""A container's ``/dev/shm``: its own, one that others may share, another's, the host's, or none (``--ipc``).

One that may be shared is a tmpfs mounted in M, of which each container gets a bind; any other the runtime makes itself.
"""

from __future__ import annotations

from pathlib import Path

from supervisor.access.owners import Owner
from supervisor.linux import mounts
from supervisor.runtime.conmon import SessionPaths
from supervisor.runtime.parts import Parts
from supervisor.runtime.records import ContainerRecord
from supervisor.runtime.spec import SpecMount

SHAREABLE = "shareable"
TARGET = "/dev/shm"  # noqa: S108  # in the container
FLAGS = ("nosuid", "nodev", "noexec")


def shared_memory_place(run_root: Path, record: ContainerRecord) -> Path:
    """Where a container's tmpfs is mounted in M, if it may be shared."""
    return _place(run_root / "containers" / f"u{record.owner}" / record.id)


def _place(session: Path) -> Path:
    return session / "mounts" / "shm"


async def shared_memory(
    parts: Parts,
    record: ContainerRecord,
    owner: Owner,
    session: SessionPaths,
    partners: Path | None,
) -> tuple[SpecMount, ...]:
    """What is bound at ``/dev/shm``; nothing where the runtime makes it, or the container mounts something itself.

    Args:
        parts: What it is made with.
        record: Of the container.
        owner: Its owner.
        session: Its session.
        partners: The place of the container's whose is shared.
    """
    mode = record.request.ipc_mode
    if any(mount.target == TARGET for mount in record.mounts):
        return ()
    if mode == "host":
        return (SpecMount(TARGET, TARGET, "bind", ("rbind", "rw", *FLAGS)),)
    if partners is not None:
        return (_bind(partners),)
    if mode != SHAREABLE:
        return ()
    place = _place(session.directory)
    size_bytes = record.request.shm_bytes or parts.config.runtime.shm_bytes
    ids = owner.id_map.uid_outside(0), owner.id_map.gid_outside(0)
    await mounts.shared_memory(parts.spawner, place, size_bytes, ids)
    return (_bind(place),)


def _bind(place: Path) -> SpecMount:
    return SpecMount(TARGET, str(place), "bind", ("bind", "rw", *FLAGS))


async def take_down_shared_memory(
    parts: Parts, record: ContainerRecord, session: SessionPaths
) -> None:
    """The tmpfs is unmounted; who shares it keeps it."""
    if record.request.ipc_mode == SHAREABLE:
        await mounts.unmount(parts.spawner, _place(session.directory), detach=True)
