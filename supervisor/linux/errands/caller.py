"""Errands that touch the host's files with a caller's credentials. Standard library only.

The confused deputy is kept out like this: a child stands in the host's mount namespace, holds no fd of ours, *is* the
caller, and opens the path itself; the kernel decides. Root then works on the fd it hands over, never on the path again, so
that nothing can be swapped in between. Where a file system lets root not look (a network's, FUSE), the caller looks once more.

- Opened for reading: ``O_PATH`` on what one may not read succeeds, and proves nothing.
- Looked at with ``O_PATH`` first: opening some devices does something, opening a FIFO waits.
- No magic links: ``/proc/<pid>/root`` leads anywhere.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from supervisor.linux import spawner_command, syscall
from supervisor.linux.errands import (
    Arguments,
    Done,
    Surroundings,
    errand,
    flag,
    number,
    text,
    texts,
)
from supervisor.linux.errands.filesystems import attach_anew
from supervisor.linux.errands.namespaces import from_child

KERNEL_FILESYSTEMS = frozenset(
    {
        0x9FA0,  # proc
        0x62656572,  # sysfs
        0x27E0EB,  # cgroup
        0x63677270,  # cgroup2
        0x64626720,  # debugfs
        0x74726163,  # tracefs
        0x73636673,  # securityfs
        0xCAFE4A11,  # bpf
        0x6E736673,  # nsfs
        0xDE5E81E4,  # efivarfs
        0x62656570,  # configfs
        0x19800202,  # mqueue
        0x6165676C,  # pstore
    }
)
DIRECTORY_MODE = 0o755
BELONGS_TO_US = "it belongs to the daemon"


@errand("grant", forked=True)
def _grant(arguments: Arguments, _: Sequence[int], surroundings: Surroundings) -> Done:
    target = text(arguments, "target")
    mount_fd, kind = granted_mount(arguments, surroundings)
    attach_anew(mount_fd, target, directory=kind == "directory")
    return Done({"kind": kind, "writable": flag(arguments, "writable")})


def granted_mount(arguments: Arguments, surroundings: Surroundings) -> tuple[int, str]:
    """A mount fd of the host's path as the caller could open it now, and what it is; for forked errands, in M."""
    fd = from_child(lambda: _open_as_caller(arguments, surroundings))
    kind = _opened_kind(fd)
    syscall.setns(surroundings.host_mounts_fd, syscall.CLONE_NEWNS)
    if flag(arguments, "restricted"):
        _refuse_kernel_files(fd)
    own = _Own(texts(arguments, "forbidden"))
    own.refuse_named(fd)
    if kind == "directory":
        try:
            own.refuse_below(fd)
        except _RootRefusedError:
            os.close(from_child(lambda: _refuse_as_caller(fd, own, arguments, surroundings)))
    mount_fd = _clone(fd, arguments)
    syscall.setns(surroundings.own_mounts_fd, syscall.CLONE_NEWNS)
    return mount_fd, kind


def _clone(fd: int, arguments: Arguments) -> int:
    """A mount fd of what was opened; with what is mounted below only for administrators, who see all of the host."""
    restricted, recursive = flag(arguments, "restricted"), flag(arguments, "recursive")
    whole = recursive and not restricted
    flags = syscall.OPEN_TREE_CLONE | syscall.AT_EMPTY_PATH
    mount_fd = syscall.open_tree("", flags | (syscall.AT_RECURSIVE if whole else 0), fd)
    propagation = (
        syscall.MS_SLAVE if flag(arguments, "slave") and not restricted else syscall.MS_PRIVATE
    )
    syscall.mount_setattr(mount_fd, 0, propagation, recursive=whole)
    if restricted:
        syscall.mount_setattr(mount_fd, syscall.MOUNT_ATTR_NOSUID | syscall.MOUNT_ATTR_NODEV)
    if not flag(arguments, "writable"):
        below = whole and flag(arguments, "read_only_below")
        syscall.mount_setattr(mount_fd, syscall.MOUNT_ATTR_RDONLY, recursive=below)
    return mount_fd


@errand("open_as", forked=True)
def _open_as(arguments: Arguments, _: Sequence[int], surroundings: Surroundings) -> Done:
    path, flags = _absolute(arguments), number(arguments, "flags")

    def work() -> int:
        _become_caller(arguments, surroundings)
        if flags & os.O_CREAT:
            how = flags | os.O_NONBLOCK | os.O_NOCTTY
            return syscall.openat2(
                syscall.AT_FDCWD,
                path,
                how,
                number(arguments, "mode"),
                syscall.RESOLVE_NO_MAGICLINKS,
            )
        found = _look(path, flags & (os.O_NOFOLLOW | os.O_DIRECTORY))
        if _kind(found) == "special":
            raise OSError(errno.EACCES, "neither a file nor a directory")
        return _reopen(found, flags & ~os.O_NOFOLLOW)

    return Done(fds=(from_child(work),))


