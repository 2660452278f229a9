"""The tar format, read strictly and written the same way every time (POSIX pax; pax(1), tar(5) of libarchive).

Words:
    member: One entry of an archive: a header, extension headers before it, content after it.

Rules:
    Reading: anything not fully understood is an InvalidArgument, so that no other program can read an archive otherwise
        than we did; what is handed on to one is always written anew by :func:`gnu_header`.
    Writing: the same members give the same bytes (:func:`pax_header`), because layers are known by their digest.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator, Mapping

import attrs

from supervisor.errors import InvalidArgument

BLOCK_BYTES = 512
EXTENSION_BYTES_MAX = 1 << 20
CHUNK_BYTES = 1 << 20
END = bytes(2 * BLOCK_BYTES)

_ZERO_BLOCK = bytes(BLOCK_BYTES)
_XATTR = b"SCHILY.xattr."
_NAME_BYTES = 100
_BLANK_CHECKSUM = b"        "
_RECORD_LENGTH = re.compile(rb"([1-9][0-9]{0,8}) ")
_NUMBER = re.compile(rb"-?[0-9]{1,19}")
_TIME = re.compile(rb"(-?[0-9]{1,15})(?:\.[0-9]*)?")
_IGNORED_GLOBALS = frozenset({b"comment"})


class Kind(enum.Enum):
    """What a member is; the value is its type flag."""

    FILE = b"0"
    HARD_LINK = b"1"
    SYMBOLIC_LINK = b"2"
    CHARACTER_DEVICE = b"3"
    BLOCK_DEVICE = b"4"
    DIRECTORY = b"5"
    FIFO = b"6"


_KINDS: Mapping[bytes, Kind] = {kind.value: kind for kind in Kind} | {
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
}


@attrs.frozen
class Member:
    """One member. ``mtime`` is in whole seconds; ``size`` is 0 for all but files."""

    name: bytes
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    link: bytes = b""
    xattrs: Mapping[bytes, bytes] = attrs.field(factory=dict)


@attrs.define(eq=False)
class Reader:
    """Reads members one after the other from ``source``, which gives up to n bytes, none at the end.

    Attributes:
        position: How many bytes were read: after :meth:`next`, where the member's content begins.
    """

    _source: Callable[[int], bytes]
    position: int = 0
    _left: int = 0
    _padding: int = 0

    def next(self) -> Member | None:
        """The next member, skipping what is left of the one before; ``None`` at the end.

        Raises:
            InvalidArgument: It is no tar, ends early, or holds what we do not know.
        """
        for _ in self.content():
            pass
        extensions: dict[bytes, bytes] = {}
        while (block := self._block()) is not None:
            flag = block[156:157]
            if flag in {b"x", b"X"}:
                extensions |= _records(self._extension(block))
            elif flag == b"g":
                _check_global(_records(self._extension(block)))
            elif flag in {b"L", b"K"}:
                key = b"path" if flag == b"L" else b"linkpath"
                extensions[key] = self._extension(block).rstrip(b"\0")
            else:
                return self._member(block, extensions)
        if extensions:
            raise _wrong("it ends within a member")
        return None

    def content(self) -> Iterator[bytes]:
        """What is left of the last member's content, in pieces of at most :data:`CHUNK_BYTES`.

        Raises:
            InvalidArgument: The archive ends before it.
        """
        while self._left:
            piece = self._read(min(self._left, CHUNK_BYTES))
            if not piece:
                raise _wrong("it ends within a member: a size in it lies, or it was cut off")
            self._left -= len(piece)
            yield piece
        if self._padding:
            padding, self._padding = self._padding, 0
            self._exactly(padding)

    def _member(self, block: bytes, extensions: Mapping[bytes, bytes]) -> Member:
        member = _member(block, extensions)
        self._left, self._padding = member.size, -member.size % BLOCK_BYTES
        return member

    def _extension(self, block: bytes) -> bytes:
        size = _number(block[124:136], "size")
        if not 0 <= size <= EXTENSION_BYTES_MAX:
            message = f"an extension header of {size} bytes; at most {EXTENSION_BYTES_MAX} are read"
            raise _wrong(message)
        data = self._exactly(size)
        self._exactly(-size % BLOCK_BYTES)
        return data

    def _block(self) -> bytes | None:
        """The next header block; ``None`` at two zero blocks, or at the end of the file between members."""
        block = self._read(BLOCK_BYTES)
        if not block:
            return None
        if len(block) < BLOCK_BYTES:
            block += self._exactly(BLOCK_BYTES - len(block))
        if block == _ZERO_BLOCK:
            if self._read(BLOCK_BYTES).strip(b"\0"):
                raise _wrong("there is something after a lone zero block")
            return None
        stored = _number(block[148:156], "checksum")
        if stored != sum(block[:148]) + sum(block[156:]) + sum(_BLANK_CHECKSUM):
            raise _wrong("a header's checksum is wrong")
        return block

    def _read(self, size: int) -> bytes:
        data = self._source(size)
        self.position += len(data)
        return data

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._read(size - len(data))
            if not piece:
                raise _wrong("it ends within a member: a size in it lies, or it was cut off")
            data = data + piece if data else piece
        return data


def pax_header(member: Member) -> bytes:
    """The member's header blocks in POSIX pax form: the same bytes for the same member."""
    records = {_XATTR + name: value for name, value in member.xattrs.items()}
    if len(member.name) > _NAME_BYTES:
        records[b"path"] = member.name
    if len(member.link) > _NAME_BYTES:
        records[b"linkpath"] = member.link
    numbers = (
        (b"uid", member.uid, 7),
        (b"gid", member.gid, 7),
        (b"size", member.size, 11),
        (b"mtime", member.mtime, 11),
    )
    for key, value, digits in numbers:
        if not 0 <= value < 8**digits:
            records[key] = b"%d" % value
    plain = _ustar(member, lambda value, digits: value if 0 <= value < 8**digits else 0)
    return _extended(records) + plain


