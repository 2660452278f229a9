"""Copying a tree from one directory descriptor into another: owners, modes, times, links and extended attributes.

Rules: nothing is followed and nothing leads out, on neither side; sockets and device nodes are left out. Blocks: call it
in a thread.
"""

from __future__ import annotations

import os
import stat

from supervisor.store import trees

COPY_BYTES = 1 << 20
_FRESH = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def copy_tree(source: int, target: int) -> None:
    """Copy what is in the directory ``source`` into the empty directory ``target``, and its own owner, mode and times.

    Raises:
        trees.TooDeep: It is deeper than we walk.
        OSError: The disk is full or broken.
    """
    directories: list[tuple[bytes, os.stat_result]] = []
    for entry in trees.walk(source):
        parent, name = _parent(target, entry.path)
        try:
            _copy_entry(entry, parent, name)
        finally:
            os.close(parent)
        if stat.S_ISDIR(entry.status.st_mode):
            directories.append((entry.path, entry.status))
    for path, status in reversed(directories):
        parent, name = _parent(target, path)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
        os.close(parent)
    own = os.fstat(source)
    os.fchown(target, own.st_uid, own.st_gid)
    os.fchmod(target, stat.S_IMODE(own.st_mode))


def _parent(root: int, path: bytes) -> tuple[int, bytes]:
    """A descriptor of the directory that holds ``path``; its parts were made by us just now."""
    *parents, name = path.split(b"/")
    current = os.dup(root)
    for part in parents:
        below = os.open(part, trees.DIRECTORY, dir_fd=current)
        os.close(current)
        current = below
    return current, name


def _copy_entry(entry: trees.Entry, parent: int, name: bytes) -> None:
    status = entry.status
    form = stat.S_IFMT(status.st_mode)
    if form == stat.S_IFDIR:
        os.mkdir(name, 0o700, dir_fd=parent)
    elif form == stat.S_IFREG:
        _copy_file(entry, parent, name)
        return
    elif form == stat.S_IFLNK:
        os.symlink(os.readlink(entry.name, dir_fd=entry.parent), name, dir_fd=parent)
    elif form == stat.S_IFIFO:
        os.mkfifo(name, 0o600, dir_fd=parent)
    else:
        return
    os.chown(name, status.st_uid, status.st_gid, dir_fd=parent, follow_symlinks=False)
    if form != stat.S_IFLNK:
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=parent)
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)


def _copy_file(entry: trees.Entry, parent: int, name: bytes) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    source = os.open(entry.name, flags, dir_fd=entry.parent)
    try:
        target = os.open(name, _FRESH, 0o600, dir_fd=parent)
        try:
            while os.sendfile(target, source, None, COPY_BYTES):
                pass  # copy_file_range refuses to go from an overlay to what lies below it
            os.fchown(target, entry.status.st_uid, entry.status.st_gid)
            os.fchmod(target, stat.S_IMODE(entry.status.st_mode))
            for key in os.listxattr(source):
                if key.startswith("user.") or key == "security.capability":
                    os.setxattr(target, key, os.getxattr(source, key))
            os.utime(target, ns=(entry.status.st_atime_ns, entry.status.st_mtime_ns))
        finally:
            os.close(target)
    finally:
        os.close(source)
