"""What owners see of networks and of who is on them. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from supervisor.network import doors
from supervisor.network.endpoints import (
    Endpoint,
    Member,
    Mode,
    Network,
    NetworkView,
    Sandbox,
    Seat,
    Wire,
    endpoint_id,
)
from supervisor.network.registry import DRIVERS, Builtin, Known, Registry

if TYPE_CHECKING:
    from supervisor.network.bridges import Bridges
    from supervisor.network.seating import Seats


def network_view(seats: Seats, known: Known) -> NetworkView:
    """One network with those on it."""
    if isinstance(known, Builtin):
        return _builtin_view(seats, known)
    here = [seats.seat(one) for one in seats.registry.members.get(known.number, ())]
    members = [
        Member(seat.container_id, seat.container_name, endpoint(seat, wired, known))
        for seat in here
        if seat is not None and (wired := seat.wire(known.number)) is not None
    ]
    return NetworkView(
        id=known.id,
        name=known.name,
        driver="bridge",
        owner=known.owner,
        created_ns=known.created_ns,
        record=known,
        interface=seats.bridges.link_name(known),
        members=tuple(members),
    )


def _builtin_view(seats: Seats, known: Builtin) -> NetworkView:
    members = []
    if known.mode is not Mode.BRIDGE:
        mine = [place.seat for place in seats.places.values() if place.whole]
        members = [
            Member(seat.container_id, seat.container_name, bare_endpoint(seat, seats.registry))
            for seat in mine
            if seat.owner == known.owner and seat.mode is known.mode
        ]
    return NetworkView(
        id=known.id,
        name=known.name,
        driver=DRIVERS[known.mode],
        owner=known.owner,
        created_ns=0,
        members=tuple(members),
    )


def endpoint(seat: Seat, wired: Wire, network: Network) -> Endpoint:
    """A container's place on a network with a bridge."""
    ipv6 = network.ipv6 if wired.ipv6 is not None else None
    return Endpoint(
        network_id=network.id,
        network_name=network.name,
        endpoint_id=endpoint_id(network.id, seat.container_id),
        interface=wired.interface,
        mac=wired.mac,
        address=str(wired.ipv4),
        prefix_length=network.ipv4.subnet.prefixlen,
        gateway="" if network.internal else str(network.ipv4.gateway),
        ipv6_address=str(wired.ipv6) if ipv6 else "",
        ipv6_prefix_length=ipv6.subnet.prefixlen if ipv6 else 0,
        ipv6_gateway=str(ipv6.gateway) if ipv6 and not network.internal else "",
        aliases=wired.aliases,
    )


def bare_endpoint(seat: Seat, registry: Registry) -> Endpoint:
    """A container's place on the host's network, or on none."""
    identifier = registry.id_of(seat.owner, seat.mode)
    return Endpoint(identifier, seat.mode.value, endpoint_id(identifier, seat.container_id))


def sandbox(seats: Seats, seat: Seat) -> Sandbox:
    """What a container has of networks."""
    host = seats.bridges.name_server.upstream.current()
    pin = seats.pin_of(seat)
    if seat.mode is Mode.CONTAINER:
        return _shared(seats, seat, pin)
    if seat.mode is Mode.NONE:
        return Sandbox(pin, (bare_endpoint(seat, seats.registry),))
    if seat.mode is Mode.HOST:
        shown = (bare_endpoint(seat, seats.registry),)
        return Sandbox(
            pin,
            shown,
            resolvers=host.upstream,
            search=host.search,
            resolver_options=host.options,
        )
    networks = seats.registry.numbered
    named = doors.is_named(seats, seat)
    ends = {wired: endpoint(seat, wired, networks[wired.network]) for wired in seat.wires}
    out = seats.out_of(seat)
    asked = out or next(iter(seat.wires), None)
    return Sandbox(
        netns_pin=pin,
        endpoints=tuple(ends.values()),
        out=None if out is None else ends[out],
        ports=seat.ports,
        named=named,
        resolvers=_resolvers(
            seats.bridges, None if asked is None else networks[asked.network], named=named
        ),
        search=host.search,
        resolver_options=host.options,
    )


def _shared(seats: Seats, seat: Seat, pin: Path | None) -> Sandbox:
    host = seats.seat(seat.host)
    shown = Sandbox(pin) if host is None else sandbox(seats, host)
    return Sandbox(
        pin,
        named=shown.named,
        resolvers=shown.resolvers,
        search=shown.search,
        resolver_options=shown.resolver_options,
    )


def _resolvers(bridges: Bridges, network: Network | None, *, named: bool) -> tuple[str, ...]:
    """Who has names is told of ours alone, which knows them; else the host's resolvers stand behind it."""
    if named:
        return (str(doors.ADDRESS),)
    host = bridges.name_server.upstream.current()
    if network is None or not bridges.serves_names(network):
        return host.told(None)
    return host.told(str(network.ipv4.gateway))
