"""What the kernel remembers of connections it translates, and making it forget some.

A remembered connection goes on to where it was led once, also when the address has become another container's and the
port another owner's: datagrams from the same port keep it alive for ever. So what was led to an address is forgotten
before that is given out again, and all of a subnet before it is another network's.

Looking costs the kernel milliseconds, whatever there is: it walks through all it remembers.

linux/netfilter/nfnetlink_conntrack.h. Since 5.8 the kernel looks for an IPv4 address itself; before, it tells everything.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

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
_TUPLE_ADDRESSES = 1
_SOURCES = {4: 1, 6: 3}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_BY_SOURCE = 1
_NESTED, _KIND = 0x8000, 0x3FFF
_RECEIVE_BYTES = 262_144
_KERNEL_SECONDS = 10.0

Attributes = dict[int, bytes]
Address = IPv4Address | IPv6Address
Subnet = IPv4Network | IPv6Network


async def forget_led_to(addresses: Iterable[Address], sock: socket.socket | None = None) -> int:
    """No connection that was led to one of these is remembered; how many there were.

    Args:
        addresses: Containers'.
        sock: A netfilter netlink socket that is used meanwhile; None for one in the daemon's own namespace.

    Raises:
        Internal: The kernel refuses.
    """
    return await _forget([(ip_network(one), (_REPLY,)) for one in addresses], sock)


async def forget_all_of(subnets: Iterable[Subnet], sock: socket.socket | None = None) -> int:
    """No connection that began in one of these, or was led there, is remembered; how many there were.

    Raises:
        Internal: The kernel refuses.
    """
    return await _forget([(one, (_ORIGINAL, _REPLY)) for one in subnets], sock)


async def _forget(
    wanted: Sequence[tuple[Subnet, tuple[int, ...]]], sock: socket.socket | None
) -> int:
    if not wanted:
        return 0

    def work() -> int:
        used = sock or socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
        )
        try:
            used.settimeout(_KERNEL_SECONDS)
            return sum(_forget_in(used, subnet, sides) for subnet, sides in wanted)
        finally:
            if sock is None:
                used.close()

    try:
        return await in_thread(work)
    except OSError as failure:
        raise Internal(f"cannot forget connections: {failure.strerror}") from failure


def _forget_in(sock: socket.socket, subnet: Subnet, sides: tuple[int, ...]) -> int:
    """Those in which the packets of one of the sides come from there."""
    found = [entry for entry in _remembered(sock, subnet, sides) if _is_from(entry, subnet, sides)]
    for entry in found:
        kept = b"".join(
            _attribute(kind, entry[kind]) for kind in (_ORIGINAL, _ZONE) if kind in entry
        )
        for number, _ in _ask(sock, _DELETE, _ACK, subnet, kept):
            if number not in {0, errno.ENOENT}:  # it ended by itself
                raise OSError(number, os.strerror(number))
    return len(found)


def _remembered(
    sock: socket.socket, subnet: Subnet, sides: tuple[int, ...]
) -> Iterator[Attributes]:
    asked = b""
    # For IPv6 kernels up to 6.18 at least tell all but the wanted.
    if isinstance(subnet, IPv4Network) and subnet.num_addresses == 1 and len(sides) == 1:
        source = _attribute(_SOURCES[subnet.version], subnet.network_address.packed)
        flags = _attribute(sides[0], struct.pack("=I", _BY_SOURCE))
        asked = _nested(sides[0], _nested(_TUPLE_ADDRESSES, source)) + _nested(_FILTER, flags)
    for number, payload in _ask(sock, _GET, _DUMP, subnet, asked):
        if number:
            raise OSError(number, os.strerror(number))
        if payload:
            yield _attributes(payload[_NFGEN.size :])


def _is_from(entry: Attributes, subnet: Subnet, sides: tuple[int, ...]) -> bool:
    size = subnet.max_prefixlen // 8
    for side in sides:
        ends = _attributes(_attributes(entry.get(side, b"")).get(_TUPLE_ADDRESSES, b""))
        source = ends.get(_SOURCES[subnet.version], b"")
        if len(source) == size and ip_address(source) in subnet:
            return True
    return False


def _ask(
    sock: socket.socket, kind: int, flags: int, subnet: Subnet, body: bytes
) -> Iterator[tuple[int, bytes]]:
    """The answers to one request: error numbers (0 for done), and what is remembered."""
    head = _NFGEN.pack(_FAMILIES[subnet.version], 0, 0)
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
