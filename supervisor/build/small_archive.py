"""Unpacking a small, plain archive without a process of its own.

Most contexts are a few files, and a cell for tar takes longer to make than they take to write.

Rules: members are judged by the same scan as everywhere. What confines is the kernel: the tree is a fresh directory that
only root can enter, every name is opened from its descriptor with openat2 (RESOLVE_IN_ROOT), and nothing but regular
files, directories, links and FIFOs is made. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import io
import os
from pathlib import Path, PurePosixPath

from supervisor.errors import InvalidArgument
from supervisor.linux import beneath
from supervisor.oci import tar
from supervisor.oci.tar import Kind, Member
from supervisor.store import compression, trees
from supervisor.store.compression import Span, SpanReader
from supervisor.store.scan import Scan

SMALL_BYTES_MAX = 1 << 20
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
HEAD_BYTES = 8
TIME_SECONDS_MAX = 2**33


def is_small(archive: int) -> bool:
    """Whether it is small, and not compressed: then what is in it is small too."""
    if os.fstat(archive).st_size > SMALL_BYTES_MAX:
        return False
    return not compression.kind_of(os.pread(archive, HEAD_BYTES, 0))


def unpack_small(archive: int, tree: Path, scan: Scan) -> None:
    """Fill the empty directory ``tree`` with what ``archive``, an open file, holds.

    Raises:
        InvalidArgument: It is no tar, damaged, or an attack.
        ResourceExhausted: It is larger than the bounds.
    """
    root = trees.open_directory(tree)
    directories: list[Member] = []
    try:
        reader = tar.Reader(io.BufferedReader(SpanReader(Span(archive))).read)
        while (member := reader.next()) is not None:
            judged = scan.judge(member)
            if judged is None:
                continue
            if judged.kind is Kind.DIRECTORY:
                directories.append(judged)
            _make(root, judged, b"".join(reader.content()))
        for directory in reversed(directories):
            _shape_directory(root, directory)
    except OSError as error:
        msg = f"cannot unpack the archive: {error.strerror}"
        raise InvalidArgument(msg) from error
    finally:
        os.close(root)


def _make(root: int, member: Member, content: bytes) -> None:
    path = os.fsdecode(member.name)
    if member.kind is Kind.DIRECTORY:
        beneath.make_directories_beneath(root, path)
        return
    beneath.make_directories_beneath(root, str(PurePosixPath("/", path).parent))
    beneath.unlink_beneath(root, path)
    with beneath.parent_beneath(root, path) as (parent, name):
        match member.kind:
            case Kind.SYMBOLIC_LINK:
                os.symlink(os.fsdecode(member.link), name, dir_fd=parent)
                os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
                _time(member, name, parent)
            case Kind.HARD_LINK:
                _link(root, os.fsdecode(member.link), parent, name)
            case Kind.FIFO:
                os.mkfifo(name, 0o600, dir_fd=parent)
                os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
                os.chmod(name, member.mode & 0o7777, dir_fd=parent)
                _time(member, name, parent)
            case _:
                _write(root, path, member, content)


def _write(root: int, path: str, member: Member, content: bytes) -> None:
    descriptor = beneath.open_beneath(root, path, CREATE, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        _shape(descriptor, member)
    finally:
        os.close(descriptor)


def _link(root: int, target: str, parent: int, name: str) -> None:
    """A hard link to a file of the same archive; the scan has seen that it is one."""
    with beneath.parent_beneath(root, target) as (directory, last):
        os.link(last, name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)


def _shape_directory(root: int, member: Member) -> None:
    descriptor = beneath.open_beneath(root, os.fsdecode(member.name), os.O_RDONLY | os.O_DIRECTORY)
    try:
        _shape(descriptor, member)
    finally:
        os.close(descriptor)


def _shape(descriptor: int, member: Member) -> None:
    os.fchown(descriptor, member.uid, member.gid)
    os.fchmod(descriptor, member.mode & 0o7777)
    for name, value in member.xattrs.items():
        os.setxattr(descriptor, name, value)
    os.utime(descriptor, _times(member))


def _time(member: Member, name: str, parent: int) -> None:
    os.utime(name, _times(member), dir_fd=parent, follow_symlinks=False)


def _times(member: Member) -> tuple[int, int]:
    moment = min(member.mtime, TIME_SECONDS_MAX)
    return moment, moment
