"""Verbs on M, the daemon's own mount namespace; each is one errand of the spawner, and idempotent.

Words: a *pin* is a file a namespace is bound over; a *view* is a bind of a directory, idmapped or not; a *grant* is a
host path mounted from an fd that was opened with its caller's credentials.

Rules: nothing mounted here is seen by the host. A verb that is cancelled has either happened or not, when it returns;
undo it with :func:`unmount`, which takes "not mounted" for success. Paths are the daemon's own, except a grant's.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import attrs
import trio

from supervisor.errors import (
    AlreadyExists,
    BakehouseError,
    Conflict,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
)
from supervisor.linux.idmap import IdMap, map_text
from supervisor.linux.spawner import Credentials, Spawner
from supervisor.linux.spawner_wire import JSON

KINDS: dict[int, type[BakehouseError]] = {
    errno.EPERM: PermissionDenied,
    errno.EACCES: PermissionDenied,
    errno.EROFS: PermissionDenied,
    errno.ENOENT: NotFound,
    errno.EEXIST: AlreadyExists,
    errno.EBUSY: Conflict,
    errno.ETXTBSY: Conflict,
    errno.EINVAL: InvalidArgument,
    errno.ELOOP: InvalidArgument,
    errno.ENOTDIR: InvalidArgument,
    errno.EISDIR: InvalidArgument,
    errno.ENAMETOOLONG: InvalidArgument,
    errno.E2BIG: InvalidArgument,
    errno.ENOSPC: ResourceExhausted,
    errno.EDQUOT: ResourceExhausted,
    errno.EMFILE: ResourceExhausted,
    errno.ENFILE: ResourceExhausted,
    errno.ENOMEM: ResourceExhausted,
    errno.EAGAIN: ResourceExhausted,
}
"""What a kernel's errno means to the person who asked; anything else is :class:`Internal`."""


@attrs.frozen
class Below:
    """What becomes of that which is mounted below a granted path; users get none of it.

    Attributes:
        shown: It is there too.
        read_only: It is read-only where the path itself is.
        follows: What the host mounts there later appears.
    """

    shown: bool = False
    read_only: bool = True
    follows: bool = False


@attrs.frozen
class GrantedPath:
    """What a grant turned out to be: ``kind`` is ``directory``, ``file``, or for administrators ``special``."""

    kind: str
    writable: bool


BUSY_PAUSE_SECONDS, BUSY_PAUSE_SECONDS_MAX = 0.005, 0.5


@contextmanager
def told_as(what: str) -> Iterator[None]:
    """Turn the kernel's refusal into ours: ``cannot <what>: <why>``."""
    try:
        yield
    except OSError as failure:
        message = f"cannot {what}: {failure.strerror}"
        raise KINDS.get(failure.errno or 0, Internal)(message) from failure


async def user_namespace(spawner: Spawner, pin: Path, id_map: IdMap) -> None:
    """Afterwards a user namespace with exactly this map is pinned at ``pin``.

    Raises:
        AlreadyExists: One with another map is pinned there.
    """
    maps = _maps(id_map)
    with told_as(f"make the user namespace {pin}"):
        await spawner.call("user_namespace", {"pin": str(pin), **maps})


async def network_namespace(spawner: Spawner, pin: Path, user_pin: Path | None) -> None:
    """Afterwards a network namespace is pinned at ``pin``, its ``lo`` up when it was made now.

    It belongs to the user namespace pinned at ``user_pin``, or with None to the host's. One that is pinned already is
    kept as it is.
    """
    arguments: dict[str, JSON] = {"pin": str(pin), "user_pin": str(user_pin or "")}
    with told_as(f"make the network namespace {pin}"):
        await spawner.call("network_namespace", arguments)


async def unpin(spawner: Spawner, pin: Path) -> None:
    """Afterwards no namespace is pinned at ``pin``, and the pin is gone; not being there is success.

    Raises:
        Conflict: It stays in use; see :func:`unmount`.
    """
    with told_as(f"let go of the namespace {pin}"):
        await _once_free(spawner, "unpin", {"pin": str(pin)})


async def open_namespace(spawner: Spawner, pin: Path) -> int:
    """An fd of the namespace pinned at ``pin``; the caller closes it.

    Raises:
        NotFound: None is pinned there.
    """
    with told_as(f"open the namespace {pin}"):
        return (await spawner.call("open_namespace", {"pin": str(pin)})).fds[0]


async def netlink_socket(spawner: Spawner, netns_pin: Path) -> socket.socket:
    """A non-blocking route netlink socket that lives in the network namespace pinned there."""
    with told_as(f"open a netlink socket in {netns_pin}"):
        answer = await spawner.call("netlink_socket", {"pin": str(netns_pin)})
    made = socket.socket(fileno=answer.fds[0])
    made.setblocking(False)
    return made


