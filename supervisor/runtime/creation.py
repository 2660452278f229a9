"""From what was asked and what the image says to what a container is; pure.

Docker's rules: the caller's command replaces the image's; the caller's entry point replaces the image's entry point *and*
drops its command; environment, labels, ports and volumes are put over the image's.
"""

from __future__ import annotations

import posixpath
import secrets
from collections.abc import Collection, Sequence

import attrs
from attrs import frozen

from protocol.errors import Fault
from supervisor.access.requests import ContainerRequest, MountForm, MountKind, MountRequest
from supervisor.clock import now_ns
from supervisor.errors import NotFound, faulty
from supervisor.oci.image import Execution, ImageConfig
from supervisor.runtime.health import merged
from supervisor.runtime.names import random_name
from supervisor.runtime.records import ContainerRecord, MountRecord
from supervisor.runtime.sanity import Host, kernels_own, request_faults
from supervisor.runtime.signals import parse_signal
from supervisor.runtime.spec import laid_over

DEFAULT_STOP_SIGNAL = "SIGTERM"


@frozen
class ImageFacts:
    """What creation needs of an image."""

    id: str
    layers: tuple[str, ...]
    execution: Execution


def container_record(  # noqa: PLR0913  # every one of them decides
    request: ContainerRequest,
    image: ImageFacts,
    owner: int,
    taken: Collection[str],
    *,
    remapped: bool,
    host: Host,
    inherited: Sequence[MountRecord] = (),
) -> ContainerRecord:
    """The record of a new container.

    Args:
        request: What was asked; policy has agreed.
        image: What it is made from.
        owner: Whose it will be.
        taken: Names of the owner's other containers, so that one made up here is free.
        remapped: It runs in the owner's user namespace.
        host: Where it will run.
        inherited: Mounts of other containers, from ``--volumes-from``.

    Raises:
        InvalidArgument: It makes no sense; every fault is told.
    """
    identity = _new_id()
    execution = image.execution
    entrypoint, command = _command(request, execution)
    faults = list(request_faults(request, host, remapped=remapped))
    if not (entrypoint or command):
        faults.append(Fault("no command specified", hint="name one, or use an image with a CMD"))
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
        env=laid_over(execution.env, request.env),
        working_dir=working_dir,
        user=request.user or execution.user,
        labels={**execution.labels, **request.labels},
        hostname=request.hostname or identity[:12],
        stop_signal=stop_signal,
        exposed_ports=tuple(dict.fromkeys((*execution.exposed_ports, *request.exposed_ports))),
        mounts=_mounts(request, execution, inherited),
        remapped=remapped,
        health=merged(request.health, execution.health),
        shell=execution.shell or (),
    )


def check_platform(request: ContainerRequest, image: ImageConfig) -> None:
    """The image is of the platform that was asked for, if one was.

    Raises:
        NotFound: It is not; Docker's wording.
    """
    if not request.platform:
        return
    system, _, architecture = request.platform.partition("/")
    actual = f"{image.os}/{image.architecture}"
    if system != image.os or architecture.partition("/")[0] not in {"", image.architecture}:
        raise NotFound(
            f"image with reference {request.image} was found but does not provide the specified platform"
            f" ({request.platform}): it is {actual}"
        )


def _new_id() -> str:
    """Its beginning is the host name: with digits alone, resolvers would take that for an address."""
    while (identity := secrets.token_hex(32))[:12].isdigit():
        continue
    return identity


def _command(
    request: ContainerRequest, execution: Execution
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    if request.entrypoint is not None:
        cleared = request.entrypoint in {(), ("",)}
        return (None if cleared else request.entrypoint), request.command
    command = execution.cmd if request.command is None else request.command
    return execution.entrypoint, command


def inherit(mounts: Sequence[MountRecord], specification: str) -> list[MountRecord]:
    """Another container's mounts as ``--volumes-from`` takes them over: ``name[:mode]``, filled by nobody."""
    _, _, mode = specification.partition(":")
    read_only = "ro" in mode.split(",")
    return [
        attrs.evolve(mount, read_only=mount.read_only or read_only, copy_up=False)
        for mount in mounts
    ]


def _mounts(
    request: ContainerRequest, execution: Execution, inherited: Sequence[MountRecord]
) -> tuple[MountRecord, ...]:
    """By target: what was asked for over what is inherited (the last wins), and then what the image declares."""
    own = map(_mount_record, request.mounts)
    records = {record.target: record for record in (*inherited, *own)}
    for path in (*execution.volumes, *request.anonymous_volumes):
        target = posixpath.normpath(posixpath.join("/", path))  # an image may say ../../x
        if target != "/" and not kernels_own(target):
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
        subpath=mount.subpath,
        recursive=mount.recursive,
        read_only_recursive=mount.read_only_recursive,
        labels=mount.labels,
        mode=_mode(mount),
    )


def _mode(mount: MountRequest) -> str:
    """As Docker shows it: what was said with ``-v``, and ``z`` for a volume of which nothing was said."""
    _, _, mode = mount.spelt.removeprefix(mount.source).removeprefix(":").partition(":")
    given = mode if mount.form is MountForm.BIND else ""
    return given or ("z" if mount.kind is MountKind.VOLUME else "")