def gnu_header(member: Member) -> bytes:
    """The member's header blocks as GNU tar reads them byte for byte: long names outside of pax, which it would convert."""
    blocks = _extended({_XATTR + name: value for name, value in member.xattrs.items()})
    for flag, text in ((b"K", member.link), (b"L", member.name)):
        if len(text) > _NAME_BYTES:
            blocks += _block(b"././@LongLink", flag, len(text) + 1) + _padded(text + b"\0")
    return blocks + _ustar(member, lambda value, _: value)


def padding(size: int) -> bytes:
    """What follows ``size`` bytes of content."""
    return bytes(-size % BLOCK_BYTES)


def _member(block: bytes, extensions: Mapping[bytes, bytes]) -> Member:
    if any(key.startswith(b"GNU.sparse") for key in extensions):
        raise _wrong("it holds a sparse file; write it without --sparse")
    name = extensions.get(b"path", _name(block))
    kind = _KINDS.get(block[156:157])
    if kind is None:
        message = f"a member of type {block[156:157]!r}, which is not known"
        raise _wrong(message)
    if kind is Kind.FILE and name.endswith(b"/"):
        kind = Kind.DIRECTORY  # as tar wrote them before there was a type for it
    size = _extended_number(extensions, b"size", block[124:136])
    link = extensions.get(b"linkpath", _text(block[157:257]))
    return Member(
        name=name,
        kind=kind,
        mode=_number(block[100:108], "mode") & 0o7777,
        uid=_extended_number(extensions, b"uid", block[108:116]),
        gid=_extended_number(extensions, b"gid", block[116:124]),
        mtime=_mtime(extensions, block),
        size=size if kind is Kind.FILE else 0,
        link=link if kind in {Kind.HARD_LINK, Kind.SYMBOLIC_LINK} else b"",
        xattrs={
            key.removeprefix(_XATTR): value
            for key, value in extensions.items()
            if key.startswith(_XATTR)
        },
    )


def _name(block: bytes) -> bytes:
    name = _text(block[:100])
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _mtime(extensions: Mapping[bytes, bytes], block: bytes) -> int:
    if b"mtime" not in extensions:
        return _number(block[136:148], "mtime")
    match = _TIME.fullmatch(extensions[b"mtime"])
    if match is None:
        raise _wrong("a time is not a number")
    return int(match.group(1))


