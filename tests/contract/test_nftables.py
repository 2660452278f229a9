"""What linux/nftables.py promises, in tables of its own."""

import os
from collections.abc import AsyncIterator

import pytest

from supervisor.linux.nftables import Nftables, NftablesRefused, open_nftables

pytestmark = pytest.mark.root
TABLE = f"bakehouse-test-{os.getpid()}"


@pytest.fixture
async def nft() -> AsyncIterator[Nftables]:
    async with open_nftables() as nft:
        await nft.apply(
            f"table inet {TABLE} {{ map places {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}; }}"
        )
        try:
            yield nft
        finally:
            await nft.apply(f"delete table inet {TABLE}")


async def elements(nft: Nftables) -> int:
    listed = await nft.listing(f"list map inet {TABLE} places")
    found = listed[0]["map"].get("elem", [])
    assert isinstance(found, list)
    return len(found)


async def test_elements_come_and_go(nft: Nftables) -> None:
    await nft.apply(f"add element inet {TABLE} places {{ tcp . 80 : 10.208.0.2 . 8080 }}")
    assert await elements(nft) == 1
    await nft.apply(f"delete element inet {TABLE} places {{ tcp . 80 }}")
    assert await elements(nft) == 0


async def test_a_script_holds_as_a_whole_or_not_at_all(nft: Nftables) -> None:
    script = (
        f"add element inet {TABLE} places {{ tcp . 80 : 10.208.0.2 . 80 }}\n"
        f"delete element inet {TABLE} places {{ tcp . 81 }}"
    )
    with pytest.raises(NftablesRefused) as caught:
        await nft.apply(script)
    assert caught.value.missing
    assert await elements(nft) == 0


async def test_a_refusal_is_no_memory_of_the_next_call(nft: Nftables) -> None:
    with pytest.raises(NftablesRefused, match="syntax error"):
        await nft.apply("nonsense")
    await nft.apply(f"add element inet {TABLE} places {{ udp . 53 : 10.208.0.2 . 53 }}")
    assert await elements(nft) == 1


async def test_a_table_is_there_or_not(nft: Nftables) -> None:
    assert await nft.has_table("inet", TABLE)
    assert not await nft.has_table("inet", f"{TABLE}-not")
    with pytest.raises(NftablesRefused) as caught:
        await nft.listing(f"list table inet {TABLE}-not")
    assert caught.value.missing
