"""What a container stands on while it runs, put together and taken apart.

Words: the *surroundings* of a container are its root file system, network, cgroup, granted host paths, and the session
directory with its spec. :func:`assemble` makes them, :func:`dismantle` leaves nothing of them; both may be done again at
any point, which is what recovery does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import orjson
from attrs import evolve, frozen

from supervisor.access.owners import Owner
from supervisor.access.requests import MountKind
from supervisor.errors import InvalidArgument
from supervisor.linux import beneath, mounts
from supervisor.linux.idmap import IdMap
from supervisor.network.networks import Endpoint
from supervisor.runtime import files, spec
from supervisor.runtime.cgroup_tree import container_group, limits_of
from supervisor.runtime.conmon import SessionPaths
from supervisor.runtime.parts import Parts, own_directory
from supervisor.runtime.passwd import ContainerUser, resolve_user
from supervisor.runtime.records import ContainerRecord, MountRecord
from supervisor.runtime.seccomp import runtime_seccomp
from supervisor.runtime.spec import ProcessInputs, SpecInputs, SpecMount
from supervisor.tasks import each_to_its_end, finish_within, in_thread, together

FORGET_SECONDS = 10.0
ACCOUNT_FILE_BYTES_MAX = 1_048_576
TMPFS_OPTIONS = ("noexec", "nosuid", "nodev")


Job = Callable[[], Awaitable[None]]


@frozen
class Surroundings:
    """What was made for one run of a container."""

    owner: Owner
    session: SessionPaths
    group: str
    rootfs: Path
    endpoint: Endpoint
    user: ContainerUser


def session_paths(run_root: Path, record: ContainerRecord) -> SessionPaths:
    """Where a container's session directory is."""
    return SessionPaths(run_root / "containers" / f"u{record.owner}" / record.id, record.id)


def log_path(data_root: Path, record: ContainerRecord) -> Path:
    """The current file of a container's log."""
    return data_root / "containers" / record.id / "log"


async def assemble(parts: Parts, record: ContainerRecord, meanwhile: Job) -> Surroundings:
    """Make everything ready for the runtime; on failure the caller dismantles.

    Args:
        parts: What it is made with.
        record: Of the container.
        meanwhile: Done at the same time, once the session directory and the owner's cgroups are there.

    Raises:
        PermissionDenied: A host path the owner may not have.
        Conflict: A port that is taken.
        InvalidArgument: A user the image does not know.
        Unavailable: The host refuses.
    """
    with mounts.told_as(f"start container {record.name}"):
        return await _assemble(parts, record, meanwhile)


async def _assemble(parts: Parts, record: ContainerRecord, meanwhile: Job) -> Surroundings:
    told = partial(mounts.told_as, f"start container {record.name}")
    owner = await parts.owners.owner(record.owner, remapped=record.remapped)
    session = session_paths(parts.run_root, record)
    await in_thread(
        lambda: _fresh_directories(session, owner, log_path(parts.data_root, record).parent)
    )
    user_pin = await parts.user_namespace(owner)
    group = container_group(owner.uid, record.id)
    limits = limits_of(record.request.resources, parts.config.runtime.pids_max)

    async def prepare_rootfs() -> None:
        with told():
            await parts.store.snapshots.prepare(record.id, record.layers, owner)

    async def prepare_group() -> None:
        rules = None if record.request.privileged else spec.DEVICE_RULES
        await parts.tree.create(owner.uid, group, limits, rules)

    async def prepare_network() -> None:
        await parts.networks.attach(
            record.id,
            record.name,
            owner,
            record.request.network_mode,
            record.request.ports,
            user_pin,
        )

    await parts.tree.admit(owner.uid)
    await together(meanwhile, prepare_rootfs, prepare_group, prepare_network)
    rootfs = parts.store.snapshots.get(record.id).rootfs
    endpoint = parts.networks.endpoint(record.id)
    assert endpoint is not None
    root_fd = await mounts.open_in_mounts(parts.spawner, rootfs)
    try:
        user = await in_thread(lambda: _settle_in(root_fd, record, owner))
    finally:
        os.close(root_fd)
    shown = await _mounts(parts, record, owner, session)

    def write() -> None:
        every = (*shown, *_identity_files(record, owner, session, endpoint))
        config = _spec(parts, record, owner, rootfs, endpoint, user, user_pin, every, group)
        _write_private(session.directory / "config.json", orjson.dumps(config))

    await in_thread(write)
    return Surroundings(owner, session, group, rootfs, endpoint, user)


