"""Seating containers: their network namespaces, wires and published ports, made and taken away.

Words: a container is **seated** when all that belongs to its seat is there; see :mod:`supervisor.network.endpoints`.

Rules:

* Effects first, then the record with its event. What has effects and no record is taken down at recovery.
* Changes of one container's seat take turns; nothing here holds up another container, but for those who want the same
  bridge raised.
* A held port comes before its mapping, and goes after it: also at recovery.
* The address of a container that has gone is not given out again before its link is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from supervisor.errors import Conflict, NotFound
from supervisor.linux import mounts
from supervisor.network import doors, options, rows, wiring
from supervisor.network.addresses import mac_of
from supervisor.network.endpoints import (
    Address,
    Connection,
    Mode,
    Network,
    Seat,
    Wire,
    linked,
    publications,
    way_out,
)
from supervisor.network.names import NamedEndpoint, Names
from supervisor.network.publishing import Chooser, Hold, PortHolders, hold_all
from supervisor.network.seat_ledger import Also, SeatLedger
from supervisor.tasks import Turns, finish_within

if TYPE_CHECKING:
    from supervisor.access.owners import Owners
    from supervisor.access.requests import PortRequest
    from supervisor.config import Config
    from supervisor.database.database import Database
    from supervisor.events.journal import Events
    from supervisor.linux.netlink import Netlink
    from supervisor.linux.spawner import Spawner
    from supervisor.network.bridges import Bridges, Raised
    from supervisor.network.occupancy import Occupancy
    from supervisor.network.registry import Registry
    from supervisor.network.subnets import Subnets

UNDO_SECONDS = 10.0

_LINKS_MAX = 0xFFFFFF
"""Six hex digits fit behind the prefix of a link's name."""

log = logging.getLogger(__name__)


@attrs.define(eq=False)
class Place:
    """One container's seat and what it holds.

    Attributes:
        asked: The ports it wants published as soon as there is a way out.
        recorded: The database may know of it: a cancelled unit can have been written.
        whole: It has all that belongs to it; False while it is made, and from when it is taken down.
        leads: The wire its ports are mapped to, or may be.
        ended: Its links are about to go, with their numbers and addresses: they may soon be somebody else's.
    """

    seat: Seat
    asked: tuple[PortRequest, ...] = ()
    holds: list[Hold] = attrs.field(factory=list)
    recorded: bool = False
    whole: bool = False
    leads: Wire | None = None
    ended: bool = False


