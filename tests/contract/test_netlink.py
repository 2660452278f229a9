"""What linux/netlink.py promises, in network namespaces of its own."""

import ctypes
import errno
import os
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network

import pytest
import trio

from supervisor.linux import netlink
from supervisor.linux.netlink import Netlink, NetlinkRefused

pytestmark = pytest.mark.root
MAC = "02:42:0a:d0:00:01"
CLONE_NEWNET = 0x40000000


def fresh_namespace() -> tuple[int, socket.socket]:
    """A network namespace held by its descriptor alone, and a route socket in it."""
    made: list[tuple[int, socket.socket]] = []

    def make() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET):
            return
        descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        made.append((descriptor, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if not made:
        pytest.skip("cannot make a network namespace here")
    return made[0]


class Pair:
    """Two namespaces: one stands for the host, one for a container."""

    def __init__(self, stack: ExitStack) -> None:
        self.host_fd, host = fresh_namespace()
        self.inside_fd, inside = fresh_namespace()
        self.host, self.inside = Netlink(host), Netlink(inside)
        for close in (self.host.close, self.inside.close):
            stack.callback(close)
        for descriptor in (self.host_fd, self.inside_fd):
            stack.callback(os.close, descriptor)

    async def bridge(self) -> int:
        await self.host.batch([netlink.bridge("br", MAC)])
        index = await self.host.index("br")
        assert index is not None
        return index


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    with ExitStack() as stack:
        yield Pair(stack)


async def test_a_bridge_is_made_once_and_keeps_its_address(pair: Pair) -> None:
    first = await pair.bridge()
    assert await pair.bridge() == first
    link = await pair.host.link("br")
    assert link is not None
    assert (link.up, link.mac, link.master) == (True, MAC, 0)


async def test_a_pair_joins_bridge_and_namespace_with_address_and_route(pair: Pair) -> None:
    master = await pair.bridge()
    mac = "02:42:0a:d0:00:02"
    await pair.host.batch(
        [
            netlink.address(master, IPv4Address("10.208.0.1"), 24),
            netlink.veth("bv-1", "eth0", pair.inside_fd, master, mac),
            netlink.port("bv-1", hairpin=True),
        ]
    )
    port = await pair.host.link("bv-1")
    assert port is not None
    assert (port.master, port.up) == (master, True)
    inner = await pair.inside.link("eth0")
    assert inner is not None
    assert inner.mac == mac
    ready = [
        netlink.address(inner.index, IPv4Address("10.208.0.2"), 24),
        netlink.up("lo"),
        netlink.up("eth0"),
        netlink.default_route(IPv4Address("10.208.0.1"), inner.index),
    ]
    await pair.inside.batch(ready)
    await pair.inside.batch(ready)
    assert await pair.inside.routes() == [IPv4Network("10.208.0.0/24")]
    assert await pair.host.routes() == [IPv4Network("10.208.0.0/24")]


async def test_links_are_listed_by_prefix_and_deleted_once(pair: Pair) -> None:
    master = await pair.bridge()
    for number in range(40):
        await pair.host.batch(
            [netlink.veth(f"bv-{number}", f"e{number}", pair.inside_fd, master, MAC)]
        )
    assert {link.name for link in await pair.host.links("bv-")} == {f"bv-{n}" for n in range(40)}
    gone = [netlink.delete(f"bv-{number}") for number in range(40)]
    await pair.host.batch(gone)
    await pair.host.batch(gone)
    assert await pair.host.links("bv-") == []
    assert [link.name for link in await pair.inside.links("e")] == []


async def test_the_refused_request_is_named_and_the_others_are_done(pair: Pair) -> None:
    master = await pair.bridge()
    with pytest.raises(NetlinkRefused, match=r"cannot bring up nowhere: ") as caught:
        await pair.host.batch(
            [
                netlink.address(master, IPv4Address("10.208.0.1"), 24),
                netlink.up("nowhere"),
                netlink.address(master, IPv4Address("10.208.1.1"), 24),
            ]
        )
    assert caught.value.errno == errno.ENODEV
    assert len(await pair.host.routes()) == 2


async def test_what_is_not_there_is_none(pair: Pair) -> None:
    assert await pair.host.index("nowhere") is None


async def test_a_list_nobody_read_to_its_end_does_not_block_the_next() -> None:
    links = Netlink()
    try:
        for checkpoints in range(1, 12):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(links.routes)
                    for _ in range(checkpoints):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            with trio.fail_after(20):
                assert any(link.name == "lo" for link in await links.links())
                await links.routes()
    finally:
        links.close()
