"""The networks' bridges: made when first wanted, each with its addresses and a name server.

Words: a bridge is **raised** when its link, its place in the packet filter and its name server are there.

Rules: a subnet nobody named is cut around what the host has routes to, and recorded before its bridge is made; a default
bridge keeps it for as long as the host gets no other route into it. A bridge has its network's number in its name,
behind a prefix that no other daemon's bridges have. Raising one holds up those who want that one alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from ipaddress import IPv4Address, IPv4Network

import attrs
import trio

from supervisor.config import Config
from supervisor.errors import Unavailable
from supervisor.linux import netlink
from supervisor.linux.netlink import Netlink
from supervisor.linux.nftables import Nftables, NftablesRefused
from supervisor.network import options, ruleset
from supervisor.network.addresses import mac_of
from supervisor.network.dns import NameServer
from supervisor.network.endpoints import Network
from supervisor.network.names import NamedNetwork
from supervisor.network.neighbours import (
    Neighbours,
    allow_forwarding,
    allow_forwarding_ipv6,
    set_up_interface,
)
from supervisor.tasks import Turns

log = logging.getLogger(__name__)


@attrs.define(eq=False)
class Raised:
    """A bridge that is there.

    Attributes:
        network: As it was when it was raised.
        index: Of its link.
    """

    network: Network
    index: int


@attrs.define(eq=False)
class Bridges:
    """All bridges of this daemon, and the packet filter's table they are in."""

    config: Config
    links: Netlink
    filter: Nftables
    neighbours: Neighbours
    name_server: NameServer
    raised: dict[int, Raised] = attrs.field(factory=dict)
    publications: set[ruleset.Publication] = attrs.field(factory=set)
    _table_there: bool = False
    _table: trio.Lock = attrs.field(factory=trio.Lock)
    _turns: Turns[int] = attrs.field(factory=Turns)

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

    def turn(self, number: int) -> AbstractAsyncContextManager[None]:
        """One at a time for one network: who raises it, who is about to have a wire to it, who removes it."""
        return self._turns.of(number)

    async def wanted(self, network: Network) -> Raised:
        """The network's bridge is raised; the caller has its turn."""
        there = self.raised.get(network.number)
        return there if there is not None else await self._raise(network)

    async def take_up(self, networks: list[Network]) -> None:
        """The bridges of networks with containers on them are there; they may have been there all the time.

        The table is replaced in one transaction before anything else, so that nothing that works is interrupted and
        nobody is unguarded for a moment.
        """
        if not networks:
            return
        async with self._table:
            await self._replace_table(networks)
        for network in networks:
            async with self.turn(network.number):
                await self._raise(network)

    async def filter_again(self) -> None:
        """The table is as it should be; somebody may have taken it away (``nft flush ruleset`` does)."""
        async with self._table:
            if self._table_there and not await self.filter.has_table("inet", self.table):
                log.warning("somebody removed the table %s: making it again", self.table)
                await self._fill_table([there.network for there in self.raised.values()])
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
        if gone:
            await self._take_out(ruleset.unpublish(self.table, gone))

    async def lower(self, network: Network) -> None:
        """The network's bridge is gone. No container is on it; the caller has its turn."""
        self.raised.pop(network.number, None)
        self.name_server.close(network.number)
        self.name_server.names.close(network.number)
        await self._take_out(ruleset.leave(self.table, self._filtered(network)))
        await self.links.batch([netlink.delete(self.link_name(network))])

    async def leave_nothing(self) -> None:
        """No bridge, no table, no rule with our mark is there."""
        for there in list(self.raised.values()):
            await self.lower(there.network)
        await self.filter.apply(ruleset.gone(self.table))
        self._table_there = False
        await self.neighbours.leave()

    async def _take_out(self, script: str) -> None:
        if not self._table_there:
            return
        try:
            await self.filter.apply(script)
        except NftablesRefused as error:
            if not error.missing:  # without the table nothing is in it
                raise

    async def _raise(self, network: Network) -> Raised:
        name, mtu = self.link_name(network), options.read(network.options).mtu
        await self.links.batch([netlink.bridge(name, mac_of(network.ipv4.gateway), mtu)])
        index = await self.links.index(name)
        assert index is not None
        await set_up_interface(name, ipv6=network.ipv6 is not None)
        if network.ipv6 is not None and await allow_forwarding_ipv6():
            log.warning("switched on IPv6 forwarding, which networks with IPv6 need")
        await self.links.batch(
            [
                *(
                    netlink.address(index, pool.gateway, pool.subnet.prefixlen)
                    for pool in network.pools
                ),
                netlink.up(name),
            ]
        )
        await self._let_through(network)
        self._serve_names(network, name)
        there = self.raised[network.number] = Raised(network, index)
        return there

    async def _let_through(self, network: Network) -> None:
        async with self._table:
            if self._table_there:
                await self.filter.apply(ruleset.enter(self.table, self._filtered(network)))
            else:
                await self._replace_table([network])

    async def _replace_table(self, networks: list[Network]) -> None:
        await self._fill_table(networks)
        self._table_there = True
        if await allow_forwarding():
            log.warning("switched on IPv4 forwarding (net.ipv4.ip_forward), which containers need")
        await self.neighbours.enter()

    async def _fill_table(self, networks: list[Network]) -> None:
        bridges = [self._filtered(network) for network in networks]
        await self.filter.apply(
            ruleset.whole(self.table, bridges, sorted(self.publications, key=str))
        )

    def _serve_names(self, network: Network, name: str) -> None:
        subnets = tuple(pool.subnet for pool in network.pools)
        self.name_server.names.open(
            NamedNetwork(
                network.number,
                network.name,
                subnets,
                named=not network.default,
                internal=network.internal,
            )
        )
        if not network.default:
            return  # who is on it has a door of its own
        gateway = network.ipv4.gateway
        assert isinstance(gateway, IPv4Address)
        try:
            self.name_server.open(network.number, network.owner, gateway, name)
        except Unavailable as error:
            log.warning("%s; containers ask the host's resolvers themselves", error)

    def _filtered(self, network: Network) -> ruleset.Bridge:
        chosen = options.read(network.options)
        assert isinstance(network.ipv4.subnet, IPv4Network)
        subnet_ipv6 = None if network.ipv6 is None else network.ipv6.subnet
        assert not isinstance(subnet_ipv6, IPv4Network)
        return ruleset.Bridge(
            self.link_name(network),
            network.ipv4.subnet,
            network.owner,
            internal=network.internal,
            within=chosen.within,
            hidden=chosen.hidden,
            subnet_ipv6=subnet_ipv6,
        )