async def name_sockets(
    spawner: Spawner, netns_pin: Path, address: IPv4Address, port: int
) -> tuple[socket.socket, socket.socket, socket.socket]:
    """Datagrams and a listener at a loopback address in the network namespace pinned there, and a netfilter socket.

    They are at ``port``, or at another where somebody in there has it.

    Raises:
        NotFound: None is pinned there.
    """
    arguments: dict[str, JSON] = {
        "pin": str(netns_pin),
        "address": str(address),
        "port": str(port),
    }
    with told_as(f"open a name server's sockets in {netns_pin}"):
        answer = await spawner.call("name_sockets", arguments)
    datagrams, listener, netfilter = (socket.socket(fileno=fd) for fd in answer.fds)
    return datagrams, listener, netfilter


async def idmapped_view(
    spawner: Spawner, source: Path, target: Path, id_map: IdMap, read_only: bool
) -> None:
    """Afterwards something is mounted at ``target``: if nothing was, ``source``, with ids on disk (inside) shown as outside.

    The mount is ``nodev`` and private, and not recursive. A target that is mounted already is left alone, so its name
    must tell its map. An identity map gives a plain bind.
    """
    arguments: dict[str, JSON] = {
        "source": str(source),
        "target": str(target),
        "read_only": read_only,
        **_maps(id_map),
    }
    with told_as(f"show {source} at {target}"):
        await spawner.call("idmapped_view", arguments)


async def tmpfs(spawner: Spawner, target: Path, options: Sequence[str], *, programs: bool) -> None:
    """Afterwards something is mounted at ``target``: if nothing was, an empty file system in memory.

    Args:
        spawner: Does it.
        target: In M; its parent is there.
        options: ``name=value`` as tmpfs(5) has them.
        programs: What is in it may be executed.
    """
    arguments: dict[str, JSON] = {
        "target": str(target),
        "options": list(options),
        "no_programs": not programs,
    }
    with told_as(f"mount a file system in memory at {target}"):
        await spawner.call("tmpfs", arguments)


async def overlay(  # noqa: PLR0913, PLR0917  # one mount has that many parts
    spawner: Spawner,
    layers_view: Path,
    lowers: Sequence[str],
    upper: Path | None,
    work: Path | None,
    target: Path,
    volatile: bool = False,
    read_only: bool = False,
    devices: bool = False,
) -> None:
    """Afterwards an overlay is mounted at ``target``; one that was is left alone.

    Args:
        spawner: Does it.
        layers_view: Where the lowers are.
        lowers: Their names below ``layers_view``, topmost first.
        upper: Takes what is written; None (with ``work`` None) for a mount that cannot be written, of two lowers or more.
        work: An empty directory on the same mount as ``upper``. After a volatile mount that was not taken down, the
            kernel refuses it (InvalidArgument) until it is made anew.
        target: The mount point; made when it is not there.
        read_only: Nobody may write, also where there is an upper.
        volatile: Nothing is written back at unmount; a crash of the host may lose all of it.
        devices: Device nodes in the layers work. Only for containers that are not remapped.
    """
    arguments: dict[str, JSON] = {
        "layers_view": str(layers_view),
        "upper": str(upper) if upper else "",
        "work": str(work) if work else "",
        "target": str(target),
        "volatile": volatile,
        "read_only": read_only,
        "devices": devices,
        "lowers": list(lowers),
    }
    with told_as(f"mount the root file system {target}"):
        await spawner.call("overlay", arguments)


async def unmount(spawner: Spawner, target: Path, *, detach: bool = False) -> None:
    """Afterwards nothing is mounted at ``target``; nothing there, or no such path, is success.

    Who looks into it for a moment (an exec being prepared, an errand that was called off) is waited for. With ``detach``
    nobody is: what is mounted below goes along, and the file system stays in use as long as somebody uses it.

    Raises:
        Conflict: It stays in use (an open fd, a working directory, a mount below it).
    """
    with told_as(f"unmount {target}"):
        await _once_free(spawner, "unmount", {"target": str(target), "detach": detach})


async def _once_free(spawner: Spawner, errand: str, arguments: dict[str, JSON]) -> None:
    pause = BUSY_PAUSE_SECONDS
    while True:
        try:
            await spawner.call(errand, arguments)
        except OSError as failure:
            if failure.errno != errno.EBUSY or pause > BUSY_PAUSE_SECONDS_MAX:
                raise
        else:
            return
        await trio.sleep(pause)
        pause *= 2


async def mounted(spawner: Spawner, below: Path) -> list[Path]:
    """The mount points in M at or below a path, oldest first; stacked ones as often as they are stacked."""
    answer = await spawner.call("mounted", {"below": str(below)})
    assert isinstance(answer.value, list)
    return [Path(str(place)) for place in answer.value]


