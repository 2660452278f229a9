"""Which addresses: subnets cut from the pool, addresses from a subnet. Pure.

Words: the **pool** is where subnets come from; a **subnet** is one network's; its **gateway** is the host's address in
it; what is **taken** may be larger than the pool or smaller than a subnet: the host's own routes count.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from supervisor.access.requests import PoolRequest
from supervisor.errors import InvalidArgument, PermissionDenied
from supervisor.network.endpoints import Address, AddressPool, Subnet

OVERLAP = "Pool overlaps with other one on this address space"
IN_USE = "Address already in use"
_HOSTS_MIN = 4
"""Network, gateway, one container, broadcast."""


def free_subnet(
    pool: Subnet, prefix_length: int, taken: Iterable[Subnet], start: int = 0
) -> Subnet | None:
    """The first subnet of the pool that overlaps nothing taken; None when all do.

    Args:
        pool: Where to look.
        prefix_length: Of the subnet; at least the pool's.
        taken: Networks to keep clear of, any size; those of another kind do not matter.
        start: Number of the subnet to look at first; the search wraps around.
    """
    size = 1 << (pool.max_prefixlen - prefix_length)
    count = pool.num_addresses // size
    first = int(pool.network_address)
    ranges = [
        ((int(one.network_address) - first) // size, (int(one.broadcast_address) - first) // size)
        for one in taken
        if one.version == pool.version
    ]
    used = sorted((max(low, 0), high) for low, high in ranges if high >= 0 and low < count)
    start %= count
    for begin, end in ((start, count), (0, start)):
        found = _first_gap(used, begin, end)
        if found is not None:
            return ip_network((first + found * size, prefix_length))
    return None


def _first_gap(used: list[tuple[int, int]], begin: int, end: int) -> int | None:
    """The first number from ``begin`` to before ``end`` in none of the ranges, which are in order."""
    for low, high in used:
        if low <= begin <= high:
            begin = high + 1
    return begin if begin < end else None


def overlaps(one: Subnet, other: Subnet) -> bool:
    """Whether two networks have an address in common; those of two kinds have none."""
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)


def gateway_of(subnet: Subnet) -> Address:
    """The host's address in a subnet, unless another is asked for: the first."""
    return subnet.network_address + 1


def named_pool(request: PoolRequest, taken: Iterable[Subnet]) -> AddressPool:
    """Where addresses come from, as it was asked for.

    Raises:
        InvalidArgument: It makes no sense.
        PermissionDenied: Something of it is taken; Docker's wording and status.
    """
    subnet = _subnet(request.subnet, "subnet")
    if subnet.num_addresses < _HOSTS_MIN:
        raise InvalidArgument(f"invalid subnet {subnet}: it has no room for a container")
    if _is_special(subnet):
        raise InvalidArgument(f"invalid subnet {subnet}: its addresses are no hosts'")
    if any(overlaps(subnet, other) for other in taken):
        raise PermissionDenied(OVERLAP)
    ip_range = _subnet(request.ip_range, "ip range") if request.ip_range else None
    if ip_range is not None and not _inside(ip_range, subnet):
        raise InvalidArgument(f"invalid ip range {ip_range}: it is not in the subnet {subnet}")
    gateway = _host(request.gateway, subnet, "gateway") if request.gateway else gateway_of(subnet)
    auxiliary = {
        name: str(_host(text, subnet, f"auxiliary address {name[:40]}"))
        for name, text in request.auxiliary.items()
    }
    if str(gateway) in auxiliary.values():
        raise InvalidArgument(f"invalid auxiliary address {gateway}: it is the gateway's")
    return AddressPool(subnet, gateway, ip_range, auxiliary, chosen=True)


def _subnet(text: str, what: str) -> Subnet:
    if "/" in text:
        try:
            return ip_network(text, strict=False)
        except ValueError:
            pass
    raise InvalidArgument(f"invalid {what}: invalid CIDR address: {text[:80]}")


def _host(text: str, subnet: Subnet, what: str) -> Address:
    try:
        address = ip_address(text)
    except ValueError:
        raise InvalidArgument(f"invalid {what}: {text[:80]!r} is no address") from None
    if not is_host(address, subnet):
        raise InvalidArgument(f"invalid {what} {address}: it is no host's in the subnet {subnet}")
    return address


def is_host(address: Address, subnet: Subnet) -> bool:
    """Whether an interface in the subnet can have the address."""
    ends = {subnet.network_address}
    if subnet.version == 4:  # noqa: PLR2004  # IPv6 has no broadcast
        ends.add(subnet.broadcast_address)
    return address in subnet and address not in ends


def _inside(inner: Subnet, outer: Subnet) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)


_SPECIAL = tuple(
    map(
        ip_network,
        ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/8", "fe80::/10", "ff00::/8"),
    )
)  # fmt: skip


def _is_special(subnet: Subnet) -> bool:
    return any(overlaps(subnet, special) for special in _SPECIAL)


class Allocator:
    """The addresses of one pool: which is next, in a time that does not grow with how many are in use.

    An address may be in use more than once: it is free again when it was given back as often.
    """

    def __init__(self, pool: AddressPool) -> None:
        self._pool = pool
        bounds = pool.ip_range or pool.subnet
        self._first, self._last = int(bounds.network_address), int(bounds.broadcast_address)
        self._next = self._first
        self._given_back: list[int] = []
        self._used: dict[int, int] = {}
        self._make: type[IPv4Address] | type[IPv6Address] = (
            IPv4Address if isinstance(pool.subnet, IPv4Network) else IPv6Address
        )
        self._never = {int(pool.gateway), int(pool.subnet.network_address)}
        self._never |= {int(ip_address(text)) for text in pool.auxiliary.values()}
        if isinstance(pool.subnet, IPv4Network):
            self._never.add(int(pool.subnet.broadcast_address))

    def free(self) -> Address | None:
        """The lowest address that is free; None when none is."""
        while self._given_back:
            if self._is_free(self._given_back[0]):
                return self._make(self._given_back[0])
            heapq.heappop(self._given_back)
        while self._next <= self._last and not self._is_free(self._next):
            self._next += 1
        return self._make(self._next) if self._next <= self._last else None

    def may_be_given(self, address: Address) -> bool:
        """Whether a container can have it at all."""
        return is_host(address, self._pool.subnet) and int(address) not in self._never

    def uses(self, address: Address) -> int:
        """How often it is in use."""
        return self._used.get(int(address), 0)

    def take(self, address: Address) -> None:
        """It is in use, once more."""
        self._used[int(address)] = self.uses(address) + 1

    def give_back(self, address: Address) -> None:
        """It is in use once less."""
        number, uses = int(address), self.uses(address)
        if uses > 1:
            self._used[number] = uses - 1
        elif self._used.pop(number, 0) and self._first <= number < self._next:
            heapq.heappush(self._given_back, number)

    def _is_free(self, number: int) -> bool:
        return number not in self._used and number not in self._never


def mac_of(address: Address) -> str:
    """The hardware address that goes with an address, as Docker makes it: the same address is always the same card."""
    return (b"\x02\x42" + address.packed[-4:]).hex(":")
