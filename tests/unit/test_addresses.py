"""network/addresses.py by example."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from supervisor.network.addresses import Allocator, free_subnet, gateway_of, mac_of
from supervisor.network.endpoints import AddressPool

POOL = IPv4Network("10.208.0.0/12")


@pytest.mark.parametrize(
    ("taken", "start", "expected"),
    [
        ([], 0, "10.208.0.0/24"),
        (["10.208.0.0/24"], 0, "10.208.1.0/24"),
        (["10.208.0.128/25"], 0, "10.208.1.0/24"),
        (["10.208.0.0/16"], 0, "10.209.0.0/24"),
        (["10.0.0.0/8"], 0, None),
        (["192.168.0.0/16"], 0, "10.208.0.0/24"),
        ([], 4095, "10.223.255.0/24"),
        (["10.223.255.0/24"], 4095, "10.208.0.0/24"),
        ([], 4096, "10.208.0.0/24"),
    ],
)
def test_a_subnet_is_cut_around_what_is_taken(
    taken: list[str], start: int, expected: str | None
) -> None:
    found = free_subnet(POOL, 24, map(IPv4Network, taken), start)
    assert found == (None if expected is None else IPv4Network(expected))


def allocator(subnet: str, *taken: str) -> Allocator:
    network = IPv4Network(subnet)
    made = Allocator(AddressPool(network, gateway_of(network)))
    for address in taken:
        made.take(IPv4Address(address))
    return made


def test_a_full_subnet_has_no_address() -> None:
    made = allocator("10.208.0.0/30")
    assert made.free() == IPv4Address("10.208.0.2")
    made.take(IPv4Address("10.208.0.2"))
    assert made.free() is None


def test_a_freed_address_is_used_again() -> None:
    made = allocator("10.208.0.0/24", "10.208.0.2", "10.208.0.3", "10.208.0.4")
    assert made.free() == IPv4Address("10.208.0.5")
    made.give_back(IPv4Address("10.208.0.3"))
    assert made.free() == IPv4Address("10.208.0.3")


def test_the_card_is_dockers() -> None:
    assert mac_of(IPv4Address("172.17.0.2")) == "02:42:ac:11:00:02"
