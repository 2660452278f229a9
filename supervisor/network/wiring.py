"""A container's wires: veth pairs from its network namespace to the bridges of its networks.

Rules: the inner ends are configured through a socket that lives in the container's namespace; the daemon enters none.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import attrs

from supervisor.linux import mounts, netlink
from supervisor.linux.netlink import Netlink, Request
from supervisor.linux.spawner import Spawner
from supervisor.network import options
from supervisor.network.endpoints import Network, Wire

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


@attrs.frozen
class Line:
    """A wire and where it goes.

    Attributes:
        name: Of the host's end.
        network: What it leads to.
        bridge: Index of that network's bridge.
    """

    name: str
    wire: Wire
    network: Network
    bridge: int


async def wire(
    spawner: Spawner, links: Netlink, pin: Path, lines: Sequence[Line], out: Line | None
) -> None:
    """The lines are there, each a port of its bridge, with its addresses inside; ``out`` is the way out.

    A frame may leave the port where it came in (hairpin): a container that reaches its own published port through the
    host needs it where ``bridge-nf-call-iptables`` is on. Ports of a network whose containers may not speak to each
    other are isolated.

    Args:
        spawner: Opens the namespace.
        links: The host's.
        pin: Of the namespace.
        lines: To be made; one that is there is made anew.
        out: One of them or one that is there; None for no way out.

    Raises:
        NotFound: No network namespace is pinned at ``pin``.
    """
    if lines:
        namespace = await mounts.open_namespace(spawner, pin)
        try:
            await links.batch([request for line in lines for request in _outer(line, namespace)])
        finally:
            os.close(namespace)
    inside = Netlink(await mounts.netlink_socket(spawner, pin))
    try:
        requests: list[Request] = []
        for line in lines:
            index = await inside.index(line.wire.interface)
            assert index is not None
            requests += _addresses(line, index)
        await inside.batch([*requests, *await _routes(inside, out)])
    finally:
        inside.close()


def _outer(line: Line, namespace: int) -> list[Request]:
    chosen = options.read(line.network.options)
    wired = line.wire
    return [
        netlink.delete(line.name),
        netlink.veth(line.name, wired.interface, namespace, line.bridge, wired.mac, mtu=chosen.mtu),
        netlink.port(line.name, hairpin=True, isolated=not chosen.within),
    ]


def _addresses(line: Line, index: int) -> list[Request]:
    lengths = {pool.subnet.version: pool.subnet.prefixlen for pool in line.network.pools}
    return [
        *(
            netlink.address(index, address, lengths[address.version])
            for address in line.wire.addresses
        ),
        netlink.up(line.wire.interface),
    ]


async def _routes(inside: Netlink, out: Line | None) -> list[Request]:
    index = None if out is None else await inside.index(out.wire.interface)
    if out is None or index is None:  # a container may take its own interface away
        return [netlink.no_default_route(family) for family in _FAMILIES.values()]
    routes = [netlink.default_route(pool.gateway, index) for pool in out.network.pools]
    spoken = {pool.subnet.version for pool in out.network.pools}
    return routes + [
        netlink.no_default_route(family)
        for version, family in _FAMILIES.items()
        if version not in spoken
    ]
