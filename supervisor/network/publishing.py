"""Holding the host's ports that are published.

Words: a **hold** is a socket of ours bound to a host port. While it lives, nobody else can bind that port; that our
bind fails is how we know of a conflict. So no other service's port is ever taken over, and none can slip in under ours.

No packet reaches a held socket: the packet filter has sent it to the container before. Should one come all the same
(the map's element comes a moment after the hold), it is refused at once, not left hanging.

Rules: hold first, then map; unmap first, then let go.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

import attrs

from supervisor.access.quota import admit
from supervisor.access.requests import PortRequest
from supervisor.errors import BakehouseError, Conflict, InvalidArgument, ResourceExhausted

log = logging.getLogger(__name__)

PROTOCOLS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
ANYWHERE, ANYWHERE_IPV6 = IPv4Address(0), IPv6Address(0)
_NAMED = {"": str(ANYWHERE), "localhost": "127.0.0.1"}
_PORT_MAX = 65_535

_NOT_HERE = "that is not an address of this host"


@attrs.frozen
class BoundPort:
    """A published port, as it came out. ``host_address`` 0.0.0.0 stands for every address of the host."""

    container_port: int
    protocol: str
    host_address: str
    host_port: int


@attrs.define(eq=False)
class Hold:
    """A port of the host's that is ours, until :meth:`release`."""

    port: BoundPort
    _socket: socket.socket

    def release(self) -> None:
        """Let go of it; more than once is fine."""
        self._socket.close()


@attrs.define
class Chooser:
    """Where the next port nobody asked for by number is looked for: behind the last one, round and round."""

    first: int
    last: int
    _next: int = attrs.field(init=False, default=0)

    def candidates(self) -> Iterable[int]:
        """Every port of the range, once."""
        count = self.last - self.first + 1
        for _ in range(count):
            port = self.first + self._next
            self._next = (self._next + 1) % count
            yield port


class PortHolders:
    """Which containers have ports published: for the words of a refusal."""

    def __init__(self) -> None:
        self._at: dict[tuple[str, int], dict[str, tuple[int, str, str]]] = {}
        self._counts: Counter[int] = Counter()

    def add(self, container_id: str, name: str, owner: int, ports: Iterable[BoundPort]) -> None:
        """The container, called so, has these."""
        for port in ports:
            at = self._at.setdefault((port.protocol, port.host_port), {})
            self._counts[owner] += container_id not in at
            at[container_id] = (owner, name, port.host_address)

    def remove(self, container_id: str, ports: Iterable[BoundPort]) -> None:
        """It has them no more."""
        for port in ports:
            at = self._at.get((port.protocol, port.host_port), {})
            gone = at.pop(container_id, None)
            if gone is not None:
                self._counts[gone[0]] -= 1
            if not at:
                self._at.pop((port.protocol, port.host_port), None)
        self._counts = +self._counts

    def count(self, owner: int) -> int:
        """How many an owner has; one that is published on several addresses is one."""
        return self._counts[owner]

    def admit(self, owner: int, more: int, allowed: int) -> None:
        """Let an owner publish so many more ports.

        Raises:
            ResourceExhausted: It would be more than they may.
        """
        have = self._counts[owner]
        if not allowed or have + more <= allowed:
            return
        by_name = Counter(
            name for at in self._at.values() for whose, name, _ in at.values() if whose == owner
        )
        most = [f"container {name} has {count}" for name, count in by_name.most_common(1)]
        what = f"publish {more} port{'' if more == 1 else 's'}"
        admit(what, have, allowed, more=more, hint="; ".join((*most, "publish fewer")))

    def told_to(self, owner: int) -> Callable[[str, str, int], str]:
        """Who has a port, as far as ``owner`` may know."""

        def told(protocol: str, address: str, number: int) -> str:
            for whose, name, at in self._at.get((protocol, number), {}).values():
                if whose == owner and overlap(at, address):
                    return f"by container {name}"
            return "on this host"

        return told


def hold_all(
    requests: Iterable[PortRequest],
    chooser: Chooser,
    taken_by: Callable[[str, str, int], str],
    host_address: str = "",
    *,
    ipv6: bool = False,
) -> list[Hold]:
    """Hold every port asked for, or none.

    Args:
        requests: What to publish.
        chooser: For those without a host port.
        taken_by: Who has (protocol, address, port), in the words of the message.
        host_address: For those without one; empty for every address.
        ipv6: The container has an IPv6 address, which they can lead to.

    Raises:
        Conflict: A port is taken.
        InvalidArgument: An address that is not this host's, or not one; a protocol that cannot be published.
        ResourceExhausted: No port is left to choose from.
    """
    holds: list[Hold] = []
    try:
        for request in dict.fromkeys(requests):
            at = request.host_address or host_address
            placed = attrs.evolve(request, host_address=at)
            holds += _hold_one(placed, chooser, taken_by, ipv6=ipv6)
    except BaseException:
        for hold in holds:
            hold.release()
        raise
    return holds


