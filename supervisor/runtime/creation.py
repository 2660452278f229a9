"""From what was asked and what the image says to what a container is; pure.

Docker's rules: the caller's command replaces the image's; the caller's entry point replaces the image's entry point *and*
drops its command; environment, labels, ports and volumes are put over the image's.
"""

from __future__ import annotations

import posixpath
import re
import secrets
from collections.abc import Collection, Sequence

from attrs import frozen

from protocol.errors import Fault
from supervisor.access.requests import ContainerRequest, MountKind, MountRequest, Resources
from supervisor.clock import now_ns
from supervisor.errors import InvalidArgument, faulty
from supervisor.oci.image import Execution
from supervisor.runtime.names import random_name
from supervisor.runtime.records import ContainerRecord, MountRecord
from supervisor.runtime.signals import parse_signal
from supervisor.runtime.spec import merge_environment

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
NAME_CHARACTERS_MAX = 128
HOSTNAME_CHARACTERS_MAX = 63
DEFAULT_STOP_SIGNAL = "SIGTERM"


@frozen
class ImageFacts:
    """What creation needs of an image."""

    id: str
    layers: tuple[str, ...]
    execution: Execution


def container_record(
    request: ContainerRequest,
    image: ImageFacts,
    owner: int,
    taken: Collection[str],
    *,
    remapped: bool,
    cpus: int,
) -> ContainerRecord:
    """The record of a new container.

    Args:
        request: What was asked; policy has agreed.
        image: What it is made from.
        owner: Whose it will be.
        taken: Names of the owner's other containers, so that one made up here is free.
        remapped: It runs in the owner's user namespace.
        cpus: How many this host has.

    Raises:
        InvalidArgument: It makes no sense; every fault is told.
    """
    identity = secrets.token_hex(32)
    execution = image.execution
    entrypoint, command = _command(request, execution)
    faults = [*_faults(request, entrypoint, command), *_resource_faults(request.resources, cpus)]
    if faults:
        raise faulty(f"cannot create a container from {request.image}", faults)
    working_dir = posixpath.normpath(request.working_dir or execution.working_dir or "/")
    stop_signal = request.stop_signal or execution.stop_signal or DEFAULT_STOP_SIGNAL
    parse_signal(stop_signal)
    return ContainerRecord(
        id=identity,
        owner=owner,
        name=request.name or random_name(taken),
        created_ns=now_ns(),
        request=request,
        image_id=image.id,
        image_reference=request.image,
        layers=image.layers,
        args=(*(entrypoint or ()), *(command or ())),
        entrypoint=entrypoint,
        command=command,
        env=merge_environment(execution.env, request.env),
        working_dir=working_dir,
        user=request.user or execution.user,
        labels={**execution.labels, **request.labels},
        hostname=request.hostname or identity[:12],
        stop_signal=stop_signal,
        exposed_ports=tuple(dict.fromkeys((*execution.exposed_ports, *request.exposed_ports))),
        mounts=_mounts(request, execution),
        remapped=remapped,
    )


def checked_name(name: str) -> str:
    """``name``, if a container may be called so.

    Raises:
        InvalidArgument: It may not; Docker's wording.
    """
    name = name.removeprefix("/")
    if not NAME.fullmatch(name) or len(name) > NAME_CHARACTERS_MAX:
        raise InvalidArgument(
            f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    return name


def _command(
    request: ContainerRequest, execution: Execution
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    if request.entrypoint is not None:
        cleared = request.entrypoint in {(), ("",)}
        return (None if cleared else request.entrypoint), request.command
    command = execution.cmd if request.command is None else request.command
    return execution.entrypoint, command


def _faults(
    request: ContainerRequest,
    entrypoint: tuple[str, ...] | None,
    command: tuple[str, ...] | None,
) -> list[Fault]:
    faults = []
    if request.name:
        try:
            checked_name(request.name)
        except InvalidArgument as error:
            faults.append(Fault(error.message))
    if not (entrypoint or command):
        faults.append(Fault("no command specified", hint="name one, or use an image with a CMD"))
    if request.working_dir and not request.working_dir.startswith("/"):
        faults.append(
            Fault(f"the working directory {request.working_dir!r} is not an absolute path")
        )
    if len(request.hostname) > HOSTNAME_CHARACTERS_MAX:
        faults.append(Fault(f"the host name is longer than {HOSTNAME_CHARACTERS_MAX} characters"))
    faults += [
        Fault(f"the environment entry {entry!r} has no name")
        for entry in request.env
        if entry.startswith("=")
    ]
    faults += _mount_faults(request.mounts)
    return faults


def _resource_faults(resources: Resources, cpus: int) -> list[Fault]:
    """What this host has not got; Docker's wording."""
    faults = []
    if resources.cpu_nanos > cpus * 1_000_000_000:
        faults.append(
            Fault(
                f"Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
            )
        )
    highest = max(map(int, re.findall("[0-9]+", resources.cpuset_cpus)), default=0)
    if highest >= cpus:
        faults.append(
            Fault(
                f"Requested CPUs are not available - requested {resources.cpuset_cpus},"
                f" available: 0-{cpus - 1}"
            )
        )
    return faults


def _mount_faults(mounts: Sequence[MountRequest]) -> list[Fault]:
    faults, seen = [], set()
    for mount in mounts:
        target = posixpath.normpath(mount.target)
        if not mount.target.startswith("/"):
            faults.append(
                Fault(f"invalid mount path: {mount.target!r}: mount path must be absolute")
            )
        elif _kernels_own(target):
            faults.append(Fault(f"invalid mount path: {target}: it is the kernel's own place"))
        elif target == "/":
            faults.append(Fault("invalid specification: destination can't be '/'"))
        elif target in seen:
            faults.append(Fault(f"Duplicate mount point: {target}"))
        seen.add(target)
        if mount.kind is MountKind.BIND and not mount.source.startswith("/"):
            faults.append(
                Fault(f"invalid mount source {mount.source!r}: it must be an absolute path")
            )
    return faults


def _kernels_own(target: str) -> bool:
    """Where the runtime mounts what the container's safety rests on; places in /dev and /sys/fs are free, as in Docker."""
    if target.startswith("/sys/fs/"):
        return False
    return target in {"/proc", "/sys", "/dev"} or target.startswith(("/proc/", "/sys/"))


def _mounts(request: ContainerRequest, execution: Execution) -> tuple[MountRecord, ...]:
    records = {record.target: record for record in map(_mount_record, request.mounts)}
    for path in (*execution.volumes, *request.anonymous_volumes):
        target = posixpath.normpath(posixpath.join("/", path))  # an image may say ../../x
        if target != "/" and not _kernels_own(target):
            records.setdefault(target, MountRecord(MountKind.VOLUME, target, anonymous=True))
    return tuple(records.values())


def _mount_record(mount: MountRequest) -> MountRecord:
    options = list(mount.options)
    if mount.size_bytes:
        options.append(f"size={mount.size_bytes}")
    if mount.kind is MountKind.TMPFS:
        options.append(f"mode={mount.mode:o}" if mount.mode is not None else "mode=1777")
        options.append("ro" if mount.read_only else "rw")
    return MountRecord(
        kind=mount.kind,
        target=posixpath.normpath(mount.target),
        source=mount.source,
        read_only=mount.read_only,
        anonymous=mount.kind is MountKind.VOLUME and not mount.source,
        create_source=mount.create_source,
        copy_up=mount.copy_up,
        options=tuple(options),
        propagation=mount.propagation,
    )
