"""Messages of the name service, as bytes: what is asked, and what is answered. Pure.

Words: a **query** is a message that asks one plain question; it is **forwarded** as it came, and **answered** with
records of ours.

Rules: any bytes are a query or None, never an error. Only what is needed is read: one question, and the OPT record that
says how long an answer may be. An answer begins with the question as it was asked, in the same letter case, so names in
records are a pointer to it. What does not fit is left out, and the client told so (TC), who asks again over TCP.

RFC 1035 section 4, RFC 3596, RFC 6891, RFC 8482.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

import attrs

from supervisor.network.names import Address

TTL_SECONDS = 600
"""How long an answer of ours may be kept; as dockerd's."""

MESSAGE_BYTES_MAX = 65_535

_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHHIH")
_OPT = struct.Struct("!BHHIH")
_QUESTION_TAIL = struct.Struct("!HH")
_NUMBER = struct.Struct("!H")
_RESPONSE, _OPCODE, _TRUNCATED = 0x8000, 0x7800, 0x0200
_RECURSION_DESIRED, _RECURSION_AVAILABLE, _CODE = 0x0100, 0x0080, 0x000F
_POINTER_TO_QUESTION = 0xC000 | _HEADER.size
_INTERNET, _ANY_CLASS, _OPT_TYPE = 1, 255, 41
_LABEL_BYTES_MAX, _NAME_BYTES_MAX = 63, 255
_PLAIN_BYTES_MAX, _EXTENDED_BYTES_MAX = 512, 1232
"""Of a datagram: without EDNS, and what is sure not to be fragmented with it."""


class Code(IntEnum):
    """How a question ended."""

    NO_ERROR = 0
    SERVER_FAILURE = 2
    REFUSED = 5


class Kind(IntEnum):
    """The types of records we have; whatever else is asked of a name of ours has none."""

    A = 1
    PTR = 12
    AAAA = 28
    ANY = 255


@attrs.frozen
class Question:
    """The one question of a message.

    Attributes:
        wire: Name in lower case, type and class, as on the wire.
        end: Where it ends in the message.
    """

    wire: bytes
    end: int

    @property
    def kind(self) -> int:
        """The type asked for."""
        return int(_QUESTION_TAIL.unpack_from(self.wire, len(self.wire) - 4)[0])

    @property
    def internet(self) -> bool:
        """Whether it is of the class that our records have."""
        return _QUESTION_TAIL.unpack_from(self.wire, len(self.wire) - 4)[1] in {
            _INTERNET,
            _ANY_CLASS,
        }

    @property
    def name(self) -> str:
        """The name in lower case, without a dot at its end; what is not UTF-8 in it is no name of ours."""
        labels, offset = [], 0
        while length := self.wire[offset]:
            labels.append(self.wire[offset + 1 : offset + 1 + length])
            offset += 1 + length
        return b".".join(labels).decode(errors="replace")

    @property
    def reverse(self) -> Address | None:
        """The address whose name is asked for; None when the name is no such question."""
        labels = self.name.split(".")
        match labels[-2:]:
            case ["in-addr", "arpa"]:
                text = ".".join(reversed(labels[:-2]))
                return _parsed(text, IPv4Address)
            case ["ip6", "arpa"] if all(len(digit) == 1 for digit in labels[:-2]):
                digits = "".join(reversed(labels[:-2]))
                groups = (digits[start : start + 4] for start in range(0, len(digits), 4))
                return _parsed(":".join(groups), IPv6Address) if len(digits) == 32 else None  # noqa: PLR2004  # of 128 bits
            case _:
                return None


def question_of(message: bytes) -> Question | None:
    """The question of a message that holds exactly one, uncompressed; None for anything else."""
    if len(message) < _HEADER.size or _HEADER.unpack_from(message)[2] != 1:
        return None
    offset = _HEADER.size
    while True:
        if offset >= len(message):
            return None
        length = message[offset]
        offset += 1 + length
        if length == 0:
            break
        if length > _LABEL_BYTES_MAX or offset - _HEADER.size >= _NAME_BYTES_MAX:
            return None
    end = offset + _QUESTION_TAIL.size
    if end > len(message):
        return None
    return Question(message[_HEADER.size : offset].lower() + message[offset:end], end)


def query_of(message: bytes) -> Question | None:
    """The question of a query; None for what is a response, an update, a notification, or nothing at all."""
    question = question_of(message)
    if question is None:
        return None
    _, flags, _, answers, _, _ = _HEADER.unpack_from(message)
    return None if flags & (_RESPONSE | _OPCODE) or answers else question