def hold(port: BoundPort) -> Hold:
    """Hold one port.

    Raises:
        OSError: As bind(2) has it: ``EADDRINUSE`` when it is taken.
    """
    ipv6 = ":" in port.host_address
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    sock = socket.socket(family, PROTOCOLS[port.protocol] | socket.SOCK_CLOEXEC)
    try:
        if ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if port.protocol == "tcp":
            _bind_stream(sock, (port.host_address, port.host_port))
        else:
            sock.bind((port.host_address, port.host_port))
    except BaseException:
        sock.close()
        raise
    return Hold(port, sock)


def hold_again(ports: Iterable[BoundPort]) -> list[Hold]:
    """Hold those of the ports that can still be held, after a time in which nobody did; the others are warned of."""
    holds: list[Hold] = []
    for port in ports:
        try:
            holds.append(hold(port))
        except OSError as error:
            number = f"{port.host_port}/{port.protocol}"
            log.warning("published port %s is lost: %s", number, error.strerror)
    return holds


def overlap(one: str, other: str) -> bool:
    """Whether two host addresses have an address in common."""
    one_, other_ = ip_address(one), ip_address(other)
    same_kind = one_.version == other_.version
    return one == other or (same_kind and (one_.is_unspecified or other_.is_unspecified))


def _bind_stream(sock: socket.socket, place: tuple[str, int]) -> None:
    """Bind so that old connections in TIME_WAIT do not matter, other sockets do, and callers are refused.

    SO_REUSEADDR passes over TIME_WAIT; listening makes the kernel check again, against every other socket; taking the
    option back closes the port to others who set it; shutting down leaves the port bound but nobody listening.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(place)
    sock.listen(0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    sock.shutdown(socket.SHUT_RDWR)


def _hold_one(
    request: PortRequest,
    chooser: Chooser,
    taken_by: Callable[[str, str, int], str],
    *,
    ipv6: bool,
) -> list[Hold]:
    """The same port on every address it is to be published on."""
    wanted = _checked(request, ipv6=ipv6)
    if request.host_port and not request.host_port_last:
        return _hold_at(wanted, request.host_port, taken_by)
    candidates, which = chooser.candidates(), f"{chooser.first} to {chooser.last}"
    if request.host_port_last:
        candidates = range(request.host_port, request.host_port_last + 1)
        which = f"{request.host_port} to {request.host_port_last}"
    for candidate in candidates:
        try:
            return _hold_at(wanted, candidate, taken_by)
        except Conflict:
            continue
    raise ResourceExhausted(
        f"cannot publish port {request.container_port}/{request.protocol}: "
        f"all ports from {which} are taken"
    )


def _hold_at(
    wanted: Sequence[BoundPort], number: int, taken_by: Callable[[str, str, int], str]
) -> list[Hold]:
    holds: list[Hold] = []
    for one in wanted:
        port = attrs.evolve(one, host_port=number)
        try:
            holds.append(hold(port))
        except OSError as error:
            for held in holds:
                held.release()
            raise _refusal(port, error, taken_by) from error
    return holds


def _checked(request: PortRequest, *, ipv6: bool) -> list[BoundPort]:
    """The request with its addresses as numbers: every one of the host's is two, where the container speaks IPv6.

    Raises:
        InvalidArgument: Its protocol or address makes no sense.
    """
    what = f"cannot publish port {request.container_port}/{request.protocol}"
    if request.protocol not in PROTOCOLS:
        raise InvalidArgument(f"{what}: only tcp and udp can be published")
    if not 0 < request.container_port <= _PORT_MAX or not 0 <= request.host_port <= _PORT_MAX:
        raise InvalidArgument(f"{what}: ports are 1 to 65535")
    given = _NAMED.get(request.host_address, request.host_address)
    try:
        address = ip_address(given)
    except ValueError:
        raise InvalidArgument(f"{what} on {given!r}: that is not an IP address") from None
    if isinstance(address, IPv6Address) and not ipv6:
        if not address.is_unspecified:
            raise InvalidArgument(
                f"{what} on {given}: the container has no IPv6 address",
                "put it on a network with IPv6, or publish on an IPv4 address",
            )
        address = ANYWHERE
    places = [str(address)]
    if ipv6 and not request.host_address:
        places.append(str(ANYWHERE_IPV6))
    return [
        BoundPort(request.container_port, request.protocol, place, request.host_port)
        for place in places
    ]


def _refusal(
    port: BoundPort, error: OSError, taken_by: Callable[[str, str, int], str]
) -> BakehouseError:
    number = f"{port.host_port or port.container_port}/{port.protocol}"
    at = (
        ""
        if port.host_address in {str(ANYWHERE), str(ANYWHERE_IPV6)}
        else f" on {port.host_address}"
    )
    match error.errno:
        case errno.EADDRINUSE:
            who = taken_by(port.protocol, port.host_address, port.host_port)
            return Conflict(
                f"cannot publish port {number}{at}: it is taken {who}:"
                f" Bind for {port.host_address}:{port.host_port} failed: port is already allocated",
                "publish another port, or leave the host port out to have one chosen",
            )
        case errno.EADDRNOTAVAIL:
            return InvalidArgument(f"cannot publish port {number}{at}: {_NOT_HERE}")
        case errno.EMFILE | errno.ENFILE:
            return ResourceExhausted(
                f"cannot publish port {number}{at}: {os.strerror(error.errno)}"
            )
        case _:
            return InvalidArgument(f"cannot publish port {number}{at}: {error.strerror}")
