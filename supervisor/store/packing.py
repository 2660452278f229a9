"""Packing: the directory of a layer becomes a tar, the same one every time.

Rules: sorted by name; owners, modes and whole seconds as on disk; overlayfs' marks become ``.wh.`` members; sockets are
left out; ids above 65535 (overlayfs' own files have 65536 through a view, supplementary groups more)
become 0; files with several names are stored
once. Whether the digest is taken or the bytes are wanted, they are the same. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import attrs

from supervisor.errors import InvalidArgument
from supervisor.oci import digest as digests
from supervisor.oci import tar
from supervisor.oci.tar import Kind, Member
from supervisor.store import scan, trees

BATCH_BYTES = 1 << 20
OPAQUE_XATTR = "trusted.overlay.opaque"
_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMBOLIC_LINK,
    stat.S_IFIFO: Kind.FIFO,
}


@attrs.frozen
class Packed:
    """A layer's tar: its digest (the layer's DiffID) and its length."""

    diff_id: str
    tar_bytes: int


def measure(layer: Path) -> Packed:
    """Digest and length of the layer's tar.

    Raises:
        InvalidArgument: The tree is too deep for a tar.
        OSError: It cannot be read.
    """
    taken = hashlib.sha256()
    length = 0
    for piece in pieces(layer):
        taken.update(piece)
        length += len(piece)
    return Packed(f"{digests.ALGORITHM}:{taken.hexdigest()}", length)


def pieces(layer: Path) -> Iterator[bytes]:
    """The layer's tar, in pieces of about a mebibyte.

    Raises:
        InvalidArgument: The tree is too deep for a tar.
        OSError: It cannot be read.
    """
    root = trees.open_directory(layer)
    batch = bytearray()
    try:
        for piece in _pieces(root):
            batch += piece
            if len(batch) >= BATCH_BYTES:
                yield bytes(batch)
                batch.clear()
    except trees.TooDeep as error:
        message = f"cannot pack the layer: a directory in it is more than {trees.WALK_DEPTH_MAX} levels deep"
        raise InvalidArgument(message) from error
    finally:
        os.close(root)
    yield bytes(batch + tar.END)


def _pieces(root: int) -> Iterator[bytes]:
    links: dict[tuple[int, int], bytes] = {}
    yield tar.pax_header(_member(b"./", os.fstat(root), _xattrs_of(root)))
    if is_opaque(root):
        yield tar.pax_header(_mark(scan.OPAQUE))
    for entry in trees.walk(root):
        status = entry.status
        form = stat.S_IFMT(status.st_mode)
        if form == stat.S_IFCHR and status.st_rdev == 0:
            directory, _, name = entry.path.rpartition(b"/")
            yield tar.pax_header(
                _mark((directory + b"/" if directory else b"") + scan.WHITEOUT + name)
            )
        elif form == stat.S_IFREG:
            yield from _file(entry, links)
        elif form in _KINDS:
            yield from _other(entry)


def _file(entry: trees.Entry, links: dict[tuple[int, int], bytes]) -> Iterator[bytes]:
    """A regular file, or a link to where it was met before."""
    key = (entry.status.st_dev, entry.status.st_ino)
    if entry.status.st_nlink > 1:
        first = links.setdefault(key, entry.path)
        if first != entry.path:
            member = _member(entry.path, entry.status, {})
            yield tar.pax_header(attrs.evolve(member, kind=Kind.HARD_LINK, size=0, link=first))
            return
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(entry.name, flags, dir_fd=entry.parent)
    try:
        member = _member(entry.path, entry.status, _xattrs_of(descriptor))
        yield tar.pax_header(member)
        left = member.size
        while left:
            piece = os.read(descriptor, min(left, BATCH_BYTES))
            if not piece:
                raise OSError(
                    errno.EIO, "a file of a layer is shorter than it was", os.fsdecode(entry.path)
                )
            left -= len(piece)
            yield piece
        yield tar.padding(member.size)
    finally:
        os.close(descriptor)


def _other(entry: trees.Entry) -> Iterator[bytes]:
    """A directory, a symbolic link or a FIFO."""
    if not stat.S_ISDIR(entry.status.st_mode):
        member = _member(entry.path, entry.status, {})
        if member.kind is Kind.SYMBOLIC_LINK:
            link = os.fsencode(os.readlink(entry.name, dir_fd=entry.parent))
            member = attrs.evolve(member, link=link)
        yield tar.pax_header(member)
        return
    descriptor = os.open(entry.name, trees.DIRECTORY, dir_fd=entry.parent)
    try:
        yield tar.pax_header(_member(entry.path + b"/", entry.status, _xattrs_of(descriptor)))
        if is_opaque(descriptor):
            yield tar.pax_header(_mark(entry.path + b"/" + scan.OPAQUE))
    finally:
        os.close(descriptor)


def _member(name: bytes, status: os.stat_result, xattrs: dict[bytes, bytes]) -> Member:
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    return Member(
        name=name,
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=_canonical(status.st_uid),
        gid=_canonical(status.st_gid),
        mtime=max(status.st_mtime_ns // 1_000_000_000, 0),
        size=status.st_size if kind is Kind.FILE else 0,
        xattrs=scan.kept_xattrs(xattrs),
    )


def _mark(name: bytes) -> Member:
    return Member(name=name, kind=Kind.FILE, mode=0)


def _canonical(number: int) -> int:
    return number if number <= scan.ID_MAX else 0


def _xattrs_of(descriptor: int) -> dict[bytes, bytes]:
    return {
        os.fsencode(name): os.getxattr(descriptor, name)
        for name in os.listxattr(descriptor)
        if not name.startswith("trusted.")
    }


def is_opaque(directory: int | Path) -> bool:
    """Whether overlayfs hides what is below a directory of a layer."""
    try:
        return os.getxattr(directory, OPAQUE_XATTR) == b"y"
    except OSError as error:
        if error.errno in {errno.ENODATA, errno.EOPNOTSUPP}:
            return False
        raise
