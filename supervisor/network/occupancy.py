"""Which addresses are in use or held, and the links of those who have gone.

Words: a link is **ending** from when its container has gone until the kernel has deleted it; an address is **held** for
a container that asked for it and does not run.

Rules: an address is in use until its link is gone, so that two cards never have it at once, and until the kernel has
forgotten the connections that published ports led to it, which would go on to whoever has it next. Links are ended many
at a time, apart from everything else: each waits tens of milliseconds for the kernel's routing lock.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import attrs
import trio

from supervisor.errors import Internal, PermissionDenied, ResourceExhausted
from supervisor.linux import netlink
from supervisor.linux.conntrack import forget_led_to
from supervisor.linux.netlink import Netlink, NetlinkRefused
from supervisor.network.addresses import IN_USE, Allocator
from supervisor.network.endpoints import Address, AddressPool, Network, Wire

log = logging.getLogger(__name__)


@attrs.define(eq=False)
class Occupancy:
    """The addresses of all networks, by network number. ``links`` is used by nobody else."""

    links: Netlink
    _pools: dict[int, dict[int, Allocator]] = attrs.field(factory=dict)
    _holders: dict[tuple[int, Address], list[str]] = attrs.field(factory=dict)
    _ending: dict[str, Wire] = attrs.field(factory=dict)
    _led_to: dict[Address, None] = attrs.field(factory=dict)
    _more: trio.Event = attrs.field(factory=trio.Event)

    def open(self, network: Network) -> None:
        """The network's addresses can be given; none of them is in use."""
        self._pools[network.number] = {
            pool.subnet.version: Allocator(pool) for pool in network.pools
        }

    def close(self, network: Network) -> None:
        """The network has gone."""
        self._pools.pop(network.number, None)
        for key in [one for one in self._holders if one[0] == network.number]:
            del self._holders[key]

    def choose(
        self, network: Network, pool: AddressPool, who: str, asked: Address | None
    ) -> Address:
        """The address a container gets; it is not in use yet.

        Args:
            network: Where.
            pool: The network's, for one kind of address.
            who: The container's id.
            asked: The only one it takes; None for any.

        Raises:
            PermissionDenied: Another has it, or one that does not run asked for it before; Docker's wording.
            ResourceExhausted: There is none left.
        """
        allocator = self._pools[network.number][pool.subnet.version]
        if asked is None:
            address = allocator.free()
            if address is None:
                raise ResourceExhausted(
                    f"cannot connect to network {network.name}: all addresses of {pool.ip_range or pool.subnet} are in use",
                    "disconnect or remove containers, or make a network with a larger subnet",
                )
            return address
        holders = self._holders.get((network.number, asked), [])
        held = int(bool(holders) and holders[0] == who)
        if allocator.uses(asked) > held or not allocator.may_be_given(asked):
            raise PermissionDenied(IN_USE)
        return asked

    def take(self, network: int, addresses: Iterable[Address]) -> None:
        """The addresses are in use."""
        for address in addresses:
            self._pools[network][address.version].take(address)

    def give_back(self, network: int, addresses: Iterable[Address]) -> None:
        """They are not any more; those of a network that has gone never were."""
        for address in addresses:
            if network in self._pools and address.version in self._pools[network]:
                self._pools[network][address.version].give_back(address)

    def hold(self, network: Network, who: str, addresses: Iterable[Address]) -> None:
        """The container asked for these addresses: nobody else gets them, unless they have asked before."""
        for address in addresses:
            holders = self._holders.setdefault((network.number, address), [])
            if not holders and address.version in self._pools[network.number]:
                self.take(network.number, [address])
            if who not in holders:
                holders.append(who)

    def let_go(self, network: Network, who: str, addresses: Iterable[Address]) -> None:
        """The container does not ask for them any more."""
        for address in addresses:
            holders = self._holders.get((network.number, address), [])
            if who in holders:
                holders.remove(who)
                if not holders:
                    del self._holders[network.number, address]
                    self.give_back(network.number, [address])

    def ends(self, link: str, wire: Wire, *, published: bool = False) -> None:
        """Delete the link soon, and free its addresses then; ports of the host may have led to those."""
        self._ending[link] = wire
        if published:
            self._led_to.update(dict.fromkeys(wire.addresses))
        self._more.set()

    def is_ending(self, link: str) -> bool:
        """Whether a link of that name is about to be deleted."""
        return link in self._ending

    async def run(self) -> None:
        """End links as they come; until cancelled."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            try:
                await self.end_now()
            except NetlinkRefused as error:
                log.warning("%s; its address stays taken", error)

    async def end_now(self) -> None:
        """No link is ending any more.

        Raises:
            NetlinkRefused: The kernel keeps one.
        """
        ending = dict(self._ending)
        await self.links.batch([netlink.delete(link) for link in ending])
        led_to, self._led_to = self._led_to, {}
        try:
            await forget_led_to(led_to)
        except Internal as error:
            log.warning("%s; they may go on to who gets their address next", error)
        for link, wire in ending.items():
            if self._ending.pop(link, None) is not None:
                self.give_back(wire.network, wire.addresses)