def is_reply_to(reply: bytes, number: int, question: Question) -> bool:
    """Whether a message replies to our question with that id."""
    asked = question_of(reply)
    if asked is None or asked.wire != question.wire:
        return False
    got, flags, *_ = _HEADER.unpack_from(reply)
    return got == number and bool(flags & _RESPONSE)


def numbered(message: bytes, number: int) -> bytes:
    """The message with that id."""
    return _NUMBER.pack(number) + message[_NUMBER.size :]


def number_of(message: bytes) -> int:
    """The id of a message."""
    return int(_NUMBER.unpack_from(message)[0])


def is_truncated(reply: bytes) -> bool:
    """Whether there is more than would fit."""
    return bool(_HEADER.unpack_from(reply)[1] & _TRUNCATED)


def is_of_no_help(reply: bytes) -> bool:
    """Whether the server that sent it could not, or would not, look: another may."""
    return _HEADER.unpack_from(reply)[1] & _CODE in {Code.SERVER_FAILURE, Code.REFUSED}


def datagram_bytes_max(query: bytes, question: Question) -> int:
    """How long an answer to a datagram may be: what its OPT record says, within bounds."""
    size = _extended(query, question)
    return (
        _PLAIN_BYTES_MAX if size is None else min(max(size, _PLAIN_BYTES_MAX), _EXTENDED_BYTES_MAX)
    )


def answer(
    query: bytes,
    question: Question,
    records: Iterable[bytes] = (),
    *,
    bytes_max: int = MESSAGE_BYTES_MAX,
    code: Code = Code.NO_ERROR,
) -> bytes:
    """The answer to a query.

    Args:
        query: As it came.
        question: Of it.
        records: From :func:`address_records` or :func:`name_records`; none at all says that the name has none such.
        bytes_max: Records that do not fit are left out, and the answer marked.
        code: What else there is to say.
    """
    number, flags, *_ = _HEADER.unpack_from(query)
    extension = b""
    if _extended(query, question) is not None:
        extension = _OPT.pack(0, _OPT_TYPE, _EXTENDED_BYTES_MAX, 0, 0)
    room = bytes_max - question.end - len(extension)
    fitting, left_out = [], 0
    for record in records:
        room -= len(record)
        if room < 0:
            left_out = _TRUNCATED
            break
        fitting.append(record)
    said = _RESPONSE | left_out | (flags & _RECURSION_DESIRED) | _RECURSION_AVAILABLE | code
    head = _HEADER.pack(number, said, 1, len(fitting), 0, 1 if extension else 0)
    return b"".join((head, query[_HEADER.size : question.end], *fitting, extension))


def address_records(kind: int, addresses: Sequence[Address]) -> list[bytes]:
    """What is said of a name at those addresses when ``kind`` is asked for."""
    return [
        _record(own, address.packed)
        for address in addresses
        for own in (Kind.A if address.version == 4 else Kind.AAAA,)  # noqa: PLR2004  # of the protocol
        if kind in {own, Kind.ANY}
    ]


def name_records(kind: int, names: Sequence[str]) -> list[bytes]:
    """What is said of an address with those names; one that no message can hold is left out."""
    if kind not in {Kind.PTR, Kind.ANY}:
        return []
    written = (_written(name) for name in names)
    return [_record(Kind.PTR, name) for name in written if name is not None]


def _record(kind: Kind, data: bytes) -> bytes:
    return _RECORD.pack(_POINTER_TO_QUESTION, kind, _INTERNET, TTL_SECONDS, len(data)) + data


def _written(name: str) -> bytes | None:
    labels = [label.encode() for label in name.split(".")]
    if any(not 0 < len(label) <= _LABEL_BYTES_MAX for label in labels):
        return None
    wire = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return wire if len(wire) <= _NAME_BYTES_MAX else None


def _extended(query: bytes, question: Question) -> int | None:
    """What the client says it can take (EDNS); None when it says nothing, or nothing that makes sense."""
    _, _, _, answers, authorities, additional = _HEADER.unpack_from(query)
    if answers or authorities or not additional or len(query) < question.end + _OPT.size:
        return None
    root, kind, size, _, _ = _OPT.unpack_from(query, question.end)
    return int(size) if not root and kind == _OPT_TYPE else None


def _parsed(text: str, family: type[IPv4Address] | type[IPv6Address]) -> Address | None:
    try:
        return family(text)
    except ValueError:
        return None
