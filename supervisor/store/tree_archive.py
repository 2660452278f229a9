"""Trees that are copied as tars: the nodes that leave a container become one, those of one become nodes.

Rules: a tar that comes in is read by us, strictly (:mod:`supervisor.oci.tar`), and decompressed by our own libraries: no
program of a container, nor one that looks into it, ever sees it (attacks.md 13). Names stay below the directory; device
nodes are left out. Reading an archive blocks: call it in a thread.
"""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager
from typing import BinaryIO

import attrs

from supervisor.clock import NANOSECONDS_PER_SECOND
from supervisor.errors import InvalidArgument
from supervisor.linux import tree_wire
from supervisor.linux.tree_view import TreeStream
from supervisor.linux.tree_wire import Node
from supervisor.oci import tar
from supervisor.oci.tar import Kind, Member
from supervisor.store import compression, scan

_KINDS = {
    "file": Kind.FILE,
    "directory": Kind.DIRECTORY,
    "symlink": Kind.SYMBOLIC_LINK,
    "hardlink": Kind.HARD_LINK,
    "fifo": Kind.FIFO,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
ROOT_NAME = b"/"
MTIME_MAX = 1 << 33
"""Seconds since 1970: what every file system takes; a tar may say more than any."""


@attrs.frozen
class Ids:
    """What the ids of an archive mean in a container.

    An archive that somebody made of their own files says their own uid and gid, and in their user namespace these are 0.
    What a user namespace cannot hold becomes its root's too.

    Attributes:
        own_uid: Stands for 0; -1 when no id does. Likewise ``own_gid``.
        last: The last id there is.
    """

    own_uid: int = -1
    own_gid: int = -1
    last: int = 2**32 - 2

    def uid(self, number: int) -> int:
        """The container's uid for one of the archive."""
        return 0 if number == self.own_uid or number > self.last else number

    def gid(self, number: int) -> int:
        """The container's gid for one of the archive."""
        return 0 if number == self.own_gid or number > self.last else number


async def pieces(
    stream: TreeStream, name: bytes, told: Callable[[], AbstractContextManager[None]]
) -> AsyncGenerator[bytes, None]:
    """The tar of a tree whose root is called ``name`` in it; with an empty one only what is below.

    Close it (``contextlib.aclosing``) when not reading to the end. What goes wrong while reading goes through ``told``.
    """
    while True:
        with told():
            node = await stream.next()
        if node is None:
            break
        whole = _joined(name, node.path)
        if whole:
            yield tar.pax_header(_member(node, whole, name))
        left = node.size
        while left:
            with told():
                piece = await stream.take(left)
            left -= len(piece)
            yield piece
        if node.size:
            yield tar.padding(node.size)
    yield tar.END


def _joined(name: bytes, path: bytes) -> bytes:
    if not path:
        return name
    return path if not name else name + path if name == ROOT_NAME else name + b"/" + path


def _member(node: Node, whole: bytes, name: bytes) -> Member:
    kind = _KINDS[node.kind]
    slash = b"/" if kind is Kind.DIRECTORY and whole != ROOT_NAME else b""
    return Member(
        name=whole + slash,
        kind=kind,
        mode=node.mode,
        uid=node.uid,
        gid=node.gid,
        mtime=max(node.mtime_ns // NANOSECONDS_PER_SECOND, 0),
        size=node.size,
        link=_joined(name, node.link) if kind is Kind.HARD_LINK else node.link,
        xattrs=scan.kept_xattrs(node.xattrs),
    )


def feed(archive: io.RawIOBase, ids: Ids, pipe: BinaryIO) -> None:
    """Write the nodes of an archive, compressed or not, to a pipe.

    Raises:
        InvalidArgument: It is no tar, damaged, or a name in it climbs.
        BrokenPipeError: Whoever reads has ended.
    """
    source = io.BufferedReader(archive, compression.READ_BYTES)
    try:
        _feed(source, ids, pipe)
    finally:
        source.detach()  # the archive is the caller's to close


def _feed(source: io.BufferedReader[io.RawIOBase], ids: Ids, pipe: BinaryIO) -> None:
    plain = compression.decompressed(source)  # type: ignore[arg-type]  # of whatever kind of file

    def read(size: int) -> bytes:
        with compression.damage_told():
            return plain.read(size)

    reader = tar.Reader(read)
    while (member := reader.next()) is not None:
        node = _node(member, ids)
        if node is None:
            continue
        pipe.write(tree_wire.pack(node))
        pipe.writelines(reader.content())
    while source.read(compression.READ_BYTES):
        pass  # what follows the archive
    pipe.write(tree_wire.END)


def _node(member: Member, ids: Ids) -> Node | None:
    """The node of a member; ``None`` for what is left out: device nodes, and the directory itself."""
    path = scan.cleaned(member.name)
    kind = _NAMES.get(member.kind)
    if path is None or kind is None:
        return None
    link = member.link
    if member.kind is Kind.HARD_LINK:
        cleaned = scan.cleaned(link)
        if cleaned is None:
            raise InvalidArgument("cannot unpack a hard link: it leads to the directory itself")
        link = cleaned
    return Node(
        path=path,
        kind=kind,
        mode=member.mode,
        uid=ids.uid(member.uid),
        gid=ids.gid(member.gid),
        mtime_ns=min(max(member.mtime, 0), MTIME_MAX) * NANOSECONDS_PER_SECOND,
        size=member.size,
        link=link,
        xattrs=scan.kept_xattrs(member.xattrs),
    )
