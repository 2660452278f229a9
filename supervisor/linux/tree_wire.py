"""Entries of a file tree on a pipe between the daemon and an errand. Standard library only.

Words: a *node* is one entry of a tree, as tar knows them; a file's content follows it, exactly as long as it says.

Rules: every frame is a length of four bytes and as much JSON; bytes travel as text in Latin-1; an empty frame ends the
tree, so that a pipe that ends early is noticed.
"""

from __future__ import annotations

import errno
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

CONTENT_BYTES = 1 << 18
LENGTH = struct.Struct(">I")
END = LENGTH.pack(0)


@dataclass(frozen=True)
class Node:
    """One entry of a tree.

    Attributes:
        path: Relative to what is copied, without ``.`` and ``..``; empty for that itself.
        kind: ``file``, ``directory``, ``symlink``, ``hardlink`` or ``fifo``.
        mode: Permission bits with setuid, setgid and sticky.
        uid: As the container sees it; likewise ``gid``.
        link: Of a symlink its text, of a hard link the path of the node it is another name of.
    """

    path: bytes
    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    link: bytes = b""
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)


class Source(Protocol):
    """What can be read from: a buffered file."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; fewer only at the end."""


def frame(value: object) -> bytes:
    """One frame that holds ``value`` as JSON."""
    content = json.dumps(value, separators=(",", ":")).encode()
    return LENGTH.pack(len(content)) + content


def pack(node: Node) -> bytes:
    """A node's frame."""
    return frame(
        [
            node.path.decode("latin-1"),
            node.kind,
            *(node.mode, node.uid, node.gid, node.mtime_ns, node.size),
            node.link.decode("latin-1"),
            {
                name.decode("latin-1"): value.decode("latin-1")
                for name, value in node.xattrs.items()
            },
        ]
    )


def unpack(content: bytes) -> Node:
    """The inverse of :func:`pack`, without the length."""
    path, kind, mode, uid, gid, mtime_ns, size, link, xattrs = json.loads(content)
    return Node(
        *(path.encode("latin-1"), kind, mode, uid, gid, mtime_ns, size, link.encode("latin-1")),
        {name.encode("latin-1"): value.encode("latin-1") for name, value in xattrs.items()},
    )


def read_node(source: Source) -> Node | None:
    """The next node; ``None`` at the end of the tree. The content of the last one must have been read.

    Raises:
        OSError: EPIPE when the other side has ended early.
    """
    (length,) = LENGTH.unpack(exactly(source, LENGTH.size))
    return unpack(exactly(source, length)) if length else None


def exactly(source: Source, size: int) -> bytes:
    """The next ``size`` bytes.

    Raises:
        OSError: EPIPE when the other side has ended early.
    """
    content = source.read(size)
    if len(content) < size:
        raise OSError(errno.EPIPE, "the copy was cut off")
    return content
