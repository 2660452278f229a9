"""Making networks: names, bounds, and subnets cut around what the host has routes to.

Rules: a network is recorded before anything of it is made. One at a time chooses a subnet, and for no longer than it
takes to look at the routes and to record it.
"""

from __future__ import annotations

import logging
import secrets
import socket
import sqlite3
from collections.abc import Callable
from ipaddress import ip_network
from typing import TYPE_CHECKING

import attrs
import trio

from protocol.events import NetworkCreate, NetworkDestroy
from supervisor import clock
from supervisor.errors import (
    AlreadyExists,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from supervisor.linux.conntrack import forget_all_of
from supervisor.network import options, rows
from supervisor.network.addresses import OVERLAP, free_subnet, gateway_of, named_pool, overlaps
from supervisor.network.endpoints import DEFAULT_BRIDGE, AddressPool, Mode, Network, Subnet
from supervisor.network.neighbours import FORWARDING_IPV6
from supervisor.network.registry import PREDEFINED
from supervisor.tasks import finish_within

if TYPE_CHECKING:
    from supervisor.access.owners import Owners
    from supervisor.access.requests import NetworkRequest
    from supervisor.config import Config
    from supervisor.database.database import Database
    from supervisor.events.journal import Events
    from supervisor.linux.netlink import Netlink
    from supervisor.network.occupancy import Occupancy
    from supervisor.network.registry import Registry

log = logging.getLogger(__name__)

WRITE_SECONDS = 10.0
_IPV4, _IPV6 = 4, 6
_IPV6_PREFIX_LENGTH = 64


@attrs.define(eq=False)
class Subnets:
    """Who makes networks and unmakes them, as far as records go."""

    config: Config
    database: Database
    events: Events
    links: Netlink
    registry: Registry
    occupancy: Occupancy
    owners: Owners
    _one: trio.Lock = attrs.field(factory=trio.Lock)

    async def create(self, owner: int, request: NetworkRequest) -> Network:
        """A network of the owner's, recorded; nothing is made in the kernel yet.

        Raises:
            AlreadyExists: They have one of that name; Docker's wording.
            InvalidArgument: It makes no sense.
            NotFound: There is no such driver; Docker's wording.
            PermissionDenied: A name that everybody has, or a subnet that is taken; Docker's wording and status.
            ResourceExhausted: They have as many as they may, or no subnet is left.
        """
        self._check(request)
        async with self._one:
            if self.registry.named(owner, request.name) is not None:
                raise AlreadyExists(f"network with name {request.name} already exists")
            self._admit(owner)
            taken = await self._taken()
            network = Network(
                number=self.registry.next_number(),
                id=secrets.token_hex(32),
                owner=owner,
                name=request.name,
                ipv4=self._pool(request, _IPV4, taken),
                created_ns=clock.now_ns(),
                ipv6=self._pool(request, _IPV6, taken) if request.enable_ipv6 else None,
                internal=request.internal,
                attachable=request.attachable,
                options=request.options,
                labels=request.labels,
            )
            await self._record(network, NetworkCreate())
        return network

    async def default_bridge(self, owner: int) -> Network:
        """An owner's default bridge, recorded.

        Raises:
            ResourceExhausted: The pool has no subnet left.
        """
        async with self._one:
            known = self.registry.named(owner, DEFAULT_BRIDGE)
            if known is not None:
                return known
            length = self.config.network.bridge_prefix_length
            network = Network(
                number=self.registry.next_number(),
                id=self.registry.id_of(owner, Mode.BRIDGE),
                owner=owner,
                name=DEFAULT_BRIDGE,
                ipv4=self._cut(length, await self._taken()),
                created_ns=clock.now_ns(),
            )
            await self._record(network)
        return network

    async def settled(self, network: Network) -> Network:
        """A network whose bridge is not there, in a subnet that the host has no other route into.

        Raises:
            PermissionDenied: Its subnet was named, and the host has one.
        """
        routes = await self._routes()
        if not any(overlaps(pool.subnet, route) for pool in network.pools for route in routes):
            return network
        if any(pool.chosen for pool in network.pools):
            raise PermissionDenied(
                f"cannot use network {network.name}: {OVERLAP}", "the host has a route into it now"
            )
        async with self._one:
            taken = await self._taken(network)
            moved = attrs.evolve(network, ipv4=self._cut(network.ipv4.subnet.prefixlen, taken))
            if network.ipv6 is not None:
                moved = attrs.evolve(moved, ipv6=self._cut_ipv6(taken))
            await self._record(moved)
        return moved

    async def remove(self, network: Network) -> None:
        """It is not recorded any more. Nothing of it is in the kernel, and nobody is on it."""

        def work(connection: sqlite3.Connection) -> None:
            if rows.remove_network(connection, network.number):
                self._tell(connection, network, NetworkDestroy())

        try:
            await forget_all_of(pool.subnet for pool in network.pools)
        except Internal as error:
            log.warning("%s; they may go on to who gets their subnet next", error)
        await self._write(work)
        self.registry.remove(network)
        self.occupancy.close(network)

    def _check(self, request: NetworkRequest) -> None:
        if request.driver in {"host", "null"}:
            raise PermissionDenied(f'only one instance of "{request.driver}" network is allowed')
        if request.driver != "bridge":
            raise NotFound(f'plugin "{request.driver[:80]}" not found')
        if request.name in {*(mode.value for mode in PREDEFINED), "default", "container"}:
            raise PermissionDenied(
                f"operation is not permitted on predefined {request.name} network "
            )
        options.read(request.options)
        if request.enable_ipv6 and not FORWARDING_IPV6.exists():
            raise Unavailable(
                f"cannot create network {request.name}: this host has no IPv6", "leave out --ipv6"
            )
        versions = [_version(pool.subnet) for pool in request.pools]
        if len(versions) != len(set(versions)):
            raise InvalidArgument(
                f"cannot create network {request.name}: bridge driver doesn't support multiple subnets"
            )
        if _IPV6 in versions and not request.enable_ipv6:
            raise InvalidArgument(
                f"cannot create network {request.name}: it has an IPv6 subnet, and no IPv6",
                "set EnableIPv6 (--ipv6)",
            )

    def _admit(self, owner: int) -> None:
        most, have = self.owners.limits(owner).networks_max, self.registry.made_by(owner)
        if most and have >= most:
            raise ResourceExhausted(
                f"cannot create a network: you have {have}, and {most} are allowed",
                "remove those that nobody uses: docker network prune",
            )

    def _pool(self, request: NetworkRequest, version: int, taken: list[Subnet]) -> AddressPool:
        named = next((one for one in request.pools if _version(one.subnet) == version), None)
        if named is not None:
            return named_pool(named, taken)
        if version == _IPV6:
            return self._cut_ipv6(taken)
        return self._cut(self.config.network.subnet_prefix_length, taken)

    def _cut(self, length: int, taken: list[Subnet]) -> AddressPool:
        return self._cut_from(self.config.network.pool, length, taken)

    def _cut_ipv6(self, taken: list[Subnet]) -> AddressPool:
        return self._cut_from(self.config.network.pool_ipv6, _IPV6_PREFIX_LENGTH, taken)

    def _cut_from(self, pool: str, length: int, taken: list[Subnet]) -> AddressPool:
        # Daemons side by side begin at different places, so that two that look at once do not cut the same.
        start = int(self.config.instance_tag or "0", 16)
        subnet = free_subnet(ip_network(pool), length, taken, start)
        if subnet is None:
            raise ResourceExhausted(
                f"cannot make a network: all of {pool} is in use",
                "have an administrator set a larger pool that this host does not use",
            )
        return AddressPool(subnet, gateway_of(subnet))

    async def _routes(self) -> list[Subnet]:
        return [
            *await self.links.routes(),
            *await self.links.routes(socket.AF_INET6),
        ]

    async def _taken(self, but: Network | None = None) -> list[Subnet]:
        others = [one for one in self.registry.numbered.values() if one is not but]
        return [*await self._routes(), *(pool.subnet for one in others for pool in one.pools)]

    async def _record(self, network: Network, event: NetworkCreate | None = None) -> None:
        def work(connection: sqlite3.Connection) -> None:
            rows.store_network(connection, network)
            if event is not None:
                self._tell(connection, network, event)

        await self._write(work)
        self.registry.add(network)
        self.occupancy.open(network)

    async def _write(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Written as a whole or not at all, whoever goes away meanwhile: memory and records must agree."""
        with finish_within(WRITE_SECONDS) as scope:
            await self.database.write(work)
        if scope.cancelled_caught:
            raise Internal("cannot write down the network: no answer")

    def _tell(
        self,
        connection: sqlite3.Connection,
        network: Network,
        event: NetworkCreate | NetworkDestroy,
    ) -> None:
        self.events.record(
            connection,
            event,
            owner=network.owner,
            subject=network.id,
            attributes={"name": network.name, "type": "bridge"},
        )


def _version(subnet: str) -> int:
    return _IPV6 if ":" in subnet else _IPV4
