"""What a container stands on while it runs, put together and taken apart.

Words: the *surroundings* of a container are its root file system, network, cgroup, granted host paths, and the session
directory with its spec. :func:`assemble` makes them, :func:`dismantle` leaves nothing of them; both may be done again at
any point, which is what recovery does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import orjson
from attrs import evolve, frozen

from supervisor.access.owners import Owner
from supervisor.access.requests import ContainerRequest
from supervisor.linux import mounts
from supervisor.linux.cgroup import CgroupLimits, Cgroups
from supervisor.network.networks import Sandbox
from supervisor.runtime import spec
from supervisor.runtime.cgroup_tree import container_group, disks_named, disks_of, limits_of
from supervisor.runtime.conmon import SessionPaths
from supervisor.runtime.connections import take_seat
from supervisor.runtime.container_mounts import prepare_mounts, take_down_mounts
from supervisor.runtime.devices import Device, gather, names_devices
from supervisor.runtime.first_process import process_inputs, settle_in
from supervisor.runtime.identity_files import identity_files, identity_place
from supervisor.runtime.init import has_init, place_init
from supervisor.runtime.joining import Joined
from supervisor.runtime.parts import Parts, own_directory
from supervisor.runtime.passwd import ContainerUser
from supervisor.runtime.records import ContainerRecord
from supervisor.runtime.seccomp import container_seccomp
from supervisor.runtime.shared_memory import shared_memory, take_down_shared_memory
from supervisor.runtime.spec import SpecInputs, SpecMount
from supervisor.tasks import each_to_its_end, finish_within, in_thread, together

FORGET_SECONDS = 10.0


Job = Callable[[], Awaitable[None]]


@frozen
class Surroundings:
    """What was made for one run of a container."""

    owner: Owner
    session: SessionPaths
    group: str
    rootfs: Path
    sandbox: Sandbox
    user: ContainerUser
    spec: dict[str, object]


def session_paths(run_root: Path, record: ContainerRecord) -> SessionPaths:
    """Where a container's session directory is."""
    return SessionPaths(run_root / "containers" / f"u{record.owner}" / record.id, record.id)


def log_path(data_root: Path, record: ContainerRecord) -> Path:
    """The current file of a container's log."""
    return data_root / "containers" / record.id / "log"


async def assemble(
    parts: Parts, record: ContainerRecord, joined: Joined, meanwhile: Job
) -> Surroundings:
    """Make everything ready for the runtime; on failure the caller dismantles.

    Args:
        parts: What it is made with.
        record: Of the container.
        joined: What it shares with others.
        meanwhile: Done at the same time, once the session directory and the owner's cgroups are there.

    Raises:
        PermissionDenied: A host path the owner may not have.
        Conflict: A port that is taken.
        InvalidArgument: A user the image does not know.
        Unavailable: The host refuses.
    """
    with mounts.told_as(f"start container {record.name}"):
        return await _assemble(parts, record, joined, meanwhile)


async def _assemble(
    parts: Parts, record: ContainerRecord, joined: Joined, meanwhile: Job
) -> Surroundings:
    told = partial(mounts.told_as, f"start container {record.name}")
    owner = await parts.owners.owner(record.owner, remapped=record.remapped)
    session = session_paths(parts.run_root, record)
    await in_thread(
        lambda: _fresh_directories(session, owner, log_path(parts.data_root, record).parent)
    )
    user_pin = await parts.user_namespace(owner)
    group = container_group(record)
    limits, found = await _allowed(parts, record.request)

    async def prepare_rootfs() -> None:
        with told():
            await parts.store.snapshots.prepare(record.id, record.layers, owner)

    async def prepare_group() -> None:
        rules = None if record.request.privileged else device_rules(record.request, found)
        await parts.tree.create(owner.uid, group, limits, rules)

    async def prepare_network() -> None:
        await take_seat(parts.networks, record, owner, user_pin)

    await parts.tree.admit(owner.uid)
    await together(meanwhile, prepare_rootfs, prepare_group, prepare_network)
    rootfs = parts.store.snapshots.get(record.id).rootfs
    sandbox = parts.networks.sandbox(record.id)
    assert sandbox is not None
    root_fd = await mounts.open_in_mounts(parts.spawner, rootfs)
    try:
        user = await in_thread(lambda: settle_in(root_fd, record, owner))
    finally:
        os.close(root_fd)
    shown = (
        *await shared_memory(parts, record, owner, session, joined.shared_memory),
        *await prepare_mounts(parts, record, owner, session),
    )
    place = await identity_place(parts.store.snapshots, record, owner)

    def write() -> dict[str, object]:
        init = (place_init(parts.run_root),) if has_init(record) else ()
        every = (*shown, *identity_files(record, *place, sandbox), *init)
        config = _spec(
            parts, record, owner, rootfs, sandbox, user, user_pin, every, group, found, joined
        )
        config = parts.runtime.filters.applied(config)
        _write_private(session.directory / "config.json", orjson.dumps(config))
        return config

    written = await in_thread(write)
    return Surroundings(owner, session, group, rootfs, sandbox, user, written)


