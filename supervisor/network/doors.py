"""A container's own door to the name server: port 53 of 127.0.0.11 in its network namespace, as with Docker.

Whoever is on a network with names has one, from the first such network on until the end.

Programs and configurations know that address (``resolver 127.0.0.11``); it stays the same whatever networks the
container is on, no firewall or name server of the host is in the way, and nobody else can ask there. The server listens
at another port, and the container's queries are led to it: port 53 is free for a name server in the container.
"""

from __future__ import annotations

from contextlib import ExitStack
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from supervisor.linux import mounts
from supervisor.linux.detour import Detour, lead
from supervisor.network.dns_upstream import PORT

if TYPE_CHECKING:
    from supervisor.network.endpoints import Seat
    from supervisor.network.seating import Seats

ADDRESS = IPv4Address("127.0.0.11")

LISTENS_AT = 31_053
"""Below the ports that programs are given, and registered for none."""


def is_named(seats: Seats, seat: Seat) -> bool:
    """Whether a container is on a network on which containers have names."""
    return any(not seats.registry.numbered[wired.network].default for wired in seat.wires)


async def answer(seats: Seats, seat: Seat) -> None:
    """The container is answered at a door of its own, if it is to have one. Success too when it is already.

    Raises:
        NotFound: It has no network namespace.
        Internal: The kernel refuses.
    """
    server = seats.bridges.name_server
    if server.serves(seat.container_id) or not is_named(seats, seat):
        return
    pin = seats.pins / seat.container_id
    datagrams, listener, netfilter = await mounts.name_sockets(
        seats.spawner, pin, ADDRESS, LISTENS_AT
    )
    with netfilter, ExitStack() as unless_opened:
        unless_opened.enter_context(datagrams)
        unless_opened.enter_context(listener)
        ports = {"udp": datagrams.getsockname()[1], "tcp": listener.getsockname()[1]}
        await lead(
            netfilter, [Detour(protocol, ADDRESS, PORT, ports[protocol]) for protocol in ports]
        )
        server.open_inside(seat.container_id, seat.owner, datagrams, listener)
        unless_opened.pop_all()
