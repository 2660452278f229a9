"""What files say, as one digest: names, kinds, modes, owners where they count, links, bytes, extended attributes.

Times do not count: a checkout of the same tree has the same key. Trees are not trusted: directory fds only, nothing is
followed. Blocks: call it in a thread.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence

import attrs

from supervisor.build.sources import Found
from supervisor.linux import beneath
from supervisor.store import trees

READ_BYTES = 1 << 20
READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
SHOWN_XATTRS = ("user.", "security.capability")


@attrs.define
class Digests:
    """Digests of one tree's files, each taken once: several COPYs may read the same."""

    known: dict[tuple[int, int], bytes] = attrs.field(factory=dict)

    def of_file(self, descriptor: int) -> bytes:
        """SHA-256 of an open file's bytes."""
        status = os.fstat(descriptor)
        key = (status.st_dev, status.st_ino)
        if key not in self.known:
            taken = hashlib.sha256()
            while piece := os.read(descriptor, READ_BYTES):
                taken.update(piece)
            self.known[key] = taken.digest()
        return self.known[key]


def content_key(root: int, found: Sequence[Found], digests: Digests, *, owners: bool) -> str:
    """The key of what is copied from ``found`` below ``root``.

    Args:
        root: A directory fd.
        found: The sources.
        digests: Of the tree at ``root``; must not have changed since they were taken.
        owners: Owners count (they are copied too).

    Raises:
        OSError: Something cannot be read.
        TooDeep: See :mod:`supervisor.store.trees`.
    """
    taken = hashlib.sha256()
    for each in found:
        for line in _told(root, each, digests, owners=owners):
            taken.update(len(line).to_bytes(8, "big") + line)
        taken.update(b"\0" * 8)
    return taken.hexdigest()


def _told(root: int, each: Found, digests: Digests, *, owners: bool) -> Iterator[bytes]:
    if not each.directory:
        descriptor = beneath.open_beneath(root, each.path, os.O_RDONLY)
        try:
            yield os.fsencode(each.name)
            yield from _entry(descriptor, os.fstat(descriptor), digests, owners=owners)
        finally:
            os.close(descriptor)
        return
    top = beneath.open_beneath(root, each.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield b"/"
        yield from _entry(top, os.fstat(top), digests, owners=owners)
        for entry in trees.walk(top):
            yield entry.path
            yield from _below(entry, digests, owners=owners)
    finally:
        os.close(top)


def _below(entry: trees.Entry, digests: Digests, *, owners: bool) -> Iterator[bytes]:
    kind = stat.S_IFMT(entry.status.st_mode)
    if kind in {stat.S_IFREG, stat.S_IFDIR}:
        descriptor = os.open(entry.name, READ_FILE, dir_fd=entry.parent)
        try:
            yield from _entry(descriptor, entry.status, digests, owners=owners)
        finally:
            os.close(descriptor)
        return
    yield _head(entry.status, owners=owners)
    if kind == stat.S_IFLNK:
        yield os.fsencode(os.readlink(entry.name, dir_fd=entry.parent))


def _entry(
    descriptor: int, status: os.stat_result, digests: Digests, *, owners: bool
) -> Iterator[bytes]:
    yield _head(status, owners=owners)
    for name, value in xattrs_of(descriptor):
        yield os.fsencode(name)
        yield value
    if stat.S_ISREG(status.st_mode):
        yield digests.of_file(descriptor)


def _head(status: os.stat_result, *, owners: bool) -> bytes:
    ids = f"{status.st_uid}:{status.st_gid}" if owners else ""
    mode = 0 if stat.S_ISLNK(status.st_mode) else stat.S_IMODE(status.st_mode)
    return f"{stat.S_IFMT(status.st_mode):o} {mode:o} {ids}".encode()


def xattrs_of(descriptor: int) -> list[tuple[str, bytes]]:
    """The extended attributes that are copied and counted."""
    return [
        (name, os.getxattr(descriptor, name))
        for name in sorted(os.listxattr(descriptor))
        if name.startswith(SHOWN_XATTRS)
    ]
