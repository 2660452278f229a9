"""Copying a tree from one directory descriptor into another: owners, modes, times, links and extended attributes.

Rules: nothing is followed and nothing leads out, on neither side; files with several names keep them; sockets and device
nodes are left out. Blocks: call it in a thread.
"""

from __future__ import annotations

import os
import stat

import attrs

from supervisor.store import packing, trees

COPY_BYTES = 1 << 20
_FRESH = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@attrs.define
class _Copy:
    """One copy at work: where the names of files with several are, and whether overlayfs' marks are kept."""

    target: int
    marks: bool
    links: dict[tuple[int, int], bytes] = attrs.field(factory=dict)


def copy_tree(source: int, target: int) -> None:
    """Copy what is in the directory ``source`` into the empty directory ``target``, and its own owner, mode and times.

    Raises:
        trees.TooDeep: It is deeper than we walk.
        OSError: The disk is full or broken.
    """
    _copy(source, _Copy(target, marks=False))


def copy_layer(source: int, target: int) -> None:
    """The same for what was written to a snapshot, with its whiteouts and opaque directories; it may change meanwhile.

    Raises:
        trees.TooDeep: It is deeper than we walk.
        OSError: The disk is full or broken.
    """
    _copy(source, _Copy(target, marks=True))


def _copy(source: int, copy: _Copy) -> None:
    directories: list[tuple[bytes, os.stat_result]] = []
    for entry in trees.walk(source, changing=copy.marks):
        parent, name = _parent(copy.target, entry.path)
        try:
            _copy_entry(entry, parent, name, copy)
        except FileNotFoundError:
            if not copy.marks:
                raise
            continue  # it went while it was looked at
        finally:
            os.close(parent)
        if stat.S_ISDIR(entry.status.st_mode):
            directories.append((entry.path, entry.status))
    for path, status in reversed(directories):
        parent, name = _parent(copy.target, path)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
        os.close(parent)
    own = os.fstat(source)
    os.fchown(copy.target, own.st_uid, own.st_gid)
    os.fchmod(copy.target, stat.S_IMODE(own.st_mode))
    os.utime(copy.target, ns=(own.st_atime_ns, own.st_mtime_ns))


def _parent(root: int, path: bytes) -> tuple[int, bytes]:
    """A descriptor of the directory that holds ``path``; its parts were made by us just now."""
    *parents, name = path.split(b"/")
    current = os.dup(root)
    for part in parents:
        below = os.open(part, trees.DIRECTORY, dir_fd=current)
        os.close(current)
        current = below
    return current, name


def _copy_entry(entry: trees.Entry, parent: int, name: bytes, copy: _Copy) -> None:
    status = entry.status
    form = stat.S_IFMT(status.st_mode)
    if form == stat.S_IFDIR:
        os.mkdir(name, 0o700, dir_fd=parent)
        _copy_directory_attributes(entry, parent, name, copy)
    elif form == stat.S_IFREG:
        if not _linked(entry, parent, name, copy):
            _copy_file(entry, parent, name)
        return
    elif form == stat.S_IFLNK:
        os.symlink(os.readlink(entry.name, dir_fd=entry.parent), name, dir_fd=parent)
    elif form == stat.S_IFIFO:
        os.mkfifo(name, 0o600, dir_fd=parent)
    elif form == stat.S_IFCHR and status.st_rdev == 0 and copy.marks:
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=parent)
        return
    else:
        return
    os.chown(name, status.st_uid, status.st_gid, dir_fd=parent, follow_symlinks=False)
    if form != stat.S_IFLNK:
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=parent)
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)


def _copy_directory_attributes(entry: trees.Entry, parent: int, name: bytes, copy: _Copy) -> None:
    source = os.open(entry.name, trees.DIRECTORY, dir_fd=entry.parent)
    try:
        made = os.open(name, trees.DIRECTORY, dir_fd=parent)
        try:
            _copy_attributes(source, made)
            if copy.marks and packing.is_opaque(source):
                os.setxattr(made, packing.OPAQUE_XATTR, b"y")
        finally:
            os.close(made)
    finally:
        os.close(source)


def _linked(entry: trees.Entry, parent: int, name: bytes, copy: _Copy) -> bool:
    """A further name of a file that is there already; false for one that is met for the first time."""
    if entry.status.st_nlink < 2:  # noqa: PLR2004
        return False
    first = copy.links.setdefault((entry.status.st_dev, entry.status.st_ino), entry.path)
    if first == entry.path:
        return False
    there, other = _parent(copy.target, first)
    try:
        os.link(other, name, src_dir_fd=there, dst_dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(there)
    return True


def _copy_file(entry: trees.Entry, parent: int, name: bytes) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    source = os.open(entry.name, flags, dir_fd=entry.parent)
    try:
        target = os.open(name, _FRESH, 0o600, dir_fd=parent)
        try:
            left = entry.status.st_size
            # copy_file_range refuses to go from an overlay to what lies below it
            while left and (sent := os.sendfile(target, source, None, min(left, COPY_BYTES))):
                left -= sent
            os.fchown(target, entry.status.st_uid, entry.status.st_gid)
            os.fchmod(target, stat.S_IMODE(entry.status.st_mode))
            _copy_attributes(source, target)
            os.utime(target, ns=(entry.status.st_atime_ns, entry.status.st_mtime_ns))
        finally:
            os.close(target)
    finally:
        os.close(source)


def _copy_attributes(source: int, target: int) -> None:
    for key in os.listxattr(source):
        if key.startswith("user.") or key == "security.capability":
            os.setxattr(target, key, os.getxattr(source, key))
