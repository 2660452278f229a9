"""What is wrong with a request for a container, whoever asks; pure.

Everything the kernel or a runtime would refuse only at the start is told here where it can be, in Docker's words, so that
it is the request's fault and not the daemon's.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence

import attrs

from protocol.errors import Fault
from supervisor.access.requests import ContainerRequest, MountKind, MountRequest, Resources
from supervisor.errors import InvalidArgument
from supervisor.linux.cgroup_model import Ability
from supervisor.runtime.seccomp import custom_profile, profile_text

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
NAME_CHARACTERS_MAX = 128
HOSTNAME_CHARACTERS_MAX = 64
NAME_BYTES_MAX, PATH_BYTES_MAX = 255, 4_095
REMAPPED_ID_MAX = 65_535
ID_MAX = 0xFFFF_FFFE

SYSCTL_NAME = re.compile(r"[a-z0-9_-]+(\.[A-Za-z0-9_@:-]+)+")
SYSCTL_VALUE_BYTES_MAX = 1_024
PARENT_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
PARENTS_MAX = 4
IPC_SYSCTLS = frozenset(
    {
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    }
)
"""Of the IPC namespace, as are all in ``fs.mqueue``; see ipc_namespaces(7)."""


@attrs.frozen
class Host:
    """What a request must fit.

    Attributes:
        cpus: Processors of this host.
        hard_limits: The daemon's own hard resource limits by ulimit name; unlimited ones are left out.
        raises_limits: It may go above them.
        runtime: Name of the OCI runtime that the daemon took.
        memory_nodes: Those that are online.
        abilities: What its cgroups can limit.
    """

    cpus: int
    hard_limits: Mapping[str, int] = attrs.field(factory=dict)
    raises_limits: bool = False
    runtime: str = "crun"
    memory_nodes: frozenset[int] = frozenset({0})
    abilities: frozenset[Ability] = frozenset(Ability)


def request_faults(request: ContainerRequest, host: Host, *, remapped: bool) -> Iterator[Fault]:
    """Every fault of a request, the image left aside.

    Args:
        request: What was asked; policy has agreed.
        host: Where it will run.
        remapped: It runs in the owner's user namespace.
    """
    yield from _identity_faults(request)
    yield from _option_faults(request, host)
    yield from _sysctl_faults(request)
    yield from _ulimit_faults(request, host)
    yield from resource_faults(request.resources, host)
    yield from _mount_faults(request.mounts)
    for mount in request.mounts:
        yield from _tmpfs_faults(mount, REMAPPED_ID_MAX if remapped else ID_MAX)


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


def _identity_faults(request: ContainerRequest) -> Iterator[Fault]:
    if request.name:
        try:
            checked_name(request.name)
        except InvalidArgument as error:
            yield Fault(error.message)
    if request.working_dir and not request.working_dir.startswith("/"):
        yield Fault(
            f"the working directory '{request.working_dir}' is invalid, it needs to be an absolute path"
        )
    if len(request.hostname) > HOSTNAME_CHARACTERS_MAX:
        yield Fault(
            f"hostname {request.hostname!r} is too long (maximum {HOSTNAME_CHARACTERS_MAX} bytes)"
        )
    if request.hostname and request.uts_mode == "host":
        yield Fault("conflicting options: hostname and the UTS mode")
    for entry in request.env:
        if entry.startswith("="):
            yield Fault(f"the environment entry {entry!r} has no name")


def _option_faults(request: ContainerRequest, host: Host) -> Iterator[Fault]:
    if request.runtime not in {"", host.runtime}:
        yield Fault(
            f"unknown or invalid runtime name: {request.runtime[:80]}", hint=f"use {host.runtime}"
        )
    parents = parent_names(request.cgroup_parent)
    if request.cgroup_parent.startswith("/"):
        yield Fault(
            f"invalid cgroup parent {request.cgroup_parent[:80]!r}: it is below its owner's own cgroup",
            hint="a name without a leading slash",
        )
    elif len(parents) > PARENTS_MAX or not all(map(PARENT_NAME.fullmatch, parents)):
        yield Fault(
            f"invalid cgroup parent {request.cgroup_parent[:80]!r}",
            hint=f"up to {PARENTS_MAX} names of a-z, 0-9, '_', '.' and '-', with slashes between",
        )
    try:
        if (text := profile_text(request.security_opt)) is not None:
            custom_profile(text)
    except InvalidArgument as error:
        yield Fault(error.message)


def _sysctl_faults(request: ContainerRequest) -> Iterator[Fault]:
    """Only what a namespace of the container's own has: anything else would be the host's."""
    for name, value in request.sysctls.items():
        if not SYSCTL_NAME.fullmatch(name) or "\0" in value or len(value) > SYSCTL_VALUE_BYTES_MAX:
            yield Fault(f"invalid sysctl {name[:80]!r}")
        elif name.startswith("net."):
            if request.network_mode == "host":
                yield Fault(f"sysctl {name!r} not allowed in host network namespace")
        elif name in IPC_SYSCTLS or name.startswith("fs.mqueue."):
            if request.ipc_mode == "host":
                yield Fault(f"sysctl {name!r} not allowed in host IPC namespace")
        else:
            yield Fault(f"sysctl {name!r} is not in a separate kernel namespace")


def _ulimit_faults(request: ContainerRequest, host: Host) -> Iterator[Fault]:
    if host.raises_limits:
        return
    for name, soft, hard in request.ulimits:
        bound = host.hard_limits.get(name)
        if bound is not None and any(not 0 <= limit <= bound for limit in (soft, hard)):
            yield Fault(
                f"ulimit {name}={soft}:{hard} is above the hard limit of this host, {bound}",
                hint=f"--ulimit {name}={bound}",
            )


def resource_faults(resources: Resources, host: Host) -> Iterator[Fault]:
    """What this host has not got; Docker's wording."""
    cpus = host.cpus
    if resources.cpu_nanos > cpus * 1_000_000_000:
        yield Fault(
            f"Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )
    if not _members(resources.cpuset_mems) <= host.memory_nodes:
        yield Fault(
            f"Requested memory nodes are not available - requested {resources.cpuset_mems},"
            f" available: {','.join(map(str, sorted(host.memory_nodes)))}"
        )
    highest = max(_members(resources.cpuset_cpus), default=0)
    if highest >= cpus:
        yield Fault(
            f"Requested CPUs are not available - requested {resources.cpuset_cpus},"
            f" available: 0-{cpus - 1}"
        )


def _members(ranges: str) -> set[int]:
    """The first and last of each of ``0-2,4``."""
    return set(map(int, re.findall("[0-9]+", ranges)))


def parent_names(cgroup_parent: str) -> list[str]:
    """The segments of a ``--cgroup-parent``."""
    return [name for name in cgroup_parent.split("/") if name]


def _mount_faults(mounts: Sequence[MountRequest]) -> Iterator[Fault]:
    seen = set()
    for mount in mounts:
        target = posixpath.normpath(mount.target)
        if not mount.target.startswith("/"):
            yield Fault(f"invalid mount path: {mount.target!r}: mount path must be absolute")
        elif kernels_own(target):
            yield Fault(f"invalid mount path: {target}: it is the kernel's own place")
        elif target == "/":
            yield Fault("invalid specification: destination can't be '/'")
        elif target in seen:
            yield Fault(f"Duplicate mount point: {target}")
        elif _too_long(target):
            yield Fault(f"invalid mount path: {target[:80]}…: file name too long")
        seen.add(target)
        if mount.kind is MountKind.BIND and not mount.source.startswith("/"):
            yield Fault(f"invalid mount source {mount.source!r}: it must be an absolute path")


def _too_long(path: str) -> bool:
    encoded = path.encode(errors="surrogatepass")
    return len(encoded) > PATH_BYTES_MAX or any(
        len(name) > NAME_BYTES_MAX for name in encoded.split(b"/")
    )


def _tmpfs_faults(mount: MountRequest, id_max: int) -> Iterator[Fault]:
    """Options whose values the kernel would refuse, or take for somebody else's ids."""
    for option in mount.options if mount.kind is MountKind.TMPFS else ():
        name, equals, value = option.partition("=")
        if name in {"uid", "gid"} and not (_number(value) and int(value) <= id_max):
            yield Fault(
                f"invalid tmpfs option {option[:80]!r} at {mount.target}",
                hint=f"a number up to {id_max}",
            )
        elif equals and name not in {"uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge"}:
            yield Fault(f"invalid tmpfs option {option[:80]!r} at {mount.target}")


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(ID_MAX))


def kernels_own(target: str) -> bool:
    """Where the runtime mounts what the container's safety rests on; places in /dev and /sys/fs are free, as in Docker."""
    if target.startswith("/sys/fs/"):
        return False
    return target in {"/proc", "/sys", "/dev"} or target.startswith(("/proc/", "/sys/"))
