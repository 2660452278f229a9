"""Links, addresses and routes, asked of the kernel over rtnetlink.

Words: a **request** is one message with the sentence that says what it is for; a **batch** goes out in one send and has
one acknowledgement for each request; a **port** is the host's end of a veth pair in a bridge.

Rules:

* Requests are values made by the functions below; only :class:`Netlink` does anything.
* Every verb is idempotent: what is already so is success.
* Sending is where the kernel works, under its one routing lock, which the end of any network namespace holds for tens
  of milliseconds. So it is done in a thread, never in the event loop.
* A batch is not a transaction: all of it is tried, and the first failure is told.

rtnetlink(7), linux/if_link.h, linux/rtnetlink.h.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
import struct
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TypeVar

import attrs
import trio

from supervisor.errors import Internal
from supervisor.tasks import in_thread

T = TypeVar("T")


def _bare_package(name: str) -> None:
    """Stand in for a package's ``__init__``, so that its modules can be had without everything it imports.

    All of pyroute2 costs 150 ms and 16 MB (asyncio, ssl, multiprocessing); its message classes 12 ms and 1 MB.
    """
    found = importlib.util.find_spec(name)
    assert found is not None
    assert found.submodule_search_locations is not None
    package = types.ModuleType(name)
    package.__path__ = list(found.submodule_search_locations)
    package.__spec__ = found
    sys.modules[name] = package


_standing_in = "pyroute2" not in sys.modules
if _standing_in:
    _bare_package("pyroute2")
try:
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
    from pyroute2.netlink.rtnl.rtmsg import rtmsg
finally:
    if _standing_in:
        del sys.modules["pyroute2"]  # who wants all of it later shall get it

LINK_NAME_BYTES_MAX = 15
"""IFNAMSIZ without the closing zero."""

_LINKS = trio.CapacityLimiter(4)
"""Threads that may wait for the kernel's routing lock at once."""

_RECEIVE_BYTES = 262_144

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _NEWROUTE, _DELROUTE, _GETROUTE = 20, 24, 25, 26
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_REPLACE, _EXCL, _CREATE = 0x100, 0x200, 0x400
_ACK_HAS_TLVS, _ACK_CAPPED = 0x200, 0x100
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _STRICT_CHECK = 270, 10, 11, 12
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER = 1, 3, 10
_IFLA_NET_NS_FD, _IFLA_EXT_MASK, _SKIP_STATS = 28, 29, 1 << 3
_RTA_DST, _RTA_TABLE = 1, 15
_TABLE_MAIN, _PROTO_STATIC, _TYPE_UNICAST = 254, 4, 1
_IFF_UP = 1
_IFA_F_NODAD = 0x02
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ROUTE = struct.Struct("=BBBBBBBBI")