def _settle_in(root_fd: int, record: ContainerRecord, owner: Owner) -> ContainerUser:
    user = container_user(root_fd, record.user, owner)
    check_mapped(user, owner)
    make_working_directory(root_fd, record.working_dir, owner.id_map)
    return user


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
    await parts.tree.clear(container_group(record.owner, record.id))

    async def unmount() -> None:
        for number in range(len(record.mounts)):
            await mounts.unmount(parts.spawner, session.directory / "mounts" / str(number))
        await parts.store.snapshots.unmount(record.id)

    async def forget() -> None:
        with mounts.told_as(f"have {parts.runtime.name} forget container {record.name}"):
            await parts.runtime.forget(parts.spawner, record.id)

    await each_to_its_end(forget, partial(parts.networks.detach, record.id), unmount)


def container_user(root_fd: int, user: str, owner: Owner) -> ContainerUser:
    """Who ``user`` is by the image's accounts, with the owner's mapped groups for who runs as the owner.

    Raises:
        InvalidArgument: The image does not know the name.
    """
    resolved = resolve_user(
        user, account_file(root_fd, "etc/passwd"), account_file(root_fd, "etc/group")
    )
    if resolved.uid != 0 or not owner.supplementary:
        return resolved
    gids = tuple(dict.fromkeys((*resolved.additional_gids, *owner.supplementary)))
    return ContainerUser(resolved.uid, resolved.gid, gids, resolved.home)


def check_mapped(user: ContainerUser, owner: Owner) -> None:
    """The user exists in the owner's user namespace.

    Raises:
        InvalidArgument: It does not.
    """
    if not owner.remapped:
        return
    try:
        owner.id_map.uid_outside(user.uid)
        owner.id_map.gid_outside(user.gid)
    except LookupError as error:
        raise InvalidArgument(
            f"cannot run as user {user.uid}:{user.gid}: your containers have the ids 0 to 65535"
        ) from error


def account_file(root_fd: int, path: str) -> str:
    """The text of an image's account file; empty where there is none that can be read."""
    try:
        return beneath.read_file_beneath(root_fd, path, ACCOUNT_FILE_BYTES_MAX).decode(
            errors="replace"
        )
    except OSError:
        return ""


def make_working_directory(root_fd: int, path: str, id_map: IdMap) -> None:
    """The working directory exists in the image, made as its root's where it does not.

    Raises:
        InvalidArgument: Something else is in the way.
    """
    uid, gid = id_map.uid_outside(0), id_map.gid_outside(0)
    with mounts.told_as(f"use the working directory {path!r}"):
        beneath.make_directories_beneath(root_fd, path, 0o755, uid, gid)


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


async def _mounts(
    parts: Parts, record: ContainerRecord, owner: Owner, session: SessionPaths
) -> tuple[SpecMount, ...]:
    shown = []
    for number, mount in enumerate(record.mounts):
        place = session.directory / "mounts" / str(number)
        shown.append(await _mount(parts, record, owner, mount, place))
    return tuple(sorted(shown, key=lambda mount: mount.target.count("/")))


async def _mount(
    parts: Parts, record: ContainerRecord, owner: Owner, mount: MountRecord, place: Path
) -> SpecMount:
    mode = "ro" if mount.read_only else "rw"
    flags = ("nosuid", "nodev") if record.remapped else ()
    match mount.kind:
        case MountKind.TMPFS:
            # Docker's defaults, without what the caller contradicts: runtimes do not agree on which of two holds.
            given = [one for one in TMPFS_OPTIONS if one.removeprefix("no") not in mount.options]
            return SpecMount(mount.target, "tmpfs", "tmpfs", (*given, *mount.options))
        case MountKind.VOLUME:
            rootfs = parts.store.snapshots.get(record.id).rootfs
            if mount.copy_up:
                await parts.store.volumes.fill(owner, mount.source, rootfs, mount.target)
            source = await parts.store.volumes.path_in_mounts(owner, mount.source)
            # As the view is: see own_file.
            return SpecMount(mount.target, str(source), "bind", ("rbind", mode, "nodev"))
        case MountKind.BIND:
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
                )
            return SpecMount(mount.target, str(place), "bind", ("rbind", mode, *flags))


