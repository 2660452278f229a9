"""Subnets and addresses: never overlapping, never handed out twice, always found when there is one."""

from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from supervisor.network.addresses import free_address, free_subnet, gateway_of, mac_of

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
    cut: list[IPv4Network] = []
    for _ in range(count):
        subnet = free_subnet(POOL, 24, cut, start)
        if subnet is None:
            break
        assert not any(subnet.overlaps(other) for other in cut)
        cut.append(subnet)
    assert len(cut) == min(count, 16)


@given(
    length=st.integers(24, 30),
    steps=st.lists(st.one_of(st.none(), st.integers(0, 255)), max_size=80),
)
def test_addresses_are_lowest_free_and_never_special(length: int, steps: list[int | None]) -> None:
    """A step allocates, or (a number) gives one back."""
    subnet = IPv4Network((POOL.network_address, length))
    held: set[IPv4Address] = set()
    usable = list(subnet.hosts())[1:]
    for step in steps:
        if step is not None and held:
            held.remove(sorted(held)[step % len(held)])
            continue
        address = free_address(subnet, held)
        free = [host for host in usable if host not in held]
        assert address == (free[0] if free else None)
        if address is not None:
            held.add(address)
    assert gateway_of(subnet) not in held


@given(address=st.builds(IPv4Address, st.integers(0, 2**32 - 1)))
def test_a_card_is_locally_administered_unicast_and_tells_its_address(address: IPv4Address) -> None:
    octets = bytes.fromhex(mac_of(address).replace(":", ""))
    assert octets[0] & 0b11 == 0b10
    assert octets[2:] == address.packed
