"""network/ruleset.py: the scripts, word for word, and that nft takes them."""

from __future__ import annotations

import os
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest

from supervisor.linux.nftables import open_nftables
from supervisor.network import ruleset
from supervisor.network.ruleset import Bridge, Publication

GOLDEN = Path(__file__).parent.parent / "golden" / "ruleset.nft"
ANN = Bridge("bh-1", IPv4Network("10.208.0.0/24"), 1000)
BEN = Bridge(
    "bh-2",
    IPv4Network("10.208.1.0/24"),
    1001,
    subnet_ipv6=IPv6Network("fdba:5e00:0:1::/64"),
)
INSIDE = Bridge("bh-3", IPv4Network("10.208.2.0/24"), 1001, internal=True, within=False)
WEB = Publication("tcp", IPv4Address("0.0.0.0"), 8080, IPv4Address("10.208.0.2"), 80)
WEB6 = Publication("tcp", IPv6Address("::"), 8080, IPv6Address("fdba:5e00:0:1::2"), 80)
NAMES = Publication("udp", IPv4Address("127.0.0.1"), 5353, IPv4Address("10.208.1.2"), 53)


def test_the_whole_table_reads_as_reviewed() -> None:
    assert ruleset.whole("bakehouse", [ANN, BEN, INSIDE], [NAMES, WEB, WEB6]) == GOLDEN.read_text()


def test_a_port_on_every_address_is_looked_up_by_protocol_and_port_alone() -> None:
    assert ruleset.publish("t", [WEB]) == (
        "add element inet t published_anywhere { tcp . 8080 : 10.208.0.2 . 80 }\n"
    )


def test_a_port_on_one_address_is_looked_up_with_it() -> None:
    assert ruleset.publish("t", [NAMES]) == (
        "add element inet t published_at { udp . 127.0.0.1 . 5353 : 10.208.1.2 . 53 }\n"
    )


def test_taking_back_a_port_works_when_it_is_not_there() -> None:
    assert ruleset.unpublish("t", [WEB]) == (
        "add element inet t published_anywhere { tcp . 8080 : 10.208.0.2 . 80 }\n"
        "delete element inet t published_anywhere { tcp . 8080 }\n"
    )


def test_an_owner_or_port_adds_no_rule() -> None:
    none = ruleset.whole("t", [], [])
    some = ruleset.whole("t", [ANN, BEN, INSIDE], [WEB, NAMES, WEB6])
    added = some.removeprefix(none).splitlines()
    assert some.startswith(none)
    assert all(line.startswith("add element ") for line in added)


@pytest.mark.root
async def test_nft_takes_every_script_again_and_again() -> None:
    table = f"bakehouse-test-{os.getpid()}"
    async with open_nftables() as nft:
        try:
            for _ in range(2):
                await nft.apply(ruleset.whole(table, [ANN], [WEB]))
                for bridge in (BEN, INSIDE, BEN):
                    await nft.apply(ruleset.enter(table, bridge))
                for _ in range(2):
                    await nft.apply(ruleset.publish(table, [NAMES, WEB6]))
                for _ in range(2):
                    await nft.apply(ruleset.unpublish(table, [NAMES, WEB, WEB6]))
                for bridge in (BEN, INSIDE, BEN):
                    await nft.apply(ruleset.leave(table, bridge))
        finally:
            for _ in range(2):
                await nft.apply(ruleset.gone(table))
