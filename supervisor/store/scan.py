"""What may be in a layer: every member of an archive judged before anything is made of it. Pure.

Words:
    whiteout: A member ``.wh.x`` that says that x, of a layer below, is gone.
    opaque: A directory with a member ``.wh..wh..opq``: nothing of the layers below is seen in it.

Rules (attacks.md 6): names stay below the root; nothing is written through a link; a hard link is to something of the
same archive; device nodes and sockets are left out and counted; of the extended attributes only ``user.*`` and
capabilities come through. The scan makes for clear errors and for members that mean one thing only; what keeps a
mistake in it harmless is the confined process that unpacks.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import attrs

from supervisor.errors import InvalidArgument, ResourceExhausted
from supervisor.oci.tar import Kind, Member

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
WHITEOUT_META = b".wh..wh."

PATH_BYTES_MAX = 4_096
COMPONENT_BYTES_MAX = 255
DEPTH_MAX = 512
LINK_BYTES_MAX = 4_095
ID_MAX = 65_535
NAME_BYTES_MAX = 1 << 27
XATTR_CAPABILITY = b"security.capability"
XATTR_USER = b"user."
XATTR_USER_OVERLAY = b"user.overlay."

_CAPABILITY_V2 = struct.Struct("<5I")
_CAPABILITY_V3 = struct.Struct("<6I")
_REVISION_MASK, _REVISION_2, _REVISION_3 = 0xFF000000, 0x02000000, 0x03000000
_DEVICES = frozenset({Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE})


@attrs.frozen
class Bounds:
    """How much one layer may hold."""

    bytes_max: int
    entries_max: int


@attrs.define(eq=False)
class Scan:
    """Judges the members of one layer, in their order.

    Attributes:
        whiteouts: Paths that are gone, in their order.
        opaque: Directories that hide what is below them.
        left_out: Members that were dropped, by what they were.
        content_bytes: Of the contents seen so far.
    """

    bounds: Bounds
    whiteouts: list[bytes] = attrs.field(factory=list)
    opaque: list[bytes] = attrs.field(factory=list)
    left_out: dict[str, int] = attrs.field(factory=dict)
    content_bytes: int = 0
    _kinds: dict[bytes, Kind] = attrs.field(factory=dict)
    _entries: int = 0
    _name_bytes: int = 0

    def judge(self, member: Member) -> Member | None:
        """The member as it is to be unpacked, or ``None`` if it is not.

        Raises:
            InvalidArgument: It is an attack, or could not be unpacked.
            ResourceExhausted: The layer is larger than the bounds.
        """
        self._count(member)
        path = cleaned(member.name)
        if path is None:
            return self._root(member)
        self._check_parents(path)
        directory, _, name = path.rpartition(b"/")
        if name.startswith(WHITEOUT):
            self._whiteout(directory, name, path)
            return None
        if member.kind in _DEVICES:
            self._leave_out("device nodes")
            return None
        self._check_kind(path, member.kind)
        return attrs.evolve(
            member,
            name=path,
            link=self._link(member, path),
            uid=_id(member.uid, path),
            gid=_id(member.gid, path),
            mtime=max(member.mtime, 0),
            xattrs=kept_xattrs(member.xattrs),
        )

    def _count(self, member: Member) -> None:
        self._entries += 1
        self.content_bytes += member.size
        self._name_bytes += len(member.name)
        if self._entries > self.bounds.entries_max:
            raise _full(f"more than {self.bounds.entries_max} entries")
        if self.content_bytes > self.bounds.bytes_max:
            raise _full(f"more than {self.bounds.bytes_max} bytes")
        if self._name_bytes > NAME_BYTES_MAX:
            raise _full("names too long in all")

    def _root(self, member: Member) -> Member:
        if member.kind is not Kind.DIRECTORY:
            raise _refused(member.name, "the root of a layer is a directory")
        return attrs.evolve(
            member,
            name=b"./",
            uid=_id(member.uid, b"/"),
            gid=_id(member.gid, b"/"),
            mtime=max(member.mtime, 0),
            xattrs=kept_xattrs(member.xattrs),
        )

    def _check_parents(self, path: bytes) -> None:
        """No parent may be anything but a directory; those that were not named become directories."""
        if self._kinds.get(path.rpartition(b"/")[0]) is Kind.DIRECTORY:
            return  # its own parents were looked at then, and a directory never becomes anything else
        end = path.find(b"/")
        while end >= 0:
            parent = path[:end]
            kind = self._kinds.get(parent)
            if kind is None:
                self._count(Member(parent, Kind.DIRECTORY))
                self._kinds[parent] = kind = Kind.DIRECTORY
            if kind is not Kind.DIRECTORY:
                what = "symbolic link" if kind is Kind.SYMBOLIC_LINK else "file"
                raise _refused(path, f"it would be written through the {what} {_shown(parent)}")
            end = path.find(b"/", end + 1)

    def _check_kind(self, path: bytes, kind: Kind) -> None:
        before = self._kinds.get(path)
        if before is not None and (before is Kind.DIRECTORY) != (kind is Kind.DIRECTORY):
            raise _refused(path, "it is both a directory and something else")
        self._kinds[path] = kind

    def _whiteout(self, directory: bytes, name: bytes, path: bytes) -> None:
        if name == OPAQUE:
            self.opaque.append(directory)
        elif name.startswith(WHITEOUT_META):
            self._leave_out("aufs records")
        else:
            gone = name.removeprefix(WHITEOUT)
            if gone in {b"", b".", b".."}:
                raise _refused(
                    path, "it is a whiteout of nothing, of its directory or of what is above it"
                )
            self.whiteouts.append(directory + b"/" + gone if directory else gone)

    def _link(self, member: Member, path: bytes) -> bytes:
        match member.kind:
            case Kind.SYMBOLIC_LINK:
                if not 0 < len(member.link) <= LINK_BYTES_MAX or b"\0" in member.link:
                    raise _refused(path, "it is a symbolic link to nothing, or to too long a path")
                return member.link
            case Kind.HARD_LINK:
                target = cleaned(member.link)
                kind = self._kinds.get(target) if target is not None and target != path else None
                if target is None or kind is None or kind is Kind.DIRECTORY:
                    why = f"it is a hard link to {_shown(member.link)}, which is no file of the archive"
                    raise _refused(path, why)
                self._check_parents(target)
                return target
            case _:
                return b""

    def _leave_out(self, what: str) -> None:
        self.left_out[what] = self.left_out.get(what, 0) + 1


def cleaned(name: bytes) -> bytes | None:
    """``name`` relative to the root, without ``.`` and doubled slashes; ``None`` for the root itself.

    Raises:
        InvalidArgument: It climbs, or no file system would take it.
    """
    parts = [part for part in name.split(b"/") if part not in {b"", b"."}]
    if b".." in parts or b"\0" in name:
        raise _refused(name, "its name leads out of the archive")
    if len(name) > PATH_BYTES_MAX or len(parts) > DEPTH_MAX:
        raise _refused(name, "its path is too long or too deep")
    if any(len(part) > COMPONENT_BYTES_MAX for part in parts):
        raise _refused(name, f"a part of its path is longer than {COMPONENT_BYTES_MAX} bytes")
    return b"/".join(parts) or None


def kept_xattrs(xattrs: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
    """What of ``xattrs`` belongs to a layer: ``user.*`` and capabilities, these without the id of a namespace's root."""
    if not xattrs:
        return xattrs
    kept = {
        name: value
        for name, value in xattrs.items()
        if name.startswith(XATTR_USER) and not name.startswith(XATTR_USER_OVERLAY)
    }
    capability = _capability(xattrs.get(XATTR_CAPABILITY, b""))
    return kept | {XATTR_CAPABILITY: capability} if capability else kept


def _capability(value: bytes) -> bytes:
    """``vfs_cap_data`` in its revision 2 (linux/capability.h); nothing when it is none."""
    if len(value) not in {_CAPABILITY_V2.size, _CAPABILITY_V3.size}:
        return b""
    words = _CAPABILITY_V2.unpack_from(value)
    if words[0] & _REVISION_MASK not in {_REVISION_2, _REVISION_3}:
        return b""
    return _CAPABILITY_V2.pack(words[0] & ~_REVISION_MASK | _REVISION_2, *words[1:])


def _id(number: int, path: bytes) -> int:
    if number > ID_MAX:
        raise _refused(path, f"it belongs to {number}; ids in a layer are at most {ID_MAX}")
    return number


def _shown(name: bytes) -> str:
    return name.decode(errors="backslashreplace")[:200]


def _refused(name: bytes, why: str) -> InvalidArgument:
    return InvalidArgument(f"cannot unpack {_shown(name) or 'a member without a name'}: {why}")


def _full(what: str) -> ResourceExhausted:
    return ResourceExhausted(
        f"cannot unpack the layer: it holds {what}",
        hint="an administrator can raise store.layer_bytes_max and store.layer_entries_max in the settings",
    )
