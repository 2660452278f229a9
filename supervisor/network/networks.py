"""Networks: what a container needs to speak to others, and to be spoken to.

Words: a container is **seated** when it has its place on a network; see :mod:`supervisor.network.endpoints`,
:mod:`supervisor.network.bridges` and :mod:`supervisor.network.ruleset`.

Rules:

* Every owner has a bridge of their own, so that nobody shares a wire with another. Docker's ``bridge`` is, for each
  owner, that one.
* Effects first, then the record with its event. What has effects and no record is taken down at recovery.
* A held port comes before its mapping, and goes after it: also at recovery.
* The address of a container that has gone is not given out again before its link is gone.
* The data plane (links, rules, addresses) works without the daemon; only new names wait for it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from protocol.events import NetworkConnect, NetworkDisconnect
from supervisor.errors import BakehouseError, NotFound, ResourceExhausted
from supervisor.linux import mounts, netlink
from supervisor.linux.netlink import Netlink
from supervisor.linux.nftables import Changes, open_nftables
from supervisor.network import endpoints, views
from supervisor.network.addresses import mac_of
from supervisor.network.bridges import Bridges, Raised
from supervisor.network.dns import NameServer
from supervisor.network.dns_upstream import Upstream
from supervisor.network.endpoints import Endpoint, Mode, Network, NetworkView, Seat
from supervisor.network.names import Names
from supervisor.network.neighbours import CHAIN, Neighbours
from supervisor.network.occupancy import Occupancy
from supervisor.network.publishing import BoundPort, Chooser, Hold, hold_again, hold_all, overlap
from supervisor.network.wiring import INTERFACE, wire
from supervisor.tasks import finish_within, in_thread

if TYPE_CHECKING:
    import sqlite3

    from supervisor.access.identity import Identity
    from supervisor.access.owners import Owner, Owners
    from supervisor.access.requests import PortRequest
    from supervisor.config import Config
    from supervisor.database.database import Database
    from supervisor.events.journal import Events
    from supervisor.linux.spawner import Spawner

__all__ = ["BoundPort", "Endpoint", "NetworkView", "Networks", "open_networks"]

log = logging.getLogger(__name__)

UNDO_SECONDS = 10.0
SETTLE_SECONDS = 0.5
"""Between a change of the packet filter by somebody else and our look at it."""

_LINKS_MAX = 0xFFFFFF
"""Six hex digits fit behind the prefix of a link's name."""

_MODES = {"": Mode.BRIDGE, "default": Mode.BRIDGE, **{mode.value: mode for mode in Mode}}


@attrs.define(eq=False)
class _Place:
    """One container's seat and what it holds.

    Attributes:
        recorded: The database may know of it: a cancelled unit can have been written.
        whole: It has all that belongs to it; False while it is made, and from when it is taken down.
    """

    seat: Seat
    holds: list[Hold] = attrs.field(factory=list)
    recorded: bool = False
    whole: bool = False


