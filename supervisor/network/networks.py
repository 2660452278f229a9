"""Networks: what a container needs to speak to others, and to be spoken to.

Words: see :mod:`supervisor.network.endpoints`, :mod:`supervisor.network.bridges`, :mod:`supervisor.network.ruleset`.

Rules:

* Every network has a bridge of its own, so that nobody shares a wire with another owner. Docker's ``bridge`` is, for
  each owner, one that is made when it is first used.
* Effects first, then the record with its event. What has effects and no record is taken down at recovery.
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

from supervisor.errors import BakehouseError, NotFound, PermissionDenied
from supervisor.linux.netlink import Netlink
from supervisor.linux.nftables import Changes, open_nftables
from supervisor.network import recovery, rows, views
from supervisor.network.bridges import Bridges
from supervisor.network.dns import NameServer
from supervisor.network.dns_upstream import Upstream
from supervisor.network.endpoints import (
    Connection,
    Endpoint,
    Mode,
    Network,
    NetworkView,
    Sandbox,
    Seat,
)
from supervisor.network.names import Names
from supervisor.network.neighbours import CHAIN, Neighbours
from supervisor.network.occupancy import Occupancy
from supervisor.network.publishing import BoundPort, Chooser
from supervisor.network.registry import Builtin, Registry
from supervisor.network.seat_ledger import Also
from supervisor.network.seating import UNDO_SECONDS, Seats
from supervisor.network.subnets import Subnets
from supervisor.tasks import finish_within, in_thread

if TYPE_CHECKING:
    from supervisor.access.identity import Identity
    from supervisor.access.owners import Owner, Owners
    from supervisor.access.requests import NetworkRequest, PortRequest
    from supervisor.config import Config
    from supervisor.database.database import Database
    from supervisor.events.journal import Events
    from supervisor.linux.spawner import Spawner

__all__ = ["BoundPort", "Endpoint", "NetworkView", "Networks", "Sandbox", "open_networks"]

log = logging.getLogger(__name__)

SETTLE_SECONDS = 0.5
"""Between a change of the packet filter by somebody else and our look at it."""

_PREFIX = "container:"


@attrs.define(eq=False)
class Networks:
    """The networks of this daemon. Made by :func:`open_networks`."""

    _database: Database
    _registry: Registry
    _subnets: Subnets
    _bridges: Bridges
    _occupancy: Occupancy
    _seats: Seats

    # --- networks ----------------------------------------------------------------------------------------------

    async def create(self, owner: int, request: NetworkRequest) -> NetworkView:
        """A network of the owner's; its bridge is made when it is first used.

        Raises:
            BakehouseError: See :meth:`Subnets.create`.
        """
        return views.network_view(self._seats, await self._subnets.create(owner, request))

    async def remove(self, identity: Identity, reference: str) -> None:
        """It is gone.

        Raises:
            NotFound: The caller has none such.
            PermissionDenied: Everybody has it, or somebody is on it; Docker's wording and status.
        """
        await self._remove(self._registry.find(identity, reference))

    async def prune(self, owner: int, unwanted: Callable[[Network], bool]) -> list[str]:
        """The owner's that are ``unwanted`` and nobody is on are gone; their names."""
        removed = []
        for known in list(self._registry.own(owner)):
            if isinstance(known, Builtin) or known.default or not unwanted(known):
                continue
            try:
                await self._remove(known)
            except (NotFound, PermissionDenied):
                continue  # used, or removed by somebody else meanwhile
            removed.append(known.name)
        return removed

    async def _remove(self, known: Network | Builtin) -> None:
        if isinstance(known, Builtin) or known.default:
            raise PermissionDenied(f"{known.name} is a pre-defined network and cannot be removed")
        async with self._bridges.turn(known.number):
            if known.number not in self._registry.numbered:
                raise NotFound(f"network {known.name} not found")
            if self._registry.members[known.number]:
                raise PermissionDenied(
                    f"error while removing network: network {known.name} id {known.id} has active endpoints"
                )
            await self._bridges.lower(known)
            await self._subnets.remove(known)

    def made_by(self, owner: int) -> int:
        """How many networks an owner has made."""
        return self._registry.made_by(owner)

    def ports_of(self, owner: int) -> int:
        """How many ports of the host an owner's containers have published."""
        return self._seats.holders.count(owner)

    def list(self, identity: Identity) -> list[NetworkView]:
        """What the caller has."""
        return [views.network_view(self._seats, one) for one in self._registry.own(identity.owner)]

    def inspect(self, identity: Identity, reference: str) -> NetworkView:
        """One of them, by name, id or the beginning of its id. Administrators reach others' by id.

        Raises:
            NotFound: There is none the caller may know of.
        """
        return views.network_view(self._seats, self._registry.find(identity, reference))

    # --- containers --------------------------------------------------------------------------------------------

    async def network(self, owner: int, reference: str) -> Network | Builtin:
        """An owner's network, by name or id; a default bridge is recorded with this.

        Raises:
            NotFound: They have none such.
        """
        found = self._registry.of_owner(owner, reference)
        if isinstance(found, Builtin) and found.mode is Mode.BRIDGE:
            return await self._subnets.default_bridge(owner)
        return found

    def hold(self, container_id: str, connections: Sequence[Connection]) -> None:
        """The addresses asked for are kept for the container while it does not run, if they can be."""
        for connection in connections:
            network = self._known(connection)
            if network is not None:
                self._occupancy.hold(network, container_id, connection.addresses)

    def let_go(self, container_id: str, connections: Sequence[Connection]) -> None:
        """They are not kept any more."""
        for connection in connections:
            network = self._known(connection)
            if network is not None:
                self._occupancy.let_go(network, container_id, connection.addresses)

    def _known(self, connection: Connection) -> Network | None:
        try:
            return self._registry.get(connection.network_id, connection.name)
        except NotFound:
            return None

    async def attach(  # noqa: PLR0913, PLR0917  # what a place is made of
        self,
        container_id: str,
        container_name: str,
        owner: Owner,
        mode: str,
        ports: Sequence[PortRequest],
        user_pin: Path | None,
        connections: Sequence[Connection] | None = None,
        servers: Sequence[str] = (),
    ) -> Sandbox:
        """Seat a container: namespace, wires, addresses, published ports. One that is seated keeps its place.

        Args:
            container_id: Also of a build step.
            container_name: For messages and listings.
            owner: Whose networks it is put on.
            mode: ``none``, ``host``, ``container:`` and an id, or a network (``default`` is the default bridge).
            ports: To publish; only with a way out they are.
            user_pin: The user namespace its network namespace shall belong to; None for the host's.
            connections: To its networks, in order; None for the one the mode names.
            servers: Resolvers it was given, which are asked for it what we do not know.

        Raises:
            Conflict: A port is taken, or the other container does not run.
            InvalidArgument: An address or port that makes no sense.
            NotFound: There is no such network.
            ResourceExhausted: No address, subnet or port is left.
        """
        seat = Seat(container_id, container_name, owner.uid, Mode.BRIDGE, servers=tuple(servers))
        if mode in {Mode.HOST, Mode.NONE}:
            await self._seats.attach(attrs.evolve(seat, mode=Mode(mode)), (), (), user_pin)
        elif mode.startswith(_PREFIX):
            shared = attrs.evolve(seat, mode=Mode.CONTAINER, host=mode.removeprefix(_PREFIX))
            await self._seats.attach(shared, (), (), user_pin)
        else:
            wished = connections
            if wished is None:
                wished = [await self.connection(owner.uid, mode)]
            await self._seats.attach(seat, wished, ports, user_pin)
        sandbox = self.sandbox(container_id)
        assert sandbox is not None
        return sandbox

    async def connection(self, owner: int, mode: str) -> Connection:
        """The connection to a network named by a container's mode, without wishes.

        Raises:
            NotFound: The owner has none such.
        """
        network = await self.network(owner, "bridge" if mode in {"", "default"} else mode)
        return Connection(network.id, network.name)

    async def detach(self, container_id: str) -> None:
        """The container has no place: nothing published, no namespace pinned, its links gone within moments."""
        await self._seats.detach(container_id)

    async def connect(
        self, container_id: str, connection: Connection, ports: Sequence[PortRequest], also: Also
    ) -> None:
        """A seated container is on one network more.

        Args:
            container_id: Whose.
            connection: Where to.
            ports: What it wants published as soon as it has a way out.
            also: Written in the same transaction.

        Raises:
            BakehouseError: See :meth:`attach`; nothing has changed.
        """
        await self._seats.connect(container_id, connection, ports, also)

    async def disconnect(self, container_id: str, connection: Connection, also: Also) -> None:
        """A seated container is not on the network any more.

        Raises:
            NotFound: It is not on it.
        """
        network = self._registry.get(connection.network_id, connection.name)
        await self._seats.disconnect(container_id, network.number, also)

    async def rename(self, container_id: str, name: str) -> None:
        """The container is called so from now on, in messages and listings."""
        await self._seats.rename(container_id, name)

    def sandbox(self, container_id: str) -> Sandbox | None:
        """What a container has of networks; None when it is not seated."""
        seat = self._seats.seat(container_id)
        return None if seat is None else views.sandbox(self._seats, seat)

    def pin(self, container_id: str) -> Path:
        """Where a container's network namespace is pinned."""
        return self._seats.pins / container_id

    # --- the daemon's life -------------------------------------------------------------------------------------

    async def recover(self, wanted: Collection[str]) -> dict[str, Sandbox]:
        """Make the kernel agree with the records, for the containers that are ``wanted``; all else is taken down.

        Returns what those have that are seated, by container. What works for a running container works all the while.
        A published port that somebody has taken meanwhile is lost, with a warning.
        """
        await recovery.recover(self._seats, wanted)
        return {
            container_id: views.sandbox(self._seats, place.seat)
            for container_id, place in self._seats.places.items()
        }

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
        for network in await self._database.read(rows.load_networks):
            self._registry.add(network)
            self._occupancy.open(network)
        for seat in await self._database.read(rows.load_seats):
            self._seats.take_up(seat)

    async def close(self) -> None:
        """With containers seated the data plane stays as it is; without, nothing is left."""
        for place in self._seats.places.values():
            for held in place.holds:
                held.release()
        await self._occupancy.end_now()
        if not self._seats.places:
            await self._bridges.leave_nothing()