async def _allowed(
    parts: Parts, request: ContainerRequest
) -> tuple[CgroupLimits, tuple[Device, ...]]:
    """How much the container may use, and which devices."""
    resources = request.resources
    disks = await in_thread(lambda: disks_of(resources)) if disks_named(resources) else {}
    found = await in_thread(lambda: gather(request)) if names_devices(request) else ()
    return limits_of(resources, parts.config.runtime.pids_max, disks), found


def device_rules(request: ContainerRequest, found: Sequence[Device]) -> tuple[str, ...]:
    """What the container may do with which devices: the usual ones, those it was given, and what was said."""
    return (*spec.DEVICE_RULES, *(device.rule for device in found), *request.device_rules)


async def dismantle(parts: Parts, record: ContainerRecord) -> None:
    """Nothing of the container's surroundings is left: no process, mount, link, cgroup or session directory.

    Raises:
        BakehouseError: See :func:`take_down`.
    """
    await take_down(parts, record)
    await forget_session(parts, record)


async def forget_session(parts: Parts, record: ContainerRecord) -> None:
    """The session directory is gone; not before what it tells of the run's end is written down."""
    session = session_paths(parts.run_root, record)
    with finish_within(FORGET_SECONDS):
        await in_thread(lambda: shutil.rmtree(session.directory, ignore_errors=True))


async def take_down(parts: Parts, record: ContainerRecord) -> None:
    """Of the container's surroundings only the session directory is left.

    What can be taken down is, also when something else cannot.

    Raises:
        Conflict: Somebody looks into the root file system (a copy, for example).
        Internal: The runtime or the host refuses.
    """
    session = session_paths(parts.run_root, record)
    await parts.tree.clear(container_group(record))

    async def unmount() -> None:
        await take_down_mounts(parts, record, session)
        await take_down_shared_memory(parts, record, session)
        await parts.store.snapshots.unmount(record.id)

    async def forget() -> None:
        with mounts.told_as(f"have {parts.runtime.name} forget container {record.name}"):
            await parts.runtime.forget(parts.spawner, record.id)

    await each_to_its_end(forget, partial(parts.networks.detach, record.id), unmount)


def _fresh_directories(session: SessionPaths, owner: Owner, log_directory: Path) -> None:
    own_directory(session.directory.parent, owner)
    log_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.rmtree(session.directory, ignore_errors=True)
    session.directory.mkdir(mode=0o711)
    session.directory.chmod(0o711)
    (session.directory / "mounts").mkdir(mode=0o711)
    session.exit_file.parent.mkdir(mode=0o700)


def _write_private(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)


def _spec(  # noqa: PLR0913, PLR0917  # everything that was made, put into one value
    parts: Parts,
    record: ContainerRecord,
    owner: Owner,
    rootfs: Path,
    sandbox: Sandbox,
    user: ContainerUser,
    user_pin: Path | None,
    shown: tuple[SpecMount, ...],
    group: str,
    found: tuple[Device, ...],
    joined: Joined,
) -> dict[str, object]:
    request = record.request
    confined = parts.confines_devices(owner)
    wished = process_inputs(record, user, devices_confined=confined)
    process = evolve(wished, capabilities=parts.within_bounds(wished.capabilities))
    inputs = SpecInputs(
        process=process,
        rootfs=rootfs,
        id_map=owner.id_map,
        hostname=record.hostname,
        domainname=request.domainname,
        read_only_rootfs=request.read_only_rootfs,
        user_namespace=user_pin,
        network_namespace=sandbox.netns_pin,
        host_pid=request.pid_mode == "host",
        host_ipc=request.ipc_mode == "host",
        host_uts=request.uts_mode == "host",
        joined=joined.namespaces,
        own_shm=request.ipc_mode != "none",
        cgroups_path=parts.tree.cgroups.runtime_path(group) if parts.runtime.places else None,
        cgroup_mount=True,
        cgroup_namespace=private_cgroups(request, parts.tree.cgroups),
        mounts=shown,
        shm_bytes=request.shm_bytes or parts.config.runtime.shm_bytes,
        seccomp=container_seccomp(
            parts.profile, request, frozenset(process.capabilities), narrowed=owner.remapped
        ),
        masked_paths=_or_default(request.masked_paths, spec.MASKED_PATHS),
        readonly_paths=_or_default(request.readonly_paths, spec.READONLY_PATHS),
        sysctls=request.sysctls,
        privileged=request.privileged,
        annotations=request.annotations,
        devices=tuple(device.node for device in found),
        device_rules=device_rules(request, found),
    )
    return spec.build_spec(inputs)


def _or_default(given: tuple[str, ...] | None, default: tuple[str, ...]) -> tuple[str, ...]:
    return default if given is None else given


def private_cgroups(request: ContainerRequest, cgroups: Cgroups) -> bool:
    """Whether the container is the root of what it sees of the cgroup tree: Docker's default where that is v2."""
    return request.cgroupns_mode == "private" or (
        cgroups.kind == "v2" and request.cgroupns_mode != "host"
    )
