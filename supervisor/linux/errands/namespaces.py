"""Errands that make, pin and open user and network namespaces. Standard library only.

A pin is an empty file with the namespace's nsfs file bound over it, in M only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from supervisor.linux import mount_namespace, spawner_command, syscall
from supervisor.linux.errands import Arguments, Done, Surroundings, errand, text

SIOCSIFFLAGS = 0x8914
IFF_UP_RUNNING = 0x41
IFREQ_BYTES = 40
NETLINK_NETFILTER = 12
LISTEN_BACKLOG = 16
USER_NAMESPACES_KEPT_MAX = 512


def user_namespace_fd(uid_map: str, gid_map: str) -> int:
    """A new user namespace with these maps (as in ``/proc/<pid>/uid_map``); the fd is the caller's."""
    made_read, made_write = os.pipe()
    hold_read, hold_write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(hold_write)
            syscall.unshare(syscall.CLONE_NEWUSER)
            os.write(made_write, b"!")
            os.read(hold_read, 1)
        finally:
            os._exit(0)
    os.close(made_write)
    os.close(hold_read)
    try:
        if not os.read(made_read, 1):
            raise OSError(errno.ENOSPC, "the kernel gives no user namespace")
        proc = Path("/proc", str(child))
        (proc / "uid_map").write_text(uid_map)
        (proc / "gid_map").write_text(gid_map)
        return os.open(proc / "ns" / "user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(hold_write)
        os.close(made_read)
        os.waitpid(child, 0)


def kept_user_namespace(uid_map: str, gid_map: str, surroundings: Surroundings) -> int:
    """The same, made once per pair of maps and kept by the spawner, for idmapped mounts."""
    kept = surroundings.user_namespaces
    key = f"{uid_map}/{gid_map}"
    if key not in kept:
        if len(kept) >= USER_NAMESPACES_KEPT_MAX:
            os.close(kept.pop(next(iter(kept))))
        kept[key] = user_namespace_fd(uid_map, gid_map)
    return kept[key]


@errand("user_namespace", forked=True)
def _user_namespace(arguments: Arguments, _: Sequence[int], __: Surroundings) -> Done:
    pin = text(arguments, "pin")
    wanted = (text(arguments, "uid_map"), text(arguments, "gid_map"))
    with _alone_at(pin):
        existing = pinned(pin, syscall.CLONE_NEWUSER)
        if existing is None:
            _pin(user_namespace_fd(*wanted), pin)
            return Done()
        maps = maps_of(existing)
        os.close(existing)  # before the answer: until then the pin is busy
    if maps != wanted:
        raise OSError(errno.EEXIST, "a user namespace with another map is pinned there")
    return Done()


@errand("network_namespace")
def _network_namespace(arguments: Arguments, _: Sequence[int], __: Surroundings) -> Done:
    """Not forked: a namespace takes the kernel a moment, and a fork takes us as long again."""
    pin, user_pin = text(arguments, "pin"), text(arguments, "user_pin")
    existing = pinned(pin, syscall.CLONE_NEWNET)
    if existing is not None:
        os.close(existing)  # before the answer: until then the pin is busy
        return Done()
    if not user_pin:
        with _coming_back():
            made = _new_network()
        _pin(made, pin)
        return Done()
    user = pinned(user_pin, syscall.CLONE_NEWUSER)
    if user is None:
        raise OSError(errno.ENOENT, "no user namespace is pinned there", user_pin)

    def enter_and_make() -> int:
        syscall.setns(user, syscall.CLONE_NEWUSER)
        return _new_network()

    try:
        _pin(from_child(enter_and_make), pin)
    finally:
        os.close(user)
    return Done()


def _new_network() -> int:
    """Be in a new network namespace, its ``lo`` up; an fd of it."""
    syscall.unshare(syscall.CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH", b"lo", IFF_UP_RUNNING).ljust(IFREQ_BYTES, b"\0")
        fcntl.ioctl(control, SIOCSIFFLAGS, request)
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def _coming_back() -> Iterator[None]:
    """Whatever network namespace is entered meanwhile, afterwards we are in our own again."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            yield
        finally:
            syscall.setns(own, syscall.CLONE_NEWNET)
    finally:
        os.close(own)


@errand("unpin")
def _unpin(arguments: Arguments, _: Sequence[int], __: Surroundings) -> Done:
    """Not forked: nothing is written back, and the kernel takes a namespace down by itself."""
    pin = text(arguments, "pin")
    mount_namespace.unmount(pin)
    Path(pin).unlink(missing_ok=True)
    return Done()


@errand("open_namespace")
def _open_namespace(arguments: Arguments, _: Sequence[int], __: Surroundings) -> Done:
    pin = text(arguments, "pin")
    fd = pinned(pin)
    if fd is None:
        raise OSError(errno.ENOENT, "no namespace is pinned there")
    return Done(fds=(fd,))


@errand("netlink_socket")
def _netlink_socket(arguments: Arguments, _: Sequence[int], __: Surroundings) -> Done:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with _inside(text(arguments, "pin")):
        made = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
    return Done(fds=(made.detach(),))


@errand("name_sockets")
def _name_sockets(arguments: Arguments, _: Sequence[int], __: Surroundings) -> Done:
    """Datagrams, a listener, and a netfilter socket to lead to them, in a namespace whose ``lo`` is up."""
    address, wished = text(arguments, "address"), int(text(arguments, "port"))
    with ExitStack() as unless_whole, _inside(text(arguments, "pin")):
        made = [
            unless_whole.enter_context(_bound(kind, address, wished))
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
        ]
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        made.append(socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER))
        unless_whole.pop_all()
    return Done(fds=tuple(sock.detach() for sock in made))


@contextmanager
def _inside(pin: str) -> Iterator[None]:
    """The spawner is in that network namespace, for a moment: a fork would cost more than all the rest."""
    fd = pinned(pin, syscall.CLONE_NEWNET)
    if fd is None:
        raise OSError(errno.ENOENT, "no network namespace is pinned there")
    try:
        with _coming_back():
            syscall.setns(fd, syscall.CLONE_NEWNET)
            yield
    finally:
        os.close(fd)


def _bound(kind: int, address: str, wished: int) -> socket.socket:
    """A socket bound there; at another port where a program of the container has that one."""
    sock = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        if kind == socket.SOCK_STREAM:  # an earlier daemon's connections may wait for their end
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, wished))
        except OSError as failure:
            if failure.errno != errno.EADDRINUSE:
                raise
            sock.bind((address, 0))
        if kind == socket.SOCK_STREAM:
            sock.listen(LISTEN_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def pinned(pin: str, kind: int = 0) -> int | None:
    """An fd of the namespace pinned there; None when none is, or it is of another kind than ``kind``."""
    try:
        fd = os.open(pin, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        found = fcntl.ioctl(fd, syscall.NS_GET_NSTYPE)
    except OSError:
        found = None
    if found is None or kind not in {0, found}:
        os.close(fd)
        return None
    return fd


def maps_of(user_namespace: int) -> tuple[str, str]:
    """The maps of a user namespace, ids outside being the host's, one space between numbers."""

    def enter() -> int:
        syscall.setns(user_namespace, syscall.CLONE_NEWUSER)
        return os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def read(name: str) -> str:
        with open(os.open(name, os.O_RDONLY, dir_fd=process)) as file:  # noqa: PTH123
            return "".join(" ".join(line.split()) + "\n" for line in file)

    process = -1

    def whole() -> int:
        nonlocal process
        process = enter()
        memfd = os.memfd_create("maps")
        os.write(memfd, f"{read('uid_map')}/{read('gid_map')}".encode())
        return memfd

    memfd = from_child(whole)
    with os.fdopen(memfd, "r") as file:
        file.seek(0)
        uid_map, _, gid_map = file.read().partition("/")
    return uid_map, gid_map


def from_child(work: Callable[[], int]) -> int:
    """Run ``work`` in a child, which may change itself as it likes, and take the fd it makes."""
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            spawner_command.die_with(parent)
            socket.send_fds(theirs, [b"0"], [work()])
        except OSError as failure:
            theirs.send(f"{failure.errno} {failure.strerror}".encode())
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        told, fds, _, _ = socket.recv_fds(ours, 4096, 1, socket.MSG_CMSG_CLOEXEC)
    os.waitpid(child, 0)
    if fds:
        return fds[0]
    number, _, why = told.decode().partition(" ")
    raise OSError(int(number or errno.ECANCELED), why or "it ended before it answered")


@contextlib.contextmanager
def _alone_at(pin: str) -> Iterator[None]:
    """No other errand makes pins beside this one meanwhile: an owner's first containers may start at once."""
    beside = Path(pin).parent
    beside.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(beside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _pin(fd: int, pin: str) -> None:
    target = Path(pin)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.touch(mode=0o600)
    mount_namespace.unmount(pin)
    syscall.mount(f"/proc/self/fd/{fd}", pin, flags=syscall.MS_BIND)
    os.close(fd)
