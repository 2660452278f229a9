"""A container's wire: a veth pair from its network namespace to its owner's bridge.

Rules: the inner end is configured through a socket that lives in the container's namespace; the daemon enters none.
"""

from __future__ import annotations

import os
from pathlib import Path

from supervisor.linux import mounts, netlink
from supervisor.linux.netlink import Netlink
from supervisor.linux.spawner import Spawner
from supervisor.network.addresses import mac_of
from supervisor.network.bridges import Raised
from supervisor.network.endpoints import Network, Seat

INTERFACE = "eth0"
"""The link's name inside, as with Docker."""


async def wire(  # noqa: PLR0913, PLR0917  # both ends of one wire
    spawner: Spawner,
    links: Netlink,
    pin: Path,
    name: str,
    seat: Seat,
    network: Network,
    there: Raised,
) -> None:
    """The link ``name`` is a port of the bridge; inside, its other end has the seat's address and the way out.

    A frame may leave the port where it came in (hairpin): a container that reaches its own published port through the
    host needs it where ``bridge-nf-call-iptables`` is on.

    Raises:
        NotFound: No network namespace is pinned at ``pin``.
    """
    assert seat.address is not None
    namespace = await mounts.open_namespace(spawner, pin)
    try:
        await links.batch(
            [
                netlink.delete(name),
                netlink.veth(name, INTERFACE, namespace, there.index, mac_of(seat.address)),
                netlink.port(name, hairpin=True),
            ]
        )
    finally:
        os.close(namespace)
    inside = Netlink(await mounts.netlink_socket(spawner, pin))
    try:
        index = await inside.index(INTERFACE)
        assert index is not None
        await inside.batch(
            [
                netlink.address(index, seat.address, network.subnet.prefixlen),
                netlink.up(INTERFACE),
                netlink.default_route(network.gateway, index),
            ]
        )
    finally:
        inside.close()
