"""What the kernel remembers of connections it translates, and making it forget those of an address.

A remembered connection goes on to where it was led once, also when the address has become another container's and the
port another owner's: datagrams from the same port keep it alive for ever. So an address is forgotten before it is given
out again.

linux/netfilter/nfnetlink_conntrack.h. Since 5.8 the kernel looks for an IPv4 address itself; before, it tells everything.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address

from supervisor.errors import Internal
from supervisor.tasks import in_thread

_NETLINK_NETFILTER = 12
_NLMSG = struct.Struct("=IHHII")
_NFGEN = struct.Struct("!BBH")
_NUMBER = struct.Struct("=i")
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NEW, _GET, _DELETE = 0x100, 0x101, 0x102
_ORIGINAL, _REPLY, _ZONE, _FILTER = 1, 2, 18, 25
_SIDES = (_ORIGINAL, _REPLY)
_TUPLE_ADDRESSES = 1
_SOURCES = {4: 1, 6: 3}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_BY_SOURCE = 1
_NESTED, _KIND = 0x8000, 0x3FFF
_RECEIVE_BYTES = 262_144
_KERNEL_SECONDS = 10.0

Attributes = dict[int, bytes]


async def forget(
    addresses: Iterable[IPv4Address | IPv6Address], sock: socket.socket | None = None
) -> int:
    """No connection that an address began, or that was led to it, is remembered; how many there were.

    Args:
        addresses: Containers'.
        sock: A netfilter netlink socket that is used meanwhile; None for one in the daemon's own namespace.

    Raises:
        Internal: The kernel refuses.
    """
    wanted = list(addresses)
    if not wanted:
        return 0

    def work() -> int:
        used = sock or socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
        )
        try:
            used.settimeout(_KERNEL_SECONDS)
            return sum(_forget(used, address, side) for address in wanted for side in _SIDES)
        finally:
            if sock is None:
                used.close()

    try:
        return await in_thread(work)
    except OSError as failure:
        raise Internal(f"cannot forget connections: {failure.strerror}") from failure


def _forget(sock: socket.socket, address: IPv4Address | IPv6Address, side: int) -> int:
    """Those in which the packets of one side come from the address."""
    found = [entry for entry in _remembered(sock, address, side) if _is_from(entry, address, side)]
    for entry in found:
        kept = b"".join(
            _attribute(kind, entry[kind]) for kind in (_ORIGINAL, _ZONE) if kind in entry
        )
        refused = _ask(sock, _DELETE, _ACK, address, kept)
        for number, _ in refused:
            if number not in {0, errno.ENOENT}:  # it ended by itself
                raise OSError(number, os.strerror(number))
    return len(found)


def _remembered(
    sock: socket.socket, address: IPv4Address | IPv6Address, side: int
) -> Iterator[Attributes]:
    asked = b""
    if isinstance(
        address, IPv4Address
    ):  # for IPv6 kernels up to 6.18 at least tell all but the wanted
        source = _attribute(_SOURCES[address.version], address.packed)
        flags = _attribute(side, struct.pack("=I", _BY_SOURCE))
        asked = _nested(side, _nested(_TUPLE_ADDRESSES, source)) + _nested(_FILTER, flags)
    for number, payload in _ask(sock, _GET, _DUMP, address, asked):
        if number:
            raise OSError(number, os.strerror(number))
        if payload:
            yield _attributes(payload[_NFGEN.size :])


def _is_from(entry: Attributes, address: IPv4Address | IPv6Address, side: int) -> bool:
    ends = _attributes(_attributes(entry.get(side, b"")).get(_TUPLE_ADDRESSES, b""))
    return ends.get(_SOURCES[address.version]) == address.packed


def _ask(
    sock: socket.socket, kind: int, flags: int, address: IPv4Address | IPv6Address, body: bytes
) -> Iterator[tuple[int, bytes]]:
    """The answers to one request: error numbers (0 for done), and what is remembered."""
    head = _NFGEN.pack(_FAMILIES[address.version], 0, 0)
    length = _NLMSG.size + len(head) + len(body)
    sock.send(_NLMSG.pack(length, kind, flags | _REQUEST, 0, 0) + head + body)
    while True:
        for answer, payload in _messages(sock.recv(_RECEIVE_BYTES)):
            if answer == _NLMSG_ERROR:
                yield -_NUMBER.unpack_from(payload)[0], b""
                return
            if answer == _NLMSG_DONE:
                return
            if answer == _NEW:
                yield 0, payload


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _NLMSG.size <= len(data):
        length, kind, *_ = _NLMSG.unpack_from(data, offset)
        yield kind, data[offset + _NLMSG.size : offset + length]
        offset += max((length + 3) & ~3, _NLMSG.size)


def _attributes(data: bytes) -> Attributes:
    found: Attributes = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:  # noqa: PLR2004  # the header alone
            break
        found[kind & _KIND] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def _nested(kind: int, inner: bytes) -> bytes:
    return _attribute(kind | _NESTED, inner)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)