@attrs.define(eq=False)
class Networks:
    """The networks of this daemon. Made by :func:`open_networks`."""

    _config: Config
    _database: Database
    _events: Events
    _spawner: Spawner
    _bridges: Bridges
    _links: Netlink
    _occupancy: Occupancy
    _chooser: Chooser
    _places: dict[str, _Place] = attrs.field(factory=dict)
    _turns: dict[str, tuple[trio.Lock, list[None]]] = attrs.field(factory=dict)
    _last_link: int = 0

    async def attach(
        self,
        container_id: str,
        container_name: str,
        owner: Owner,
        mode: str,
        ports: Sequence[PortRequest],
        user_pin: Path | None,
    ) -> Endpoint:
        """Seat a container: namespace, link, address, published ports. One that is seated keeps its place.

        Args:
            container_id: Also of a build step.
            container_name: For messages and listings.
            owner: Whose bridge it is put on.
            mode: ``bridge`` (or ``default``), ``none``, ``host``.
            ports: To publish; only a bridge can.
            user_pin: The user namespace its network namespace shall belong to; None for the host's.

        Raises:
            Conflict: A port is taken.
            InvalidArgument: An address or port that makes no sense.
            NotFound: There is no such network.
            ResourceExhausted: No address, subnet or port is left.
        """
        if mode not in _MODES:
            raise NotFound(f"cannot connect {container_name}: there is no network {mode}")
        async with self._turn(container_id):
            place = self._places.get(container_id)
            if place is not None and not place.whole:
                await self._leave(place)
                place = None
            if place is None:
                seat = Seat(container_id, container_name, owner.uid, _MODES[mode])
                place = await self._seat(seat, ports, user_pin)
            return self._endpoint(place.seat)

    async def detach(self, container_id: str) -> None:
        """The container has no place: nothing published, no namespace pinned, its link gone within moments."""
        async with self._turn(container_id):
            place = self._places.get(container_id)
            if place is not None:
                await self._leave(place)

    async def rename(self, container_id: str, name: str) -> None:
        """The container is called so from now on, in messages and listings."""
        async with self._turn(container_id):
            place = self._places.get(container_id)
            if place is not None:
                place.seat = attrs.evolve(place.seat, container_name=name)
                await self._database.write(
                    lambda connection: endpoints.store_name(connection, container_id, name)
                )

    async def recover(self, wanted: Collection[str]) -> dict[str, Endpoint]:
        """Make the kernel agree with the records, for the containers that are ``wanted``; all else is taken down.

        Returns the endpoints of those that are seated, by container. What works for a running container works all the while. A published port that somebody has taken meanwhile is
        lost, with a warning.
        """
        for container_id in [one for one in self._places if one not in wanted]:
            await self.detach(container_id)
        await self._clear_strangers()
        for place in list(self._places.values()):
            await self._hold_again(place)
        seated = {place.seat.network for place in self._places.values()}
        networks = [one for one in self._bridges.networks.values() if one.number in seated]
        await self._bridges.take_up(networks)
        for network in networks:
            for place in self._places.values():
                if place.seat.network == network.number:
                    await self._wire_again(
                        place.seat, network, self._bridges.raised[network.number]
                    )
        return {key: self._endpoint(place.seat) for key, place in self._places.items()}

    def list(self, identity: Identity) -> list[NetworkView]:
        """What the caller has: a bridge, the host's network, and none."""
        return views.own(self._seats(), self._bridges, identity.owner)

    def inspect(self, identity: Identity, reference: str) -> NetworkView:
        """One of them, by name, id or the beginning of its id. Administrators reach others' by id.

        Raises:
            NotFound: There is none the caller may know of.
        """
        return views.one(self._seats(), self._bridges, identity, reference)

    def endpoint(self, container_id: str) -> Endpoint | None:
        """Where a container is seated; None when it is not."""
        place = self._places.get(container_id)
        return None if place is None or not place.whole else self._endpoint(place.seat)

    def pin(self, container_id: str) -> Path:
        """Where a container's network namespace is pinned."""
        return self._pins / container_id

    @property
    def _pins(self) -> Path:
        return self._config.run_root / "ns" / "net"

    @property
    def _link_prefix(self) -> str:
        return f"bv{self._config.instance_tag}-"

    def _link_name(self, number: int) -> str:
        return f"{self._link_prefix}{number:x}"

    def _seats(self) -> tuple[Seat, ...]:
        return tuple(place.seat for place in self._places.values() if place.whole)

    @asynccontextmanager
    async def _turn(self, container_id: str) -> AsyncIterator[None]:
        """One at a time for one container."""
        lock, waiting = self._turns.setdefault(container_id, (trio.Lock(), []))
        waiting.append(None)
        try:
            async with lock:
                yield
        finally:
            waiting.pop()
            if not waiting:
                self._turns.pop(container_id, None)

    async def _seat(
        self, seat: Seat, ports: Sequence[PortRequest], user_pin: Path | None
    ) -> _Place:
        network: tuple[Network, Raised] | None = None
        if seat.mode is Mode.BRIDGE:
            network = await self._bridges.wanted(seat.owner)
            place = self._reserve(seat, network[0], ports)
        else:
            place = _Place(seat)
        self._places[seat.container_id] = place
        try:
            if seat.mode is not Mode.HOST:
                pin = self.pin(seat.container_id)
                await mounts.network_namespace(self._spawner, pin, user_pin)
            if network is not None:
                await self._wire(place.seat, *network)
                await self._bridges.publish(place.seat.publications)
            place.recorded = True
            made = place.seat
            await self._database.write(lambda connection: self._record(connection, made))
        except BaseException:
            with finish_within(UNDO_SECONDS):
                await self._leave(place)
            raise
        place.whole = True
        return place

    def _reserve(self, seat: Seat, network: Network, ports: Sequence[PortRequest]) -> _Place:
        """An address, a link's number and the ports: all that can be short, before anything is made."""
        address = self._occupancy.free(network)
        if address is None:
            raise ResourceExhausted(
                f"cannot connect {seat.container_name}: all addresses of {network.subnet} are in use",
                "remove containers, or have an administrator set network.subnet_prefix_length",
            )
        holds = hold_all(ports, self._chooser, self._taken_by(seat.owner))
        self._occupancy.take(network.number, address)
        seat = attrs.evolve(
            seat,
            network=network.number,
            address=address,
            link=self._next_link(),
            ports=tuple(hold.port for hold in holds),
        )
        return _Place(seat, holds)

    def _taken_by(self, owner: int) -> Callable[[str, str, int], str]:
        """Who has a port, as far as ``owner`` may know."""

        def told(protocol: str, address: str, number: int) -> str:
            for place in self._places.values():
                for port in place.seat.ports if place.seat.owner == owner else ():
                    same = (port.protocol, port.host_port) == (protocol, number)
                    if same and overlap(port.host_address, address):
                        return f"by container {place.seat.container_name}"
            return "on this host"

        return told

    def _next_link(self) -> int:
        used = {place.seat.link for place in self._places.values()}
        while True:
            self._last_link = self._last_link % _LINKS_MAX + 1
            name = self._link_name(self._last_link)
            if self._last_link not in used and not self._occupancy.is_ending(name):
                return self._last_link

    async def _wire(self, seat: Seat, network: Network, there: Raised) -> None:
        assert seat.link is not None
        pin, name = self.pin(seat.container_id), self._link_name(seat.link)
        await wire(self._spawner, self._links, pin, name, seat, network, there)

    async def _leave(self, place: _Place) -> None:
        """The container has no place. Interrupted, it can be done again."""
        place.whole = False
        await self._take_down(place)
        if place.recorded:
            await self._database.write(lambda connection: self._forget(connection, place.seat))
        del self._places[place.seat.container_id]

    async def _take_down(self, place: _Place) -> None:
        """Nothing of the seat is there, its link ends within moments. What was never made is no hindrance.

        What has been given back is struck off at once: done again, it may be somebody else's.
        """
        await self._bridges.unpublish(place.seat.publications)
        for held in place.holds:
            held.release()
        place.holds, place.seat = [], attrs.evolve(place.seat, ports=())
        seat = place.seat
        if seat.mode is not Mode.HOST:
            await self._unpin(self.pin(seat.container_id))
        if seat.link is not None and seat.network is not None and seat.address is not None:
            self._occupancy.ends(self._link_name(seat.link), seat.network, seat.address)
            place.seat = attrs.evolve(seat, link=None)

    async def _unpin(self, pin: Path) -> None:
        await mounts.unpin(self._spawner, pin)

    async def watch_filter(self) -> None:
        """Mend our table, and our rules in dockerd's chain, when somebody has changed the packet filter; until cancelled."""
        changes = Changes()
        try:
            while True:
                await changes.wait([CHAIN, self._bridges.table])
                await trio.sleep(SETTLE_SECONDS)
                try:
                    await self._bridges.filter_again()
                except BakehouseError as error:
                    log.warning("%s", error)
        finally:
            changes.close()

    async def load(self) -> None:
        """Take up what is recorded; nothing is touched yet."""
        networks = await self._database.read(endpoints.load_networks)
        seats = await self._database.read(endpoints.load_seats)
        self._bridges.networks.update({network.number: network for network in networks})
        for seat in seats:
            self._places[seat.container_id] = _Place(seat, recorded=True, whole=True)
            if seat.network is not None and seat.address is not None:
                self._occupancy.take(seat.network, seat.address)
        self._last_link = max((seat.link or 0 for seat in seats), default=0)

    async def close(self) -> None:
        """With containers seated the data plane stays as it is; without, nothing is left."""
        for place in self._places.values():
            for held in place.holds:
                held.release()
        await self._occupancy.end_now()
        if not self._places:
            await self._bridges.leave_nothing()

    async def _clear_strangers(self) -> None:
        """Take down pins, links and bridges that no record speaks of: an earlier daemon died while it made them."""
        pins = {self.pin(container_id) for container_id in self._places}
        found = await mounts.mounted(self._spawner, self._pins)
        on_disk = await in_thread(lambda: list(self._pins.iterdir()))
        for pin in dict.fromkeys([*found, *on_disk]):
            if pin not in pins:
                await self._unpin(pin)
        links = {
            self._link_name(place.seat.link) for place in self._places.values() if place.seat.link
        }
        seated = {place.seat.network for place in self._places.values()}
        networks = self._bridges.networks.values()
        bridges = {self._bridges.link_name(one) for one in networks if one.number in seated}
        prefixes = (self._link_prefix, self._bridges.prefix)
        there = [link.name for link in await self._links.links() if link.name.startswith(prefixes)]
        strangers = [name for name in there if name not in links | bridges]
        await self._links.batch([netlink.delete(name) for name in strangers])

    async def _hold_again(self, place: _Place) -> None:
        """The ports are ours again; those that are not any more are struck from the record."""
        place.holds = hold_again(place.seat.ports)
        kept = tuple(held.port for held in place.holds)
        if kept != place.seat.ports:
            place.seat = attrs.evolve(place.seat, ports=kept)
            await self._database.write(
                lambda connection: endpoints.store_seat(connection, place.seat)
            )
        self._bridges.publications.update(place.seat.publications)

    async def _wire_again(self, seat: Seat, network: Network, there: Raised) -> None:
        """Mend the link of a running container if somebody took it or its bridge away."""
        assert seat.link is not None
        link = await self._links.link(self._link_name(seat.link))
        if link is None or link.master != there.index:
            log.warning("the link of container %s was gone: making it again", seat.container_name)
            try:
                await self._wire(seat, network, there)
            except NotFound:  # its namespace went with the last boot: so did the container
                log.warning("container %s has no network namespace", seat.container_name)

    def _endpoint(self, seat: Seat) -> Endpoint:
        network = None if seat.network is None else self._bridges.networks[seat.network]
        network_id = views.id_of(self._bridges, seat.owner, seat.mode)
        common = Endpoint(
            network_id=network_id,
            network_name=seat.mode.value,
            netns_pin=None if seat.mode is Mode.HOST else self.pin(seat.container_id),
            endpoint_id=endpoints.endpoint_id(network_id, seat.container_id),
        )
        if seat.mode is Mode.NONE:
            return common
        host = self._bridges.name_server.upstream.current()
        common = attrs.evolve(common, search=host.search, resolver_options=host.options)
        if network is None or seat.address is None:
            return attrs.evolve(common, resolvers=host.upstream)
        serves = self._bridges.serves_names(network)
        return attrs.evolve(
            common,
            address=str(seat.address),
            prefix_length=network.subnet.prefixlen,
            gateway=str(network.gateway),
            mac=mac_of(seat.address),
            interface=INTERFACE,
            ports=seat.ports,
            resolvers=host.told(str(network.gateway) if serves else None),
        )

    def _record(self, connection: sqlite3.Connection, seat: Seat) -> None:
        endpoints.store_seat(connection, seat)
        data = NetworkConnect(container=seat.container_id, address=str(seat.address or ""))
        self._tell(connection, data, seat)

    def _forget(self, connection: sqlite3.Connection, seat: Seat) -> None:
        if endpoints.remove_seat(connection, seat.container_id):
            self._tell(connection, NetworkDisconnect(container=seat.container_id), seat)

    def _tell(
        self, connection: sqlite3.Connection, data: NetworkConnect | NetworkDisconnect, seat: Seat
    ) -> None:
        self._events.record(
            connection,
            data,
            owner=seat.owner,
            subject=views.id_of(self._bridges, seat.owner, seat.mode),
            attributes={
                "container": seat.container_id,
                "name": seat.mode.value,
                "type": views.driver_of(seat.mode),
            },
        )