async def open_in_mounts(spawner: Spawner, path: Path) -> int:
    """A readable fd of a directory as M sees it, for ``beneath``; the caller closes it (until then it is busy)."""
    with told_as(f"open {path}"):
        return (await spawner.call("open_directory", {"path": str(path)})).fds[0]


async def grant_path(  # noqa: PLR0913  # every one of them decides
    spawner: Spawner,
    path: str,
    credentials: Credentials,
    writable: bool,
    create: bool,
    target: Path,
    *,
    restricted: bool = True,
    below: Below = Below(),
    forbidden: Sequence[Path] = (),
) -> GrantedPath:
    """Afterwards the host's ``path``, as the caller could open it now, is mounted at ``target``, whatever was before.

    Args:
        spawner: Does it.
        path: In the host's mount namespace; absolute, hostile.
        credentials: The caller's; the kernel checks them.
        writable: The caller must be able to write there; otherwise the mount is read-only.
        create: Make missing directories, as the caller.
        target: The mount point, made as a directory or file to match.
        restricted: ``nosuid,nodev``; files and directories only, none of the kernel's. False for administrators.
        below: Of what is mounted below ``path``; for administrators only.
        forbidden: The daemon's own directories: neither they nor what is in them is granted.

    Raises:
        NotFound, PermissionDenied, InvalidArgument: As the caller would hear from the kernel.
    """
    arguments: dict[str, JSON] = {
        "path": path,
        "credentials": credentials.arguments(),
        "writable": writable,
        "create": create,
        "target": str(target),
        "restricted": restricted,
        "recursive": below.shown,
        "read_only_below": below.read_only,
        "slave": below.follows,
        "forbidden": [str(one) for one in forbidden],
    }
    with told_as(f"mount {path!r}"):
        answer = await spawner.call("grant", arguments)
    match answer.value:
        case {"kind": str(kind), "writable": bool(may_write)}:
            return GrantedPath(kind, may_write)
        case other:
            raise TypeError(other)


async def bind_below(
    spawner: Spawner, root: Path, path: str, target: Path, *, read_only: bool
) -> None:
    """Afterwards what is at ``path`` in the tree ``root`` (of M) is mounted at ``target``, whatever was before.

    Raises:
        InvalidArgument: It is not there, leads out of the tree, or is neither a file nor a directory.
    """
    arguments: dict[str, JSON] = {
        "root": str(root),
        "path": path,
        "target": str(target),
        "read_only": read_only,
    }
    try:
        await spawner.call("bind_below", arguments)
    except OSError as failure:
        if failure.errno not in {errno.ENOENT, errno.EXDEV}:
            with told_as(f"mount {path!r}"):
                raise
        why = "it is not there" if failure.errno == errno.ENOENT else "it leads out of it"
        raise InvalidArgument(f"cannot mount {path!r} of the volume: {why}") from failure


async def shared_memory(
    spawner: Spawner, target: Path, size_bytes: int, ids: tuple[int, int]
) -> None:
    """Afterwards a tmpfs for all (mode 1777) that belongs to ``ids`` (uid, gid) is mounted at ``target``."""
    arguments: dict[str, JSON] = {
        "target": str(target),
        "size_bytes": size_bytes,
        "uid": ids[0],
        "gid": ids[1],
    }
    await spawner.call("shared_memory", arguments)


async def open_as(
    spawner: Spawner, path: str, credentials: Credentials, flags: int, mode: int = 0o600
) -> int:
    """An fd of the host's ``path`` (absolute), opened with the caller's credentials; the caller of this closes it.

    Regular files and directories only; never blocks on one. ``flags`` as for open(2); ``mode`` for ``O_CREAT``.

    Raises:
        NotFound, PermissionDenied, InvalidArgument: As the caller would hear from the kernel.
    """
    arguments: dict[str, JSON] = {
        "path": path,
        "credentials": credentials.arguments(),
        "flags": flags,
        "mode": mode if flags & os.O_CREAT else 0,
    }
    with told_as(f"open {path!r}"):
        return (await spawner.call("open_as", arguments)).fds[0]


async def release_mounts(spawner: Spawner, roots: Sequence[Path] = ()) -> None:
    """Take M down at a clean stop, when nothing runs any more: afterwards the host holds no mount of ours.

    Everything below the run directory and ``roots`` is unmounted, then the pin. The spawner still serves, but what is
    mounted through it from now on is lost when it ends.
    """
    with told_as("take down the daemon's mounts"):
        await spawner.call("release", {"roots": [str(root) for root in roots]})


def _maps(id_map: IdMap) -> dict[str, JSON]:
    return {"uid_map": map_text(id_map.uids), "gid_map": map_text(id_map.gids)}