@attrs.define(eq=False)
class Seats:
    """The seats of this daemon's containers, by container."""

    config: Config
    database: Database
    events: Events
    spawner: Spawner
    bridges: Bridges
    registry: Registry
    subnets: Subnets
    links: Netlink
    occupancy: Occupancy
    chooser: Chooser
    owners: Owners
    places: dict[str, Place] = attrs.field(factory=dict)
    holders: PortHolders = attrs.field(factory=PortHolders)
    _turns: Turns[str] = attrs.field(factory=Turns)
    _numbers: set[int] = attrs.field(factory=set)
    _last_number: int = 0

    @property
    def _ledger(self) -> SeatLedger:
        return SeatLedger(self.events, self.registry)

    @property
    def pins(self) -> Path:
        """Where network namespaces are pinned."""
        return self.config.run_root / "ns" / "net"

    @property
    def link_prefix(self) -> str:
        """What the names of our links begin with, and no other daemon's do."""
        return f"bv{self.config.instance_tag}-"

    def link_name(self, wired: Wire) -> str:
        """The name of the host's end of a wire."""
        return f"{self.link_prefix}{wired.number:x}"

    def pin_of(self, seat: Seat) -> Path | None:
        """Where the network namespace is pinned that a container has; None for the host's."""
        if seat.mode is Mode.CONTAINER:
            host = self.places.get(seat.host)
            return self.pins / seat.host if host is None else self.pin_of(host.seat)
        return None if seat.mode is Mode.HOST else self.pins / seat.container_id

    def seat(self, container_id: str) -> Seat | None:
        """Where a container is seated; None when it is not."""
        place = self.places.get(container_id)
        return None if place is None or not place.whole else place.seat

    def out_of(self, seat: Seat) -> Wire | None:
        """The wire that is a container's way out."""
        return way_out(seat.wires, self.registry.numbered)

    def turn(self, container_id: str) -> AbstractAsyncContextManager[None]:
        """One at a time for one container."""
        return self._turns.of(container_id)

    def take_up(self, seat: Seat) -> None:
        """A seat that is recorded; its links and ports are there, or are mended at recovery."""
        self.places[seat.container_id] = Place(
            seat, recorded=True, whole=True, leads=self.out_of(seat)
        )
        for wired in seat.wires:
            self.occupancy.take(wired.network, wired.addresses)
            self.registry.members[wired.network][seat.container_id] = None
            self._numbers.add(wired.number)
            self._last_number = max(self._last_number, wired.number)
        self._note_ports(seat)

    def enter_names(self, seat: Seat) -> None:
        """Others on its networks find it by its names."""
        for wired in seat.wires:
            self._names.enter(
                NamedEndpoint(
                    network=wired.network,
                    container_id=seat.container_id,
                    name=seat.container_name,
                    addresses=wired.addresses,
                    aliases=wired.aliases,
                    links=wired.links,
                    servers=seat.servers,
                )
            )

    @property
    def _names(self) -> Names:
        return self.bridges.name_server.names

    async def attach(
        self,
        seat: Seat,
        connections: Sequence[Connection],
        ports: Sequence[PortRequest],
        user_pin: Path | None,
    ) -> None:
        """Seat a container that has no wires yet; one that is seated keeps its place. See :meth:`Networks.attach`."""
        async with self.turn(seat.container_id):
            place = self.places.get(seat.container_id)
            if place is not None and place.whole:
                return
            if place is not None:
                await self._leave(place)
            place = self.places[seat.container_id] = Place(seat, tuple(ports))
            try:
                await self._make(place, connections, user_pin)
                place.recorded = True
                made = place.seat
                await self.database.write(lambda connection: self._ledger.record(connection, made))
            except BaseException:
                with finish_within(UNDO_SECONDS):
                    await self._leave(place)
                raise
            place.whole = True
            self.enter_names(made)

    async def detach(self, container_id: str) -> None:
        """The container has no place: nothing published, no namespace pinned, its links gone within moments."""
        async with self.turn(container_id):
            place = self.places.get(container_id)
            if place is not None:
                await self._leave(place)

    async def connect(
        self, container_id: str, connection: Connection, ports: Sequence[PortRequest], also: Also
    ) -> None:
        """A seated container has one wire more.

        Raises:
            NotFound: It is not seated.
            BakehouseError: See :meth:`attach`.
        """
        async with self.turn(container_id):
            place = self._seated(container_id)
            place.asked = tuple(ports)
            before = place.seat
            try:
                await self._reserve(place, connection)
                wired = place.seat.wires[-1]
                await self.wire(place, [wired])
                await self._lead(place)
                with finish_within(UNDO_SECONDS):
                    await self.database.write(
                        lambda connected: self._ledger.rewrite(
                            connected, place.seat, also, wired, joined=True
                        )
                    )
            except BaseException:
                with finish_within(UNDO_SECONDS):
                    for wired in place.seat.wires[len(before.wires) :]:
                        await self._cut(place, wired)
                        self._is_off(before, wired)
                raise
            self.enter_names(place.seat)

    async def disconnect(self, container_id: str, network: int, also: Also) -> None:
        """A seated container has no wire to the network any more.

        Raises:
            NotFound: It is not seated, or has none.
        """
        async with self.turn(container_id):
            place = self._seated(container_id)
            wired = place.seat.wire(network)
            if wired is None:
                raise NotFound(f"container {container_id} is not connected to the network")
            with finish_within(UNDO_SECONDS):
                await self._cut(place, wired)
                await self.database.write(
                    lambda connected: self._ledger.rewrite(
                        connected, place.seat, also, wired, joined=False
                    )
                )
                self._is_off(place.seat, wired)

    async def rename(self, container_id: str, name: str) -> None:
        """The container is called so from now on, in messages and listings."""
        async with self.turn(container_id):
            place = self.places.get(container_id)
            if place is not None:
                place.seat = attrs.evolve(place.seat, container_name=name)
                self._note_ports(place.seat)
                self._names.rename(container_id, name)
                await self.database.write(
                    lambda connection: rows.store_name(connection, container_id, name)
                )

    def _seated(self, container_id: str) -> Place:
        place = self.places.get(container_id)
        if place is None or not place.whole:
            raise NotFound(f"container {container_id} has no place on any network")
        return place

    async def _make(
        self, place: Place, connections: Sequence[Connection], user_pin: Path | None
    ) -> None:
        """Reserve all that can be short before anything is made."""
        seat = place.seat
        if seat.mode is Mode.CONTAINER:
            if self.seat(seat.host) is None:
                raise Conflict(f"cannot join network of a non running container: {seat.host}")
            return
        for connection in connections:
            await self._reserve(place, connection)
        self._hold_ports(place)
        if seat.mode is not Mode.HOST:
            await mounts.network_namespace(self.spawner, self.pins / seat.container_id, user_pin)
        if place.seat.wires:
            await self.wire(place, place.seat.wires)
            await self._lead(place)

    async def _reserve(self, place: Place, connection: Connection) -> None:
        """A wire's number and addresses; its network's bridge is raised, and stays."""
        known = self.registry.get(connection.network_id, connection.name)
        async with self.bridges.turn(known.number):
            network = self.registry.get(connection.network_id, connection.name)
            if network.number not in self.bridges.raised:
                network = await self.subnets.settled(network)
                await self.bridges.wanted(network)
            wired = self._new_wire(place.seat, network, connection)
            self.registry.members[network.number][place.seat.container_id] = None
            place.seat = attrs.evolve(place.seat, wires=(*place.seat.wires, wired))

    def _new_wire(self, seat: Seat, network: Network, connection: Connection) -> Wire:
        asked: dict[int, Address] = {one.version: one for one in connection.addresses}
        found = {
            pool.subnet.version: self.occupancy.choose(
                network, pool, seat.container_id, asked.get(pool.subnet.version)
            )
            for pool in network.pools
        }
        self.occupancy.take(network.number, found.values())
        numbers = [int(wired.interface.removeprefix("eth")) for wired in seat.wires]
        return Wire(
            number=self._next_number(),
            network=network.number,
            interface=f"eth{max(numbers, default=-1) + 1}",
            mac=connection.mac_address or mac_of(found[4]),
            ipv4=found[4],  # type: ignore[arg-type]  # of the pool of its kind
            ipv6=found.get(6),  # type: ignore[arg-type]  # likewise
            aliases=connection.aliases,
            links=linked(connection.links),
        )

    def _next_number(self) -> int:
        while True:
            self._last_number = self._last_number % _LINKS_MAX + 1
            name = f"{self.link_prefix}{self._last_number:x}"
            if self._last_number not in self._numbers and not self.occupancy.is_ending(name):
                self._numbers.add(self._last_number)
                return self._last_number

    def _hold_ports(self, place: Place) -> None:
        """The ports it asks for are its own, when there is a way out."""
        out = self.out_of(place.seat)
        if out is None or not place.asked or place.holds:
            return
        network = self.registry.numbered[out.network]
        host_address = options.read(network.options).host_address
        wanted = len(dict.fromkeys(place.asked))
        self.holders.admit(place.seat.owner, wanted, self.owners.limits(place.seat.owner).ports_max)
        place.holds = hold_all(
            place.asked,
            self.chooser,
            self.holders.told_to(place.seat.owner),
            host_address,
            ipv6=out.ipv6 is not None,
        )
        place.seat = attrs.evolve(place.seat, ports=tuple(held.port for held in place.holds))
        self._note_ports(place.seat)

    def _note_ports(self, seat: Seat) -> None:
        self.holders.add(seat.container_id, seat.container_name, seat.owner, seat.ports)

    async def _lead(self, place: Place) -> None:
        """The ports lead to the way out as it is now; without one nothing is published."""
        now = self.out_of(place.seat)
        if now == place.leads:
            return
        await self._lead_nowhere(place)
        if now is None:
            self._release_ports(place)
            return
        self._hold_ports(place)
        place.leads = now
        await self.bridges.publish(publications(place.seat.ports, now))

    async def _lead_nowhere(self, place: Place) -> None:
        await self.bridges.unpublish(publications(place.seat.ports, place.leads))
        place.leads = None

    def _release_ports(self, place: Place) -> None:
        self.holders.remove(place.seat.container_id, place.seat.ports)
        for held in place.holds:
            held.release()
        place.holds, place.seat = [], attrs.evolve(place.seat, ports=())

    async def wire(self, place: Place, wires: Sequence[Wire]) -> None:
        """These wires of it are there, and the way out is as it should be."""
        out = self.out_of(place.seat)
        pin = self.pins / place.seat.container_id
        await wiring.wire(
            self.spawner,
            self.links,
            pin,
            [self._line(one) for one in wires],
            None if out is None else self._line(out),
        )
        await doors.answer(self, place.seat)

    def _line(self, wired: Wire) -> wiring.Line:
        there: Raised = self.bridges.raised[wired.network]
        return wiring.Line(self.link_name(wired), wired, there.network, there.index)

    async def _cut(self, place: Place, wired: Wire) -> None:
        """The container has not got this wire; its ports lead to what is left."""
        self._names.leave(wired.network, place.seat.container_id)
        seat, before = place.seat, self.out_of(place.seat)
        place.seat = attrs.evolve(seat, wires=tuple(one for one in seat.wires if one != wired))
        try:
            await self._lead(place)
        finally:
            self._end(wired, seat)
        await self.occupancy.end_now()
        if place.seat.wires and self.out_of(place.seat) != before:
            await self.wire(place, ())

    def _end(self, wired: Wire, seat: Seat) -> None:
        self.occupancy.ends(self.link_name(wired), wired, published=bool(seat.ports))
        self._numbers.discard(wired.number)

    def _is_off(self, seat: Seat, wired: Wire) -> None:
        """Nothing is recorded of the wire any more: its network may go."""
        self.registry.members.get(wired.network, {}).pop(seat.container_id, None)

    async def _leave(self, place: Place) -> None:
        """The container has no place. Interrupted, it can be done again: what has been given back is struck off."""
        place.whole = False
        seat = place.seat
        self.bridges.name_server.close(seat.container_id)
        for wired in seat.wires:
            self._names.leave(wired.network, seat.container_id)
        await self._lead_nowhere(place)
        self._release_ports(place)
        if seat.mode in {Mode.BRIDGE, Mode.NONE}:
            await self.unpin(self.pins / seat.container_id)
        if not place.ended:
            place.ended = True
            for wired in seat.wires:
                self._end(wired, seat)
        if place.recorded:
            await self.database.write(lambda connection: self._ledger.forget(connection, seat))
        for wired in seat.wires:
            self._is_off(seat, wired)
        del self.places[seat.container_id]

    async def unpin(self, pin: Path) -> None:
        """No network namespace is pinned there."""
        await mounts.unpin(self.spawner, pin)