@contextmanager
def _closing(links: Netlink) -> Iterator[Netlink]:
    try:
        yield links
    finally:
        links.close()


@asynccontextmanager
async def open_networks(
    database: Database, events: Events, spawner: Spawner, owners: Owners, config: Config
) -> AsyncIterator[Networks]:
    """The networks, with what is recorded of them; :meth:`Networks.recover` comes next, before any container.

    Owners must be open: they are told with each container.

    Raises:
        Unavailable: libnftables is not installed.
    """
    settings = config.network
    neighbours = Neighbours(spawner, f"bh{config.instance_tag}-", config.instance)
    async with open_nftables() as nftables:
        with _closing(Netlink()) as links, _closing(Netlink()) as endings:
            async with trio.open_nursery() as nursery:
                server = NameServer(Names(), Upstream())
                bridges = Bridges(config, links, nftables, neighbours, server)
                occupancy = Occupancy(endings)
                registry = Registry(database.epoch)
                subnets = Subnets(config, database, events, links, registry, occupancy, owners)
                seats = Seats(
                    config=config,
                    database=database,
                    events=events,
                    spawner=spawner,
                    bridges=bridges,
                    registry=registry,
                    subnets=subnets,
                    links=links,
                    occupancy=occupancy,
                    chooser=Chooser(settings.ephemeral_first, settings.ephemeral_last),
                    owners=owners,
                )
                networks = Networks(database, registry, subnets, bridges, occupancy, seats)
                await in_thread(lambda: seats.pins.mkdir(mode=0o700, parents=True, exist_ok=True))
                await networks.load()
                nursery.start_soon(occupancy.run)
                nursery.start_soon(server.run)
                nursery.start_soon(networks.watch_filter)
                try:
                    yield networks
                finally:
                    nursery.cancel_scope.cancel()
                    with finish_within(UNDO_SECONDS):
                        await networks.close()