def _open_as_caller(arguments: Arguments, surroundings: Surroundings) -> int:
    """In a child that ends afterwards: what the caller may open there, and, if asked, write."""
    path = _absolute(arguments)
    restricted, writable = flag(arguments, "restricted"), flag(arguments, "writable")
    _become_caller(arguments, surroundings)
    try:
        found = _look(path)
    except FileNotFoundError:
        if not flag(arguments, "create"):
            raise
        _make_directories(path)
        found = _look(path)
    match _kind(found):
        case "directory":
            fd = _reopen(found, os.O_RDONLY | os.O_DIRECTORY)
            if writable:
                syscall.may_access(fd, os.W_OK | os.X_OK)
            return fd
        case "file":
            return _reopen(found, os.O_RDWR if writable else os.O_RDONLY)
        case _ if restricted:
            raise OSError(errno.EACCES, "neither a file nor a directory")
        case _:
            syscall.may_access(found, os.R_OK | (os.W_OK if writable else 0))
            return found


def _become_caller(arguments: Arguments, surroundings: Surroundings) -> None:
    """In a child: the host's mounts, the caller's credentials, and none of the spawner's other fds.

    The reply's socket stays, but nobody of the caller's uid can trace us to reach it.
    """
    credentials = arguments["credentials"]
    assert isinstance(credentials, dict)
    parent = os.getppid()
    syscall.setns(surroundings.host_mounts_fd, syscall.CLONE_NEWNS)
    os.chdir("/")
    spawner_command.drop_to(credentials)
    spawner_command.die_with(parent)


def _absolute(arguments: Arguments) -> str:
    path = text(arguments, "path")
    if not path.startswith("/"):
        raise OSError(errno.EINVAL, "the path is not absolute")
    return path


def _look(path: str, flags: int = 0) -> int:
    try:
        return syscall.openat2(
            syscall.AT_FDCWD, path, os.O_PATH | flags, 0, syscall.RESOLVE_NO_MAGICLINKS
        )
    except OSError as failure:
        if failure.errno != errno.ELOOP:
            raise
        text_ = "it leads through a magic link of /proc, or too many links"
        raise OSError(errno.EACCES, text_) from failure


def _reopen(found: int, flags: int) -> int:
    """Open what was looked at, whatever has its name by now."""
    extra = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(f"/proc/self/fd/{found}", flags | extra)
    finally:
        os.close(found)


def _make_directories(path: str) -> None:
    """As ``mkdir -p``, each in the directory that was opened, with this process's credentials."""
    pure = Path(path)
    try:
        parent = _look(str(pure.parent), os.O_DIRECTORY)
    except FileNotFoundError:
        if pure.parent == pure:
            raise
        _make_directories(str(pure.parent))
        parent = _look(str(pure.parent), os.O_DIRECTORY)
    try:
        os.mkdir(pure.name, DIRECTORY_MODE, dir_fd=parent)
    except FileExistsError:
        pass  # a link that leads nowhere, or made meanwhile: opening it tells
    finally:
        os.close(parent)


def _kind(fd: int) -> str:
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        return "directory"
    return "file" if stat.S_ISREG(mode) else "special"


def _opened_kind(fd: int) -> str:
    """What :func:`_open_as_caller` opened, by how it did: root may not look at it where a file system refuses root."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if flags & os.O_DIRECTORY:
        return "directory"
    return "special" if flags & os.O_PATH else "file"


def _refuse_kernel_files(fd: int) -> None:
    if syscall.filesystem_magic(fd) in KERNEL_FILESYSTEMS:
        raise OSError(errno.EACCES, "the kernel's own files are not given to containers")


class _RootRefusedError(Exception):
    """A file system does not let root look at what the caller could open."""


class _Own:
    """The daemon's own directories, as they are now: neither they nor what is in them is for containers."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._names = [os.path.realpath(path) for path in paths]
        self._identities = {found for found in map(_identity, self._names) if found}

    def refuse_named(self, fd: int) -> None:
        """By the name the kernel has for what was opened."""
        place = Path(os.readlink(f"/proc/self/fd/{fd}"))  # noqa: PTH115
        if any(place.is_relative_to(name) for name in self._names):
            raise OSError(errno.EACCES, BELONGS_TO_US)

    def refuse_below(self, directory: int) -> None:
        """By what each directory above really is, whatever it is called.

        Raises:
            _RootRefusedError: One of these may not be looked at.
        """
        try:
            below = _is_below(directory, self._identities)
        except PermissionError as failure:
            raise _RootRefusedError from failure
        if below:
            raise OSError(errno.EACCES, BELONGS_TO_US)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _refuse_as_caller(fd: int, own: _Own, arguments: Arguments, surroundings: Surroundings) -> int:
    """In a child: the same look with the credentials that led there."""
    _become_caller(arguments, surroundings)
    try:
        own.refuse_below(fd)
    except _RootRefusedError as failure:
        text_ = "neither root nor you may look at the directories above"
        raise OSError(errno.EACCES, text_) from failure
    return fd


def _is_below(directory: int, own: set[tuple[int, int]]) -> bool:
    here, last = os.dup(directory), (-1, -1)
    try:
        while True:
            found = os.fstat(here)
            identity = (found.st_dev, found.st_ino)
            if identity in own:
                return True
            above = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = above
            if identity == last:
                return False
            last = identity
    finally:
        os.close(here)
