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
from collections.abc import Callable, Iterable
from ipaddress import AddressValueError, IPv4Address

import attrs

from supervisor.access.requests import PortRequest
from supervisor.errors import BakehouseError, Conflict, InvalidArgument, ResourceExhausted

log = logging.getLogger(__name__)

PROTOCOLS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
ANYWHERE = IPv4Address(0)
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

    def add(self, container_id: str, name: str, owner: int, ports: Iterable[BoundPort]) -> None:
        """The container, called so, has these."""
        for port in ports:
            at = self._at.setdefault((port.protocol, port.host_port), {})
            at[container_id] = (owner, name, port.host_address)

    def remove(self, container_id: str, ports: Iterable[BoundPort]) -> None:
        """It has them no more."""
        for port in ports:
            at = self._at.get((port.protocol, port.host_port), {})
            at.pop(container_id, None)
            if not at:
                self._at.pop((port.protocol, port.host_port), None)

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
) -> list[Hold]:
    """Hold every port asked for, or none.

    Args:
        requests: What to publish.
        chooser: For those without a host port.
        taken_by: Who has (protocol, address, port), in the words of the message.
        host_address: For those without one; empty for every address.

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
            holds.append(_hold_one(placed, chooser, taken_by))
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
    sock = socket.socket(socket.AF_INET, PROTOCOLS[port.protocol] | socket.SOCK_CLOEXEC)
    try:
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
    return one == other or str(ANYWHERE) in {one, other}


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
    request: PortRequest, chooser: Chooser, taken_by: Callable[[str, str, int], str]
) -> Hold:
    wanted = _checked(request)
    if request.host_port_last:
        wished = range(wanted.host_port, request.host_port_last + 1)
        return _hold_any(
            wanted, wished, f"{wanted.host_port} to {request.host_port_last}", taken_by
        )
    if wanted.host_port:
        try:
            return hold(wanted)
        except OSError as error:
            raise _refusal(wanted, error, taken_by) from error
    return _hold_any(wanted, chooser.candidates(), f"{chooser.first} to {chooser.last}", taken_by)


def _hold_any(
    wanted: BoundPort,
    candidates: Iterable[int],
    which: str,
    taken_by: Callable[[str, str, int], str],
) -> Hold:
    for candidate in candidates:
        try:
            return hold(attrs.evolve(wanted, host_port=candidate))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise _refusal(wanted, error, taken_by) from error
    raise ResourceExhausted(
        f"cannot publish port {wanted.container_port}/{wanted.protocol}: "
        f"all ports from {which} are taken"
    )


def _checked(request: PortRequest) -> BoundPort:
    """The request with its address as a number.

    Raises:
        InvalidArgument: Its protocol or address makes no sense.
    """
    what = f"cannot publish port {request.container_port}/{request.protocol}"
    if request.protocol not in PROTOCOLS:
        raise InvalidArgument(f"{what}: only tcp and udp can be published")
    if not 0 < request.container_port <= _PORT_MAX or not 0 <= request.host_port <= _PORT_MAX:
        raise InvalidArgument(f"{what}: ports are 1 to 65535")
    named = {"": "0.0.0.0", "localhost": "127.0.0.1", "::": "0.0.0.0"}.get(  # noqa: S104  # what was asked for
        request.host_address, request.host_address
    )
    try:
        address = IPv4Address(named)
    except AddressValueError:
        raise InvalidArgument(f"{what} on {named!r}: that is not an IPv4 address") from None
    return BoundPort(request.container_port, request.protocol, str(address), request.host_port)


def _refusal(
    port: BoundPort, error: OSError, taken_by: Callable[[str, str, int], str]
) -> BakehouseError:
    number = f"{port.host_port or port.container_port}/{port.protocol}"
    at = "" if port.host_address == str(ANYWHERE) else f" on {port.host_address}"
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
