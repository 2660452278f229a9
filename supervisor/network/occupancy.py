"""Which addresses are in use, and the links of those who have gone.

Words: a link is **ending** from when its container has gone until the kernel has deleted it.

Rules: an address is in use until its link is gone, so that two cards never have it at once. Links are ended many at a
time, apart from everything else: each waits tens of milliseconds for the kernel's routing lock.
"""

from __future__ import annotations

import logging
from ipaddress import IPv4Address

import attrs
import trio

from supervisor.linux import netlink
from supervisor.linux.netlink import Netlink, NetlinkRefused
from supervisor.network.addresses import free_address
from supervisor.network.endpoints import Network

log = logging.getLogger(__name__)


@attrs.define(eq=False)
class Occupancy:
    """The addresses of all networks, by network number. ``links`` is used by nobody else."""

    links: Netlink
    _taken: dict[int, set[IPv4Address]] = attrs.field(factory=dict)
    _ending: dict[str, tuple[int, IPv4Address]] = attrs.field(factory=dict)
    _more: trio.Event = attrs.field(factory=trio.Event)

    def free(self, network: Network) -> IPv4Address | None:
        """The address the next container gets; None when the subnet is full."""
        return free_address(network.subnet, self._taken.get(network.number, set()))

    def take(self, network: int, address: IPv4Address) -> None:
        """The address is in use."""
        self._taken.setdefault(network, set()).add(address)

    def ends(self, link: str, network: int, address: IPv4Address) -> None:
        """Delete the link soon, and free its address then."""
        self._ending[link] = (network, address)
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
        for link, (network, address) in ending.items():
            del self._ending[link]
            self._taken[network].discard(address)
