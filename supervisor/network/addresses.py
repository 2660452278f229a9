"""Which addresses: subnets cut from the pool, addresses from a subnet. Pure.

Words: the **pool** is where subnets come from; a **subnet** is one network's; its **gateway** is the first address in
it, the host's; what is **taken** may be larger than the pool or smaller than a subnet: the host's own routes count.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv4Network


def free_subnet(
    pool: IPv4Network, prefix_length: int, taken: Iterable[IPv4Network], start: int = 0
) -> IPv4Network | None:
    """The first subnet of the pool that overlaps nothing taken; None when all do.

    Args:
        pool: Where to look.
        prefix_length: Of the subnet; at least the pool's.
        taken: Networks to keep clear of, any size.
        start: Number of the subnet to look at first; the search wraps around.
    """
    size = 1 << (32 - prefix_length)
    count = pool.num_addresses // size
    first = int(pool.network_address)
    used = bytearray(count)
    for network in taken:
        low = max((int(network.network_address) - first) // size, 0)
        high = min((int(network.broadcast_address) - first) // size, count - 1)
        if low <= high:
            used[low : high + 1] = b"\1" * (high + 1 - low)
    found = used.find(0, start % count)
    if found < 0:
        found = used.find(0)
    return None if found < 0 else IPv4Network((first + found * size, prefix_length))


def gateway_of(subnet: IPv4Network) -> IPv4Address:
    """The host's address in a subnet: the first."""
    return subnet.network_address + 1


def free_address(subnet: IPv4Network, taken: Collection[IPv4Address]) -> IPv4Address | None:
    """The lowest address that is neither network, gateway, broadcast nor taken; None when the subnet is full."""
    hosts = range(int(subnet.network_address) + 2, int(subnet.broadcast_address))
    candidates = map(IPv4Address, itertools.islice(hosts, len(taken) + 1))
    return next((address for address in candidates if address not in taken), None)


def mac_of(address: IPv4Address) -> str:
    """The hardware address that goes with an address, as Docker makes it: the same address is always the same card."""
    return (b"\x02\x42" + address.packed).hex(":")