def _extended_number(extensions: Mapping[bytes, bytes], key: bytes, field: bytes) -> int:
    if key in extensions:
        if not _NUMBER.fullmatch(extensions[key]):
            message = f"{key.decode()} is not a number"
            raise _wrong(message)
        value = int(extensions[key])
    else:
        value = _number(field, key.decode())
    if value < 0:
        message = f"{key.decode()} is negative"
        raise _wrong(message)
    return value


def _number(field: bytes, what: str) -> int:
    """Octal digits, or GNU's base 256 with the highest bit set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = 8 * len(field)
        return value - (1 << bits) if field[0] == 0xFF else value - (1 << (bits - 1))  # noqa: PLR2004
    digits = field.strip(b" \0")
    if digits.strip(b"01234567"):
        message = f"a {what} is not a number"
        raise _wrong(message)
    return int(digits or b"0", 8)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _records(data: bytes) -> dict[bytes, bytes]:
    """The records of a pax extension header: length, blank, key, ``=``, value, newline; the length counting all of it."""
    found: dict[bytes, bytes] = {}
    position = 0
    data = data.rstrip(b"\0")
    while position < len(data):
        match = _RECORD_LENGTH.match(data, position)
        end = position + int(match.group(1)) if match else 0
        if match is None or end > len(data) or end <= match.end() or data[end - 1 : end] != b"\n":
            raise _wrong("an extension header is damaged")
        key, equals, value = data[match.end() : end - 1].partition(b"=")
        if not equals or not key or b"\0" in key:
            raise _wrong("an extension header is damaged")
        if b"\0" in value and not key.startswith(_XATTR):
            raise _wrong("there is a NUL in an extension header")
        found[key] = value
        position = end
    return found


def _check_global(records: Mapping[bytes, bytes]) -> None:
    """Global headers that would change members are refused: programs differ in what they make of them."""
    known = _IGNORED_GLOBALS | {b"atime", b"ctime", b"charset"}
    if any(key not in known for key in records):
        raise _wrong("it holds a global header that changes its members")


def _extended(records: Mapping[bytes, bytes]) -> bytes:
    if not records:
        return b""
    data = b"".join(_record(key, records[key]) for key in sorted(records))
    return _block(b"PaxHeaders/x", b"x", len(data)) + _padded(data)


def _record(key: bytes, value: bytes) -> bytes:
    body = len(key) + len(value) + 3  # a blank, an equals sign, a newline
    length = body + len(str(body))
    if len(str(length)) > len(str(body)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def _ustar(member: Member, fitted: Callable[[int, int], int]) -> bytes:
    return _block(
        member.name[:_NAME_BYTES],
        member.kind.value,
        fitted(member.size, 11),
        mode=member.mode,
        uid=fitted(member.uid, 7),
        gid=fitted(member.gid, 7),
        mtime=fitted(member.mtime, 11),
        link=member.link[:_NAME_BYTES],
    )


def _block(  # noqa: PLR0913  # the fields of a header
    name: bytes,
    flag: bytes,
    size: int,
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 0,
    link: bytes = b"",
) -> bytes:
    front = b"%s%s%s%s%s%s" % (
        name.ljust(_NAME_BYTES, b"\0"),
        _field(mode, 8),
        _field(uid, 8),
        _field(gid, 8),
        _field(size, 12),
        _field(mtime, 12),
    )
    back = b"%s%sustar\x0000" % (flag, link.ljust(_NAME_BYTES, b"\0"))
    checksum = sum(front) + sum(_BLANK_CHECKSUM) + sum(back)
    return (b"%s%06o\0 %s" % (front, checksum, back)).ljust(BLOCK_BYTES, b"\0")


def _field(value: int, width: int) -> bytes:
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return (value + (1 << (8 * width)) if value < 0 else value + (1 << (8 * width - 1))).to_bytes(
        width, "big"
    )


def _padded(data: bytes) -> bytes:
    return data + padding(len(data))


def _wrong(why: str) -> InvalidArgument:
    return InvalidArgument(f"cannot read the archive: {why}")