@contextmanager
def _closing(links: Netlink) -> Iterator[Netlink]:
    try:
        yield links
    finally:
        links.close()


@asynccontextmanager
async def open_networks(
    database: Database, events: Events, spawner: Spawner, _owners: Owners, config: Config
) -> AsyncIterator[Networks]:
    """The networks, with what is recorded of them; :meth:`Networks.recover` comes next, before any container.

    Owners must be open: they are told with each container.

    Raises:
        Unavailable: libnftables is not installed.
    """
    settings = config.network
    bridges_prefix = f"bh{config.instance_tag}-"
    async with open_nftables() as nftables:
        with _closing(Netlink()) as links, _closing(Netlink()) as endings:
            async with trio.open_nursery() as nursery:
                bridges = Bridges(
                    config=config,
                    database=database,
                    links=links,
                    filter=nftables,
                    neighbours=Neighbours(spawner, bridges_prefix, config.instance),
                    name_server=NameServer(Names(), Upstream()),
                )
                occupancy = Occupancy(endings)
                chooser = Chooser(settings.ephemeral_first, settings.ephemeral_last)
                networks = Networks(
                    config, database, events, spawner, bridges, links, occupancy, chooser
                )
                pins = config.run_root / "ns" / "net"
                await in_thread(lambda: pins.mkdir(mode=0o700, parents=True, exist_ok=True))
                await networks.load()
                nursery.start_soon(occupancy.run)
                nursery.start_soon(bridges.name_server.run)
                nursery.start_soon(networks.watch_filter)
                try:
                    yield networks
                finally:
                    nursery.cancel_scope.cancel()
                    with finish_within(UNDO_SECONDS):
                        await networks.close()
