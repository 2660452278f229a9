"""Host devices in administrators' containers: which nodes, and what may be done with them.

Docker's rules: a link is followed, a directory stands for all devices in it, and a privileged container has every device of
the host. Rules are as cgroup v1 writes them, ``c 1:3 rwm``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import attrs

from supervisor.access.requests import ContainerRequest, DeviceRequest
from supervisor.errors import InvalidArgument

DEVICES = Path("/dev")
LEFT_OUT = frozenset({"console", "fd", "mqueue", "ptmx", "pts", "shm", "stderr", "stdin", "stdout"})
"""What a container has of its own."""
DEPTH_MAX = 8


@attrs.frozen
class Device:
    """One device node.

    Attributes:
        path: In the container.
        kind: ``b`` or ``c``.
        mode, uid, gid: Of the node, as on the host.
        permissions: What may be done: ``r``, ``w``, ``m``.
    """

    path: str
    kind: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int
    permissions: str = "rwm"

    @property
    def rule(self) -> str:
        """What lets it be used."""
        return f"{self.kind} {self.major}:{self.minor} {self.permissions}"

    @property
    def node(self) -> dict[str, object]:
        """As the runtime specification has it."""
        return {
            "path": self.path,
            "type": self.kind,
            "major": self.major,
            "minor": self.minor,
            "fileMode": self.mode,
            "uid": self.uid,
            "gid": self.gid,
        }


def names_devices(request: ContainerRequest) -> bool:
    """Whether :func:`gather` finds any."""
    return request.privileged or bool(request.devices)


def gather(request: ContainerRequest) -> tuple[Device, ...]:
    """The devices a container has beside the usual ones.

    Raises:
        InvalidArgument: What was asked for is no device; Docker's wording.
    """
    found = (
        {device.path: device for device in _below(DEVICES, "/dev", "rwm", 0)}
        if request.privileged
        else {}
    )
    for asked in request.devices:
        found |= {device.path: device for device in _asked(asked)}
    return tuple(found.values())


def _asked(asked: DeviceRequest) -> Iterator[Device]:
    told = f'error gathering device information while adding custom device "{asked.host_path}"'
    host = Path(os.path.realpath(asked.host_path))
    try:
        status = host.stat()
    except OSError as error:
        raise InvalidArgument(f"{told}: {str(error.strerror).lower()}") from error
    if stat.S_ISDIR(status.st_mode):
        devices = list(_below(host, asked.container_path, asked.permissions, 0))
    else:
        devices = [*_device(status, asked.container_path, asked.permissions)]
    if not devices:
        raise InvalidArgument(f"{told}: not a device node")
    yield from devices


def _below(directory: Path, shown: str, permissions: str, depth: int) -> Iterator[Device]:
    """All devices in a directory and below; what vanishes meanwhile is left out."""
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name in LEFT_OUT or entry.name.startswith("."):
            continue
        path = f"{shown}/{entry.name}"
        if entry.is_dir(follow_symlinks=False) and depth < DEPTH_MAX:
            yield from _below(Path(entry.path), path, permissions, depth + 1)
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        yield from _device(status, path, permissions)


def _device(status: os.stat_result, path: str, permissions: str) -> Iterator[Device]:
    kinds = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}
    kind = kinds.get(stat.S_IFMT(status.st_mode))
    if kind is not None:
        yield Device(
            str(PurePosixPath(path)),
            kind,
            os.major(status.st_rdev),
            os.minor(status.st_rdev),
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            permissions,
        )
