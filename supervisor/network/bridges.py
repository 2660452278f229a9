"""Owners' bridges: made when first wanted, each with a subnet, a gateway and a name server.

Words: a bridge is **raised** when its link, its place in the packet filter and its name server are there.

Rules: a subnet is cut around what the host has routes to, and recorded before its bridge is made; it is kept for as long
as the host gets no other route into it. A bridge has its network's number in its name, behind a prefix that no other
daemon's bridges have.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from ipaddress import IPv4Network

import attrs
import trio

from supervisor import clock
from supervisor.config import Config
from supervisor.database.database import Database
from supervisor.errors import ResourceExhausted, Unavailable
from supervisor.linux import netlink
from supervisor.linux.netlink import Netlink
from supervisor.linux.nftables import Nftables, NftablesRefused
from supervisor.network import ruleset
from supervisor.network.addresses import free_subnet, mac_of
from supervisor.network.dns import NameServer
from supervisor.network.endpoints import Mode, Network, network_id, store_network
from supervisor.network.names import NamedNetwork
from supervisor.network.neighbours import Neighbours, allow_forwarding, set_up_interface

log = logging.getLogger(__name__)


@attrs.define(eq=False)
class Raised:
    """A bridge that is there.

    Attributes:
        index: Of its link.
    """

    index: int


@attrs.define(eq=False)
class Bridges:
    """All bridges of this daemon, and the packet filter's table they are in."""

    config: Config
    database: Database
    links: Netlink
    filter: Nftables
    neighbours: Neighbours
    name_server: NameServer
    networks: dict[int, Network] = attrs.field(factory=dict)
    raised: dict[int, Raised] = attrs.field(factory=dict)
    publications: set[ruleset.Publication] = attrs.field(factory=set)
    _table_there: bool = False
    _one: trio.Lock = attrs.field(factory=trio.Lock)

    @property
    def prefix(self) -> str:
        """What the names of our bridges begin with, and no other daemon's do."""
        return f"bh{self.config.instance_tag}-"

    @property
    def table(self) -> str:
        """The name of our table."""
        return self.config.instance

    def link_name(self, network: Network) -> str:
        """The name of a network's bridge."""
        return f"{self.prefix}{network.number}"

    def serves_names(self, network: Network) -> bool:
        """Whether a name server of ours is at its gateway."""
        return self.name_server.serves(network.number)

    def of(self, owner: int) -> Network | None:
        """An owner's network, if it has been made."""
        return next((one for one in self.networks.values() if one.owner == owner), None)

    async def wanted(self, owner: int) -> tuple[Network, Raised]:
        """An owner's network, recorded, with its bridge raised.

        Raises:
            ResourceExhausted: The pool has no subnet left.
        """
        async with self._one:
            network = self.of(owner)
            if network is None or network.number not in self.raised:
                network = await self._settled(owner, network)
            return network, await self._raise(network)

    async def take_up(self, networks: list[Network]) -> None:
        """The bridges of networks with containers on them are there; they may have been there all the time.

        The table is replaced in one transaction before anything else, so that nothing that works is interrupted and
        nobody is unguarded for a moment.
        """
        if not networks:
            return
        async with self._one:
            await self._replace_table(networks)
            for network in networks:
                await self._raise(network)

    async def filter_all(self) -> None:
        """The table holds exactly the raised bridges and the publications, whatever it held before."""
        await self._fill_table([self.networks[number] for number in sorted(self.raised)])

    async def filter_again(self) -> None:
        """The table is as it should be; somebody may have taken it away (``nft flush ruleset`` does)."""
        async with self._one:
            if self._table_there and not await self.filter.has_table("inet", self.table):
                log.warning("somebody removed the table %s: making it again", self.table)
                await self.filter_all()
        if self._table_there:
            await self.neighbours.enter()

    async def publish(self, publications: Iterable[ruleset.Publication]) -> None:
        """These ports are mapped."""
        added = list(publications)
        self.publications.update(added)
        if added:
            await self.filter.apply(ruleset.publish(self.table, added))

    async def unpublish(self, publications: Iterable[ruleset.Publication]) -> None:
        """These ports are not mapped."""
        gone = list(publications)
        self.publications.difference_update(gone)
        if not gone or not self._table_there:
            return
        try:
            await self.filter.apply(ruleset.unpublish(self.table, gone))
        except NftablesRefused as error:
            if not error.missing:  # without the table nothing is mapped
                raise

    async def lower(self, networks: list[Network]) -> None:
        """These bridges are gone. No container is on them."""
        for network in networks:
            self.raised.pop(network.number, None)
            self.name_server.close(network.number)
            self.name_server.names.close(network.number)
        if self._table_there:
            await self.filter_all()
        await self.links.batch([netlink.delete(self.link_name(one)) for one in networks])

    async def leave_nothing(self) -> None:
        """No bridge, no table, no rule with our mark is there."""
        await self.lower(list(self.networks.values()))
        await self.filter.apply(ruleset.gone(self.table))
        self._table_there = False
        await self.neighbours.leave()

    async def _settled(self, owner: int, known: Network | None) -> Network:
        """A network with a subnet that is free, recorded."""
        routes = await self.links.routes()
        if known is not None and not any(known.subnet.overlaps(route) for route in routes):
            return known
        others = [one for one in self.networks.values() if one is not known]
        subnet = self._cut([*routes, *(one.subnet for one in others)])
        number = known.number if known else max(self.networks, default=0) + 1
        network = Network(
            number=number,
            id=network_id(self.database.epoch, owner, Mode.BRIDGE),
            owner=owner,
            name=Mode.BRIDGE,
            subnet=subnet,
            created_ns=known.created_ns if known else clock.now_ns(),
        )
        await self.database.write(lambda connection: store_network(connection, network))
        self.networks[number] = network
        return network

    def _cut(self, taken: list[IPv4Network]) -> IPv4Network:
        settings = self.config.network
        # Daemons side by side begin at different places, so that two that look at once do not cut the same.
        start = int(self.config.instance_tag or "0", 16)
        subnet = free_subnet(
            IPv4Network(settings.pool), settings.subnet_prefix_length, taken, start
        )
        if subnet is None:
            raise ResourceExhausted(
                f"cannot make a network: all of {settings.pool} is in use",
                "set network.pool to a larger range that this host does not use",
            )
        return subnet

    async def _raise(self, network: Network) -> Raised:
        there = self.raised.get(network.number)
        if there is not None:
            return there
        name = self.link_name(network)
        await self.links.batch([netlink.bridge(name, mac_of(network.gateway))])
        index = await self.links.index(name)
        assert index is not None
        await set_up_interface(name)
        await self.links.batch(
            [
                netlink.address(index, network.gateway, network.subnet.prefixlen),
                netlink.up(name),
            ]
        )
        await self._let_through(network)
        self._serve_names(network, name)
        there = Raised(index)
        self.raised[network.number] = there
        return there

    async def _let_through(self, network: Network) -> None:
        if self._table_there:
            await self.filter.apply(ruleset.enter(self.table, self._filtered(network)))
            return
        await self._replace_table([network])

    async def _replace_table(self, networks: list[Network]) -> None:
        await self._fill_table(networks)
        self._table_there = True
        if await allow_forwarding():
            log.warning("switched on IPv4 forwarding (net.ipv4.ip_forward), which containers need")
        await self.neighbours.enter()

    async def _fill_table(self, networks: list[Network]) -> None:
        bridges = [self._filtered(network) for network in networks]
        await self.filter.apply(ruleset.whole(self.table, bridges, sorted(self.publications)))

    def _serve_names(self, network: Network, name: str) -> None:
        self.name_server.names.open(
            NamedNetwork(network.number, network.name, (network.subnet,), named=False)
        )
        try:
            self.name_server.open(network.number, network.owner, network.gateway, name)
        except Unavailable as error:
            log.warning("%s; containers ask the host's resolvers themselves", error)

    def _filtered(self, network: Network) -> ruleset.Bridge:
        return ruleset.Bridge(self.link_name(network), network.subnet, network.owner)
