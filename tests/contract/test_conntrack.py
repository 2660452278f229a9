"""What linux/conntrack.py promises, in a network namespace of its own."""

import os
import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

import pytest

from supervisor.errors import Internal
from supervisor.linux import mounts
from supervisor.linux.conntrack import forget_all_of, forget_led_to
from supervisor.linux.spawner import Command, Spawner
from tests.support.spawners import spawner_in

pytestmark = pytest.mark.root

ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
TRACK = "table inet t { chain c { type filter hook output priority 0; ct state new accept; }; }"
SEND = """
import socket, sys
for source, target in (pair.split(",") for pair in sys.argv[1:]):
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((source, 0))
    sock.sendto(b"x", (target, 9))
"""


class Tracked:
    """A network namespace that remembers what is sent there over loopback."""

    def __init__(self, spawner: Spawner, pin: Path) -> None:
        self.spawner, self.pin = spawner, pin

    async def run(self, *argv: str) -> None:
        namespace = await mounts.open_namespace(self.spawner, self.pin)
        try:
            done = await self.spawner.run(Command(argv, ENV, namespaces=(namespace,)))
            assert done.returncode == 0, done.stderr
        finally:
            os.close(namespace)

    async def send(self, *pairs: str) -> None:
        await self.run("/usr/bin/python3", "-ISc", SEND, *pairs)

    async def forget(self, *addresses: str, led_to: bool = False) -> int:
        sockets = await mounts.name_sockets(self.spawner, self.pin, IPv4Address("127.0.0.1"), 0)
        with sockets[0], sockets[1], sockets[2] as netfilter:
            if led_to:
                return await forget_led_to(map(ip_address, addresses), netfilter)
            return await forget_all_of(map(ip_network, addresses), netfilter)


@pytest.fixture
async def tracked(tmp_path: Path) -> AsyncIterator[Tracked]:
    async with spawner_in(tmp_path / "run") as spawner:
        pin = tmp_path / "run" / "net"
        await mounts.network_namespace(spawner, pin, None)
        made = Tracked(spawner, pin)
        await made.run("nft", TRACK)
        yield made


async def test_what_began_in_a_subnet_and_what_was_led_there_is_forgotten(tracked: Tracked) -> None:
    sent = [f"127.0.0.{last},127.0.1.{last % 2}" for last in range(1, 41)]
    await tracked.send(*sent, "::1,::1")
    assert await tracked.forget("127.0.0.7", led_to=True) == 0  # it began one
    assert await tracked.forget("127.0.1.0", "127.0.9.9", led_to=True) == 20
    assert await tracked.forget("127.0.0.0/29") == 4
    assert await tracked.forget("127.0.0.0/24", "127.0.1.0/24", "::/64") == 17
    assert await tracked.forget("127.0.0.0/8") == 0


async def test_an_ipv6_address_is_forgotten(tracked: Tracked) -> None:
    await tracked.send("::1,::1", "127.0.0.1,127.0.0.2")
    assert await tracked.forget("::2", led_to=True) == 0
    assert await tracked.forget("::1", led_to=True) == 1


async def test_the_hosts_own_may_be_asked_for_what_is_not_there() -> None:
    assert await forget_led_to([IPv4Address("203.0.113.77"), IPv6Address("2001:db8::77")]) == 0
    assert await forget_all_of([]) == 0


async def test_a_refusal_is_told(tracked: Tracked) -> None:
    with await mounts.netlink_socket(tracked.spawner, tracked.pin) as other:
        with pytest.raises(Internal, match="cannot forget connections"):
            await forget_led_to([IPv4Address("127.0.0.1")], other)
    assert isinstance(other, socket.socket)
