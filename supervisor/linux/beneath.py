"""Files below a directory fd, where the tree is not trusted and no path string is.

Every step is openat2(2) with ``RESOLVE_IN_ROOT``: absolute paths and links start at the fd, ``..`` stops there, and magic
links of /proc lead nowhere. Nothing is decided about a name before it is open: what was checked is what is used.

Rules: standard library only (errands use it); callers in the daemon use a thread where it may block. Paths are as the
container sees them (``/etc/passwd``). FIFOs and devices are not opened by accident: everything is ``O_NONBLOCK`` and
``O_NOCTTY``, and reading takes regular files only.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from supervisor.linux import syscall

RESOLVE = syscall.RESOLVE_IN_ROOT | syscall.RESOLVE_NO_MAGICLINKS
TRIES_MAX = 32
"""How often a lookup that raced with a rename is tried again."""

READ_BYTES_MAX = 1 << 20


def open_beneath(root_fd: int, path: str, flags: int = os.O_RDONLY, mode: int = 0) -> int:
    """Open ``path`` with ``root_fd`` as the root directory; the fd is the caller's.

    ``flags`` and ``mode`` as for open(2); always close-on-exec, never blocking, never a controlling terminal.

    Raises:
        OSError: As open(2); EAGAIN when somebody keeps renaming directories under us.
    """
    _refuse_nul(path)
    # O_PATH takes no other flag than these three.
    extra = 0 if flags & os.O_PATH else os.O_NONBLOCK | os.O_NOCTTY
    attempt = 0
    while True:
        try:
            return syscall.openat2(root_fd, path or "/", flags | extra, mode, RESOLVE)
        except BlockingIOError:
            attempt += 1
            if attempt == TRIES_MAX:
                raise


def stat_beneath(root_fd: int, path: str, *, follow: bool = True) -> os.stat_result:
    """What is at ``path``; with ``follow`` false, a link at its end is looked at itself."""
    fd = open_beneath(root_fd, path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def make_directories_beneath(
    root_fd: int, path: str, mode: int = 0o755, uid: int = 0, gid: int = 0
) -> None:
    """Afterwards ``path`` is a directory; those made now have this mode and owner (ids as on the fd's mount).

    A link on the way is followed as the container would follow it.

    Raises:
        NotADirectoryError: Something else is in the way.
    """
    _refuse_nul(path)
    here = PurePosixPath("/")
    for name in PurePosixPath("/", path).parts[1:]:
        if name == "..":
            raise OSError(errno.EINVAL, "'..' in a directory to be made", path)
        with parent_beneath(root_fd, str(here / name)) as (parent, last):
            _make_one(parent, last, mode, uid, gid)
        here /= name
    os.close(open_beneath(root_fd, str(here), os.O_PATH | os.O_DIRECTORY))


def read_file_beneath(root_fd: int, path: str, bytes_max: int = READ_BYTES_MAX) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: EFBIG when it is longer than ``bytes_max``; EINVAL when it is no regular file.
    """
    # Looked at first: opening some devices does something.
    probe = open_beneath(root_fd, path, os.O_PATH)
    try:
        if not stat.S_ISREG(os.fstat(probe).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        fd = os.open(f"/proc/self/fd/{probe}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(probe)
    with os.fdopen(fd, "rb") as file:
        content = file.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise OSError(errno.EFBIG, f"longer than {bytes_max} bytes", path)
    return content


def unlink_beneath(root_fd: int, path: str) -> None:
    """Remove one name, not following a link there; a directory must be empty. None there is success."""
    with parent_beneath(root_fd, path) as (parent, name):
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            os.rmdir(name, dir_fd=parent)


@contextmanager
def parent_beneath(root_fd: int, path: str) -> Iterator[tuple[int, str]]:
    """An fd of the directory that holds ``path``'s last name, and that name, for the ``dir_fd`` calls of ``os``."""
    pure = PurePosixPath("/", path)
    if pure.name in {"", ".."}:
        raise OSError(errno.EINVAL, "a name is needed", path)
    parent = open_beneath(root_fd, str(pure.parent), os.O_PATH | os.O_DIRECTORY)
    try:
        yield parent, pure.name
    finally:
        os.close(parent)


def _make_one(parent: int, name: str, mode: int, uid: int, gid: int) -> None:
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        return
    # Whoever can write here may have swapped it since: the new fd is what is changed, if it is a directory.
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def _refuse_nul(path: str) -> None:
    if "\0" in path:
        raise OSError(errno.EINVAL, "the path holds a NUL byte")
