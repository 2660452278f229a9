"""Who is at the other end of a unix socket: the kernel's word, read once per connection.

The credentials are those at the time of connect(2): a socket handed on to somebody else still speaks for the one who
connected. See unix(7); ``SO_PEERPIDFD`` is of kernel 6.5.
"""

from __future__ import annotations

import array
import errno
import os
import select
import socket
import struct
import sys
from pathlib import Path

import attrs
import trio

from supervisor.linux import syscall

SO_PEERGROUPS = 59
SO_PEERPIDFD = 77
GROUPS_MAX = 65_536
CGROUP_BYTES_MAX = 65_536
_UCRED = struct.Struct("3i")
_UNMAPPED = 2**32 - 1

Socket = socket.socket | trio.socket.SocketType


@attrs.frozen
class Peer:
    """A connected process.

    Attributes:
        pid: Its id when it connected; only with ``pidfd`` is it certain that it is still the same process.
        groups: Its supplementary groups when it connected; may hold ``gid``.
        pidfd: The caller's to close; None before kernel 6.5, or when it has ended.
        cgroup: ``/proc/<pid>/cgroup``; empty when it has ended, so that nobody else's is taken for its.
    """

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...]
    pidfd: int | None
    cgroup: str


def peer_of(connection: Socket) -> Peer:
    """Read the peer of a connected ``AF_UNIX`` stream.

    Raises:
        PermissionError: Its ids are not of this user namespace.
    """
    content = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(content)
    uid, gid = uid & _UNMAPPED, gid & _UNMAPPED
    if pid <= 0 or _UNMAPPED in {uid, gid}:
        raise PermissionError(errno.EPERM, "the peer is not of this host")
    pidfd = _pidfd(connection)
    try:
        return Peer(pid, uid, gid, _groups(connection), pidfd, _cgroup(pid, pidfd))
    except BaseException:
        if pidfd is not None:
            os.close(pidfd)
        raise


def _groups(connection: Socket) -> tuple[int, ...]:
    groups = array.array("I")
    groups.frombytes(
        syscall.getsockopt(
            connection.fileno(), socket.SOL_SOCKET, SO_PEERGROUPS, GROUPS_MAX * groups.itemsize
        )
    )
    return tuple(groups)


def _pidfd(connection: Socket) -> int | None:
    try:
        content = connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, 4)
    except OSError:
        return None  # an older kernel, or the process has ended: its number may be another's by now
    fd = int.from_bytes(content, sys.byteorder)
    os.set_inheritable(fd, False)
    return fd


def _cgroup(pid: int, pidfd: int | None) -> str:
    try:
        with Path("/proc", str(pid), "cgroup").open(encoding="utf-8", errors="replace") as file:
            text = file.read(CGROUP_BYTES_MAX)
    except OSError:
        return ""
    if pidfd is not None and _has_ended(pidfd):
        return ""  # the number may have become another's before it was read
    return text


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
