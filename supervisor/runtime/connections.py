"""Where a container is connected to, from what was asked for.

Rules, Docker's: a container is on the networks it names, or on its mode's; a network that is not there yet is looked for
again at start; who shares another's or the host's network cannot be on any of their own.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from supervisor.errors import InvalidArgument, NotFound
from supervisor.network.addresses import is_host
from supervisor.network.endpoints import Connection, Network, linked

if TYPE_CHECKING:
    from pathlib import Path

    from supervisor.access.owners import Owner
    from supervisor.access.requests import ContainerRequest, EndpointRequest
    from supervisor.network.networks import Networks
    from supervisor.runtime.records import ContainerRecord

WITHOUT = frozenset({"host", "none"})
SHARED = "container:"
MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")


def network_name(mode: str) -> str:
    """The network a mode names: by default it is the bridge."""
    return "bridge" if mode in {"", "default"} else mode


def check_shared(request: ContainerRequest) -> None:
    """A container that shares another's network cannot have what belongs to that one. Pure.

    Raises:
        InvalidArgument: It asks for some; Docker's wording.
    """
    conflicts = (
        (request.hostname, "hostname and the network mode"),
        (
            request.ports or request.publish_all,
            "port publishing and the container type network mode",
        ),
        (request.exposed_ports, "port exposing and the container type network mode"),
        (request.dns, "dns and the network mode"),
        (request.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (request.endpoints, "mac-address and the network mode"),
    )
    for asked, what in conflicts:
        if asked:
            raise InvalidArgument(f"conflicting options: {what}")


async def settled(
    networks: Networks, owner: int, request: ContainerRequest
) -> tuple[Connection, ...]:
    """Where a new container is to be connected, its mode's network first.

    Raises:
        InvalidArgument: It makes no sense; Docker's wording.
    """
    mode = network_name(request.network_mode)
    if mode in WITHOUT or mode.startswith(SHARED):
        others = [one.network for one in request.endpoints if one.network != mode]
        if others:
            raise InvalidArgument(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
            )
        return ()
    if not request.endpoints:
        return (await _settle(networks, owner, mode, None),)
    named = {network_name(one.network): one for one in request.endpoints}
    order = sorted(named, key=lambda name: name != mode)
    return tuple([await _settle(networks, owner, name, named[name]) for name in order])


async def _settle(
    networks: Networks, owner: int, name: str, wished: EndpointRequest | None
) -> Connection:
    try:
        network = await networks.network(owner, name)
    except NotFound:
        bare = Connection("", name)
        return bare if wished is None else _wished(bare, wished)
    if not isinstance(network, Network):
        raise InvalidArgument(
            f"container cannot be connected to multiple networks with one of them {network.name}"
        )
    return connection_to(network, wished)


def connection_to(network: Network, wished: EndpointRequest | None) -> Connection:
    """A place on a network as it is wished for; pure.

    Raises:
        InvalidArgument: It cannot be had there; Docker's wording.
    """
    bare = Connection(network.id, network.name)
    if wished is None:
        return bare
    connection = _wished(bare, wished)
    if network.default and connection.addresses:
        raise InvalidArgument(
            "invalid config for network bridge: user specified IP address is supported on user defined networks only"
        )
    if network.default and connection.aliases:
        raise InvalidArgument(
            "network-scoped alias is supported only for containers in user defined networks"
        )
    for address in connection.addresses:
        pool = next((one for one in network.pools if one.subnet.version == address.version), None)
        if pool is None or not pool.chosen:
            raise InvalidArgument(
                f"invalid config for network {network.name}: user specified IP address is supported only when"
                " connecting to networks with user configured subnets"
            )
        if not is_host(address, pool.subnet):
            raise InvalidArgument(
                f"Invalid address {address}: It does not belong to any of this network's subnets"
            )
    return connection


def _wished(bare: Connection, wished: EndpointRequest) -> Connection:
    for text, kind in (
        (wished.ipv4_address, ipaddress.IPv4Address),
        (wished.ipv6_address, ipaddress.IPv6Address),
    ):
        try:
            _ = text and kind(text)
        except ValueError:
            raise InvalidArgument(f"invalid {kind.__name__}: {text[:80]}") from None
    if wished.mac_address and not MAC.fullmatch(wished.mac_address):
        raise InvalidArgument(f"invalid MAC address: {wished.mac_address[:40]}")
    linked(wished.links)
    return attrs.evolve(
        bare,
        aliases=tuple(dict.fromkeys(wished.aliases)),
        ipv4_address=wished.ipv4_address,
        ipv6_address=wished.ipv6_address,
        mac_address=wished.mac_address.lower().replace("-", ":"),
        links=wished.links,
        driver_options=wished.driver_options,
    )


async def resolved(
    networks: Networks, owner: int, connections: Sequence[Connection]
) -> tuple[Connection, ...]:
    """The same with the networks that were not there when the container was created.

    Raises:
        NotFound: One still is not; Docker's wording.
        InvalidArgument: See :func:`connection_to`.
    """
    known = []
    for one in connections:
        if one.network_id:
            known.append(one)
            continue
        network = await networks.network(owner, one.name)
        if not isinstance(network, Network):
            raise NotFound(f"network {one.name} not found")
        known.append(attrs.evolve(one, network_id=network.id, name=network.name))
    return tuple(known)


async def recorded_of(networks: Networks, record: ContainerRecord) -> tuple[Connection, ...]:
    """Where a container is to be connected, whether there are such networks or not."""
    mode = network_name(record.request.network_mode)
    if mode in WITHOUT or mode.startswith(SHARED):
        return ()
    if record.connections is None:
        return (await networks.connection(record.owner, mode),)
    return record.connections


async def take_seat(
    networks: Networks, record: ContainerRecord, owner: Owner, user_pin: Path | None
) -> None:
    """The container has all it is to have of networks; see :meth:`Networks.attach`."""
    await networks.attach(
        record.id,
        record.name,
        owner,
        record.request.network_mode,
        record.ports,
        user_pin,
        await resolved(networks, record.owner, await recorded_of(networks, record)),
        record.request.dns,
    )