class NetlinkRefused(Internal):
    """The kernel refused one request of a batch. ``errno`` says why."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.errno = number


@attrs.frozen
class Request:
    """One message to the kernel.

    Attributes:
        purpose: Completes ``cannot …`` in the error.
        kind: Message type.
        flags: Beside "request" and "acknowledge".
        payload: All after the netlink header.
        fine: Error numbers that mean it is already so.
    """

    purpose: str
    kind: int
    flags: int
    payload: bytes
    fine: frozenset[int] = frozenset()


@attrs.frozen
class Link:
    """A link as the kernel lists it; ``master`` is the index of its bridge, 0 for none."""

    index: int
    name: str
    up: bool
    master: int
    mac: str


def bridge(name: str, mac: str, mtu: int = 0) -> Request:
    """Make a bridge that is up. Its address is given, else it would change with its ports and stale every ARP entry.

    Args:
        name: Of the link.
        mac: Its address.
        mtu: Largest packet, bytes; 0 for the kernel's default.
    """
    message = ifinfmsg()
    message["flags"] = message["change"] = _IFF_UP
    message["attrs"] = [
        ("IFLA_IFNAME", name),
        ("IFLA_ADDRESS", mac),
        *_mtu(mtu),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge")]}),
    ]
    return _request(f"make bridge {name}", _NEWLINK, _CREATE | _EXCL, message, errno.EEXIST)


def veth(  # two ends of one pair
    name: str, peer_name: str, peer_netns: int, master: int, mac: str, mtu: int = 0
) -> Request:
    """Make a pair: ``name``, up, a port of the bridge with index ``master``; its peer in another network namespace.

    Args:
        name: Of the host's end.
        peer_name: Of the other.
        peer_netns: Descriptor of the other end's network namespace.
        master: Index of the bridge.
        mac: Of the peer.
        mtu: Of both; 0 for the kernel's default.
    """
    peer: Mapping[str, object] = {
        "attrs": [
            ("IFLA_IFNAME", peer_name),
            ("IFLA_ADDRESS", mac),
            *_mtu(mtu),
            ("IFLA_NET_NS_FD", peer_netns),
        ]
    }
    message = ifinfmsg()
    message["flags"] = message["change"] = _IFF_UP
    message["attrs"] = [
        ("IFLA_IFNAME", name),
        ("IFLA_MASTER", master),
        *_mtu(mtu),
        (
            "IFLA_LINKINFO",
            {
                "attrs": [
                    ("IFLA_INFO_KIND", "veth"),
                    ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]}),
                ]
            },
        ),
    ]
    return _request(f"make link {name}", _NEWLINK, _CREATE | _EXCL, message, errno.EEXIST)


def _mtu(mtu: int) -> list[tuple[str, int]]:
    return [("IFLA_MTU", mtu)] if mtu else []


def port(name: str, *, hairpin: bool, isolated: bool = False) -> Request:
    """Set how a bridge treats its port: ``hairpin`` lets a frame leave where it came in, ``isolated`` keeps ports apart."""
    data = [("IFLA_BRPORT_MODE", int(hairpin)), ("IFLA_BRPORT_ISOLATED", int(isolated))]
    message = ifinfmsg()
    message["attrs"] = [
        ("IFLA_IFNAME", name),
        (
            "IFLA_LINKINFO",
            {
                "attrs": [
                    ("IFLA_INFO_SLAVE_KIND", "bridge"),
                    ("IFLA_INFO_SLAVE_DATA", {"attrs": data}),
                ]
            },
        ),
    ]
    return _request(f"set up port {name}", _NEWLINK, 0, message)


def up(name: str) -> Request:
    """Bring a link up."""
    message = ifinfmsg()
    message["flags"] = message["change"] = _IFF_UP
    message["attrs"] = [("IFLA_IFNAME", name)]
    return _request(f"bring up {name}", _NEWLINK, 0, message)


def address(index: int, ip: IPv4Address | IPv6Address, prefix_length: int) -> Request:
    """Give a link an address; an IPv6 one at once, without asking the neighbours whether they have it (nodad)."""
    message = ifaddrmsg()
    message["family"] = _family(ip)
    message["prefixlen"] = prefix_length
    message["index"] = index
    message["flags"] = _IFA_F_NODAD if ip.version == 6 else 0  # noqa: PLR2004
    message["attrs"] = [("IFA_LOCAL", str(ip)), ("IFA_ADDRESS", str(ip))]
    purpose = f"give {ip}/{prefix_length} to link {index}"
    return _request(purpose, _NEWADDR, _CREATE | _REPLACE, message)


def default_route(gateway: IPv4Address | IPv6Address, index: int) -> Request:
    """Send what is for elsewhere to ``gateway``, and nowhere else."""
    message = rtmsg()
    message["family"] = _family(gateway)
    message["table"] = _TABLE_MAIN
    message["proto"] = _PROTO_STATIC
    message["type"] = _TYPE_UNICAST
    message["attrs"] = [("RTA_GATEWAY", str(gateway)), ("RTA_OIF", index)]
    return _request(f"route through {gateway}", _NEWROUTE, _CREATE | _REPLACE, message)


def no_default_route(family: socket.AddressFamily) -> Request:
    """Nothing is sent elsewhere."""
    message = rtmsg()
    message["family"] = family
    message["table"] = _TABLE_MAIN
    fine = (
        errno.ESRCH,
        errno.ENOENT,
        errno.EAFNOSUPPORT,
        errno.EOPNOTSUPP,
    )  # none there, or no such kind
    return _request("have no default route", _DELROUTE, 0, message, *fine)


def _family(ip: IPv4Address | IPv6Address) -> socket.AddressFamily:
    return socket.AF_INET if isinstance(ip, IPv4Address) else socket.AF_INET6


def delete(name: str) -> Request:
    """Remove a link, and with a veth its peer. Success when there is none of that name."""
    message = ifinfmsg()
    message["attrs"] = [("IFLA_IFNAME", name)]
    return _request(f"delete link {name}", _DELLINK, 0, message, errno.ENODEV)


BUSY_TRIES_MAX = 64
"""How often a list is asked for while one that nobody reads any more comes to its end."""


class Netlink:
    """One route socket, in the network namespace it was made in.

    Args:
        sock: An ``AF_NETLINK`` route socket; None for a new one in the daemon's own namespace.
    """

    def __init__(self, sock: socket.socket | None = None) -> None:
        raw = sock or socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        for option in (_CAP_ACK, _EXT_ACK, _STRICT_CHECK):
            raw.setsockopt(_SOL_NETLINK, option, 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * _RECEIVE_BYTES)
        raw.setblocking(False)
        self._raw = raw
        self._sock = trio.socket.from_stdlib_socket(raw)
        self._lock = trio.Lock()
        self._sequence = 0
        self._pending: list[tuple[int, int, int, bytes]] = []

    def close(self) -> None:
        """Close the socket; more than once is fine."""
        self._sock.close()

    async def batch(self, requests: Sequence[Request]) -> None:
        """Have all requests done, in order.

        Raises:
            NetlinkRefused: One was refused; later ones were tried all the same.
        """
        if not requests:
            return
        async with self._lock:
            first = await self._send(requests, _ACK)
            refused: NetlinkRefused | None = None
            for _ in requests:
                sequence, _kind, flags, payload = await self._answer(first, {_NLMSG_ERROR})
                refused = refused or _refusal(requests[sequence - first], flags, payload)
        if refused is not None:
            raise refused

    async def index(self, name: str) -> int | None:
        """The index of a link; None when there is none of that name."""
        found = await self.link(name)
        return None if found is None else found.index

    async def link(self, name: str) -> Link | None:
        """A link by its name; None when there is none."""
        payload = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _attribute(
            _IFLA_EXT_MASK, struct.pack("=I", _SKIP_STATS)
        )
        payload += _attribute(_IFLA_IFNAME, name.encode() + b"\0")
        request = Request(f"look up link {name}", _GETLINK, 0, payload)
        async with self._lock:
            first = await self._send([request], 0)
            _, kind, flags, answer = await self._answer(first, {_NLMSG_ERROR, _NEWLINK})
        if kind == _NEWLINK:
            return _link(answer)
        refused = _refusal(request, flags, answer)
        if refused is not None and refused.errno != errno.ENODEV:
            raise refused
        return None

    async def links(self, prefix: str = "") -> list[Link]:
        """The links whose names begin with ``prefix``."""
        payload = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _attribute(
            _IFLA_EXT_MASK, struct.pack("=I", _SKIP_STATS)
        )
        answers = await self._dump(Request("list links", _GETLINK, _DUMP, payload), _NEWLINK)
        return [link for link in map(_link, answers) if link.name.startswith(prefix)]

    async def routes(
        self, family: socket.AddressFamily = socket.AF_INET
    ) -> list[IPv4Network | IPv6Network]:
        """What the main table has routes to, default routes left out; of an IPv6 that is switched off none."""
        payload = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        answers = await self._dump(Request("list routes", _GETROUTE, _DUMP, payload), _NEWROUTE)
        return [network for network in map(_route, answers) if network is not None]

    async def _dump(self, request: Request, wanted: int) -> list[bytes]:
        """All answers to one request.

        A list whose reader was cancelled is still on its way, and the kernel starts no other before its end: every
        message that is read, the refusal itself too, brings that nearer.
        """
        async with self._lock:
            for _ in range(BUSY_TRIES_MAX - 1):
                try:
                    return await self._dump_once(request, wanted)
                except NetlinkRefused as refused:
                    if refused.errno != errno.EBUSY:
                        raise
            return await self._dump_once(request, wanted)

    async def _dump_once(self, request: Request, wanted: int) -> list[bytes]:
        first = await self._send([request], 0)
        answers: list[bytes] = []
        while True:
            _, kind, flags, payload = await self._answer(first, {_NLMSG_ERROR, _NLMSG_DONE, wanted})
            if kind == _NLMSG_DONE:
                return answers
            if kind == wanted:
                answers.append(payload)
            elif (refused := _refusal(request, flags, payload)) is not None:
                raise refused

    async def _send(self, requests: Sequence[Request], flags: int) -> int:
        """Send the requests at once; the sequence number of the first."""
        self._pending = []
        first = self._sequence + 1
        self._sequence += len(requests)
        data = b"".join(
            _HEADER.pack(
                _HEADER.size + len(request.payload),
                request.kind,
                request.flags | flags | _REQUEST,
                first + offset,
                0,
            )
            + request.payload
            for offset, request in enumerate(requests)
        )
        await in_thread(lambda: self._raw.send(data), _LINKS)
        return first

    async def _answer(self, first: int, kinds: set[int]) -> tuple[int, int, int, bytes]:
        """The next message to our requests: sequence, type, flags, payload. Those to cancelled ones are passed over."""
        while True:
            while self._pending:
                answer = self._pending.pop(0)
                if answer[0] >= first and answer[1] in kinds:
                    return answer
            self._pending = list(_messages(await self._sock.recv(_RECEIVE_BYTES)))


def _request(purpose: str, kind: int, flags: int, message: object, *fine: int) -> Request:
    """Encode one of pyroute2's messages; we write the netlink header ourselves."""
    message.encode()  # type: ignore[attr-defined]  # pyroute2's classes are not typed
    data: bytes = bytes(message.data)  # type: ignore[attr-defined]
    return Request(purpose, kind, flags, data[_HEADER.size :], frozenset(fine))


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _attributes(data: bytes, offset: int) -> dict[int, bytes]:
    """The attributes from ``offset`` on. Read by hand: pyroute2 decodes every attribute of a link, a millisecond each."""
    found: dict[int, bytes] = {}
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:  # noqa: PLR2004  # the header alone
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        yield sequence, kind, flags, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _link(payload: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(payload)
    found = _attributes(payload, _LINK.size)
    return Link(
        index=index,
        name=found.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        up=bool(flags & _IFF_UP),
        master=int.from_bytes(found.get(_IFLA_MASTER, b""), sys.byteorder),
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
    )


def _route(payload: bytes) -> IPv4Network | IPv6Network | None:
    _, prefix_length, _, _, table, _, _, _, _ = _ROUTE.unpack_from(payload)
    found = _attributes(payload, _ROUTE.size)
    if _RTA_TABLE in found:
        table = int.from_bytes(found[_RTA_TABLE], sys.byteorder)
    if table != _TABLE_MAIN or _RTA_DST not in found:
        return None
    return ip_network((found[_RTA_DST], prefix_length))


def _refusal(request: Request, flags: int, payload: bytes) -> NetlinkRefused | None:
    """What an acknowledgement says; None for done. The kernel's own words are added where it has some."""
    number = -struct.unpack_from("=i", payload)[0]
    if number == 0 or number in request.fine:
        return None
    said = ""
    if flags & _ACK_HAS_TLVS:
        echoed = _HEADER.size if flags & _ACK_CAPPED else struct.unpack_from("=I", payload, 4)[0]
        words = _attributes(payload, 4 + echoed).get(1, b"")
        said = words.rstrip(b"\0").decode(errors="replace")
    why = os.strerror(number) + (f" ({said})" if said else "")
    return NetlinkRefused(f"cannot {request.purpose}: {why}", number)
