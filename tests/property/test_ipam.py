"""Subnets and addresses: never overlapping, never handed out twice, always found when there is one."""

from collections import Counter
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.access.requests import PoolRequest
from supervisor.errors import InvalidArgument, PermissionDenied
from supervisor.network.addresses import (
    Allocator,
    free_subnet,
    gateway_of,
    mac_of,
    named_pool,
    overlaps,
)
from supervisor.network.endpoints import Address, AddressPool, Subnet

POOL = IPv4Network("10.208.0.0/20")
networks = st.builds(
    lambda first, length: IPv4Network((first, length), strict=False),
    st.integers(int(IPv4Address("10.207.0.0")), int(IPv4Address("10.209.255.255"))),
    st.integers(8, 32),
)


@given(
    taken=st.lists(networks, max_size=40), start=st.integers(0, 10_000), length=st.integers(20, 29)
)
def test_a_subnet_is_in_the_pool_clear_of_the_taken_and_found_if_there_is_one(
    taken: list[IPv4Network], start: int, length: int
) -> None:
    clear = [
        subnet
        for subnet in POOL.subnets(new_prefix=length)
        if not any(subnet.overlaps(other) for other in taken)
    ]
    found = free_subnet(POOL, length, taken, start)
    assert (found is None) == (not clear)
    assert found is None or found in clear


@given(count=st.integers(1, 17), start=st.integers(0, 100))
def test_subnets_cut_one_after_the_other_never_overlap(count: int, start: int) -> None:
    cut: list[Subnet] = []
    for _ in range(count):
        subnet = free_subnet(POOL, 24, cut, start)
        if subnet is None:
            break
        assert not any(overlaps(subnet, other) for other in cut)
        cut.append(subnet)
    assert len(cut) == min(count, 16)


@given(start=st.integers(0, 1 << 40), count=st.integers(1, 20))
def test_a_pool_of_billions_of_subnets_is_cut_as_well(start: int, count: int) -> None:
    pool = IPv6Network("fdba:5e00::/32")
    cut: list[Subnet] = [ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")]
    for _ in range(count):
        subnet = free_subnet(pool, 64, cut, start)
        assert isinstance(subnet, IPv6Network)
        assert subnet.subnet_of(pool)
        assert not any(overlaps(subnet, other) for other in cut)
        cut.append(subnet)


@st.composite
def pools(draw: st.DrawFn) -> AddressPool:
    length = draw(st.integers(26, 30))
    subnet = IPv4Network((POOL.network_address, length))
    hosts = list(subnet.hosts())
    part = draw(st.integers(length, 30))
    ip_range = draw(st.none() | st.sampled_from(list(subnet.subnets(new_prefix=part))))
    spared = draw(st.lists(st.sampled_from(hosts), max_size=2))
    return AddressPool(
        subnet,
        draw(st.sampled_from(hosts)),
        ip_range,
        {str(number): str(address) for number, address in enumerate(spared)},
    )


@given(pool=pools(), steps=st.lists(st.none() | st.integers(0, 63), max_size=90))
def test_addresses_are_lowest_free_and_never_special(
    pool: AddressPool, steps: list[int | None]
) -> None:
    """A step takes the next one (None), or takes or gives back that one of all, whether it is in the range or not."""
    allocator = Allocator(pool)
    uses: Counter[Address] = Counter()
    spared = {pool.gateway, *map(ip_address, pool.auxiliary.values())}
    hosts = [host for host in pool.subnet.hosts() if host not in spared]
    usable = [host for host in hosts if host in (pool.ip_range or pool.subnet)]
    for step in steps:
        address = allocator.free()
        free = [host for host in usable if not uses[host]]
        assert address == (free[0] if free else None)
        if step is not None and hosts:
            address = hosts[step % len(hosts)]
            assert allocator.may_be_given(address)
            if uses[address] and step % 2:
                uses[address] -= 1
                allocator.give_back(address)
                continue
        if address is not None:
            uses[address] += 1
            allocator.take(address)
            assert allocator.uses(address) == uses[address]
    assert not any(allocator.may_be_given(address) for address in spared)


@given(
    subnet=st.one_of(networks.map(str), st.text(max_size=12)),
    ip_range=st.one_of(st.just(""), networks.map(str), st.text(max_size=8)),
    gateway=st.one_of(st.just(""), st.ip_addresses(v=4).map(str), st.text(max_size=8)),
)
def test_what_is_named_is_taken_as_it_is_or_refused(
    subnet: str, ip_range: str, gateway: str
) -> None:
    try:
        pool = named_pool(PoolRequest(subnet, ip_range, gateway), [IPv4Network("10.207.4.0/22")])
    except (InvalidArgument, PermissionDenied):
        return
    assert pool.chosen
    assert pool.subnet == ip_network(subnet, strict=False)
    assert pool.gateway in pool.subnet
    assert not gateway or pool.gateway == ip_address(gateway)
    assert not overlaps(pool.subnet, IPv4Network("10.207.4.0/22"))
    assert pool.ip_range is None or set(pool.ip_range) <= set(pool.subnet)


@pytest.mark.parametrize("special", ["127.0.0.0/24", "224.0.0.0/24", "0.0.0.0/0", "fe80::/64"])
def test_addresses_that_are_no_hosts_are_no_subnet(special: str) -> None:
    with pytest.raises(InvalidArgument):
        named_pool(PoolRequest(special), [])


@given(address=st.ip_addresses())
def test_a_card_is_locally_administered_unicast_and_tells_its_address(address: Address) -> None:
    octets = bytes.fromhex(mac_of(address).replace(":", ""))
    assert octets[0] & 0b11 == 0b10
    assert octets[2:] == address.packed[-4:]
    assert gateway_of(ip_network("10.0.0.0/24")) == IPv4Address("10.0.0.1")