def _identity_files(
    record: ContainerRecord, owner: Owner, session: SessionPaths, endpoint: Endpoint
) -> tuple[SpecMount, ...]:
    """``/etc/hosts``, ``hostname`` and ``resolv.conf``, each the container's own.

    An administrator's container may change them, as in Docker. A user's may not: they lie in the run directory, where
    nothing bounds what is written, and the host needs the room.
    """
    taken = {mount.target for mount in record.mounts}
    texts = {
        "/etc/hostname": f"{record.hostname}\n",
        "/etc/hosts": files.hosts(record.hostname, endpoint.address, record.request.extra_hosts),
        "/etc/resolv.conf": files.resolv_conf(
            record.request.dns or endpoint.resolvers,
            record.request.dns_search or endpoint.search,
            record.request.dns_options or endpoint.resolver_options,
        ),
    }
    shown = []
    for target, text in texts.items():
        if target in taken:
            continue
        path = session.directory / Path(target).name
        path.write_text(text)
        path.chmod(0o644)
        os.chown(path, owner.id_map.uid_outside(0), owner.id_map.gid_outside(0))
        shown.append(spec.own_file(target, str(path), read_only=owner.remapped))
    return tuple(shown)


def capabilities_of(record: ContainerRecord, *, devices_confined: bool) -> tuple[str, ...]:
    """The bounding set of a container: Docker's, changed as asked for; pure.

    Args:
        record: The container.
        devices_confined: Whether something keeps a made device node from being used.
    """
    request = record.request
    if request.privileged or "ALL" in request.cap_add:
        chosen = set(spec.ALL_CAPABILITIES)
    else:
        chosen = set() if "ALL" in request.cap_drop else set(spec.DEFAULT_CAPABILITIES)
        chosen |= set(request.cap_add)
        if not devices_confined:
            chosen.discard("CAP_MKNOD")
    return tuple(sorted(chosen - set(request.cap_drop)))


def process_inputs(
    record: ContainerRecord, user: ContainerUser, *, devices_confined: bool
) -> ProcessInputs:
    """The container's first process; pure."""
    request = record.request
    return ProcessInputs(
        args=record.args,
        env=spec.default_environment(record.env, record.hostname, user.home, terminal=request.tty),
        cwd=record.working_dir,
        user=user,
        terminal=request.tty,
        capabilities=capabilities_of(record, devices_confined=devices_confined),
        no_new_privileges="no-new-privileges" in request.security_opt
        or "no-new-privileges:true" in request.security_opt,
        rlimits=tuple(
            (f"RLIMIT_{name.upper()}", soft, hard) for name, soft, hard in request.ulimits
        ),
        oom_score_adj=request.oom_score_adj or None,
    )


def _spec(  # noqa: PLR0913, PLR0917  # everything that was made, put into one value
    parts: Parts,
    record: ContainerRecord,
    owner: Owner,
    rootfs: Path,
    endpoint: Endpoint,
    user: ContainerUser,
    user_pin: Path | None,
    shown: tuple[SpecMount, ...],
    group: str,
) -> dict[str, object]:
    request = record.request
    confined = parts.confines_devices(owner)
    wished = process_inputs(record, user, devices_confined=confined)
    process = evolve(wished, capabilities=parts.within_bounds(wished.capabilities))
    unconfined = request.privileged or "seccomp=unconfined" in request.security_opt
    seccomp = (
        None if unconfined else runtime_seccomp(parts.profile, frozenset(process.capabilities))
    )
    inputs = SpecInputs(
        process=process,
        rootfs=rootfs,
        id_map=owner.id_map,
        hostname=record.hostname,
        read_only_rootfs=request.read_only_rootfs,
        user_namespace=user_pin,
        network_namespace=endpoint.netns_pin,
        host_pid=request.pid_mode == "host",
        host_ipc=request.ipc_mode == "host",
        host_uts=request.uts_mode == "host",
        cgroups_path=parts.tree.cgroups.runtime_path(group) if parts.runtime.places else None,
        cgroup_mount=parts.tree.cgroups.kind == "v2",
        mounts=shown,
        shm_bytes=request.shm_bytes or parts.config.runtime.shm_bytes,
        seccomp=seccomp,
        sysctls=request.sysctls,
        privileged=request.privileged,
    )
    return spec.build_spec(inputs)
