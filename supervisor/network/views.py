"""How owners see networks: everybody has ``bridge``, ``host`` and ``none``, as with Docker, and sees no other's. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from supervisor.errors import InvalidArgument, NotFound
from supervisor.network.addresses import mac_of
from supervisor.network.endpoints import (
    Member,
    Mode,
    Network,
    NetworkView,
    Seat,
    endpoint_id,
    network_id,
)

if TYPE_CHECKING:
    from supervisor.access.identity import Identity
    from supervisor.network.bridges import Bridges

_DRIVERS = {Mode.BRIDGE: "bridge", Mode.HOST: "host", Mode.NONE: "null"}


def driver_of(mode: Mode) -> str:
    """What Docker calls it."""
    return _DRIVERS[mode]


def id_of(bridges: Bridges, owner: int, mode: Mode) -> str:
    """The id of an owner's network: the same before and after it is first used."""
    return network_id(bridges.database.epoch, owner, mode.value)


def own(seats: Sequence[Seat], bridges: Bridges, owner: int) -> list[NetworkView]:
    """An owner's networks."""
    mine = [seat for seat in seats if seat.owner == owner]
    return [_view(mode, mine, bridges, owner) for mode in Mode]


def one(seats: Sequence[Seat], bridges: Bridges, identity: Identity, reference: str) -> NetworkView:
    """One network, by name or the beginning of its id.

    Raises:
        NotFound: The caller has none such.
        InvalidArgument: It is the beginning of several.
    """
    views = own(seats, bridges, identity.owner)
    named = next((view for view in views if reference in {view.name, view.id}), None)
    if named is not None:
        return named
    if identity.admin:
        owners = {network.owner for network in bridges.networks.values()} - {identity.owner}
        views += [view for owner in sorted(owners) for view in own(seats, bridges, owner)]
    found = [view for view in views if reference and view.id.startswith(reference)]
    if not found:
        raise NotFound(f"network {reference} not found")
    if len(found) > 1:
        raise InvalidArgument(f"cannot tell which network is meant: {reference} begins several ids")
    return found[0]


def _view(mode: Mode, seats: Sequence[Seat], bridges: Bridges, owner: int) -> NetworkView:
    here = [seat for seat in seats if seat.mode is mode]
    network = bridges.of(owner) if mode is Mode.BRIDGE else None
    identifier = id_of(bridges, owner, mode)
    view = NetworkView(
        id=identifier,
        name=mode.value,
        driver=driver_of(mode),
        owner=owner,
        created_ns=network.created_ns if network else 0,
        members=tuple(_member(seat, network, identifier) for seat in here),
    )
    if network is None:
        return view
    return attrs.evolve(
        view,
        subnet=str(network.subnet),
        gateway=str(network.gateway),
        interface=bridges.link_name(network),
    )


def _member(seat: Seat, network: Network | None, identifier: str) -> Member:
    return Member(
        container_id=seat.container_id,
        name=seat.container_name,
        endpoint_id=endpoint_id(identifier, seat.container_id),
        mac=mac_of(seat.address) if seat.address else "",
        address=str(seat.address or ""),
        prefix_length=network.subnet.prefixlen if network else 0,
    )
