"""network/addresses.py by example."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from supervisor.network.addresses import free_address, free_subnet, gateway_of, mac_of

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


def test_a_full_subnet_has_no_address() -> None:
    subnet = IPv4Network("10.208.0.0/30")
    assert gateway_of(subnet) == IPv4Address("10.208.0.1")
    only = free_address(subnet, set())
    assert only == IPv4Address("10.208.0.2")
    assert free_address(subnet, {only}) is None


def test_a_freed_address_is_used_again() -> None:
    subnet = IPv4Network("10.208.0.0/24")
    taken = {IPv4Address("10.208.0.2"), IPv4Address("10.208.0.4")}
    assert free_address(subnet, taken) == IPv4Address("10.208.0.3")


def test_the_card_is_dockers() -> None:
    assert mac_of(IPv4Address("172.17.0.2")) == "02:42:ac:11:00:02"
