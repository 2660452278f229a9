"""What linux/detour.py promises, in a network namespace of its own."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path

import attrs
import pytest
import trio

from supervisor.errors import Internal, NotFound
from supervisor.linux import mounts
from supervisor.linux.detour import Detour, lead
from supervisor.linux.idmap import IdMap, IdRange
from supervisor.linux.spawner import Command, Spawner
from tests.support.spawners import spawner_in

pytestmark = pytest.mark.root

ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
ADDRESS = IPv4Address("127.0.0.11")
PORT = 31_053
ASK = """
import socket, sys
for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
    sock = socket.socket(type=kind)
    sock.settimeout(1)
    sock.connect((sys.argv[1], int(sys.argv[2])))
    sock.send(b"?")
    print(sock.recv(9).decode())
"""
RANGES = (IdRange(0, 51_000, 1), IdRange(1, 1_900_000_001, 65_535))


@attrs.define
class Inside:
    """A container's network namespace."""

    spawner: Spawner
    pin: Path

    async def run(self, *argv: str) -> str:
        namespace = await mounts.open_namespace(self.spawner, self.pin)
        try:
            done = await self.spawner.run(Command(argv, ENV, namespaces=(namespace,)))
        finally:
            os.close(namespace)
        return done.stdout.decode()

    async def ask(self, port: int) -> list[str]:
        return (await self.run("/usr/bin/python3", "-ISc", ASK, str(ADDRESS), str(port))).split()


@asynccontextmanager
async def answering(datagrams: socket.socket, listener: socket.socket) -> AsyncIterator[None]:
    async def hear() -> None:
        sock = trio.socket.from_stdlib_socket(datagrams)
        while True:
            _, peer = await sock.recvfrom(9)
            await sock.sendto(b"udp", peer)

    async def admit() -> None:
        sock = trio.socket.from_stdlib_socket(listener)
        while True:
            client, _ = await sock.accept()
            with client:
                await client.send(b"tcp")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hear)
        nursery.start_soon(admit)
        yield
        nursery.cancel_scope.cancel()


@pytest.fixture(params=["the host's", "an owner's"])
async def inside(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Inside]:
    async with spawner_in(tmp_path / "run") as spawner:
        user_pin = None
        if request.param != "the host's":
            user_pin = tmp_path / "run" / "user"
            await mounts.user_namespace(spawner, user_pin, IdMap(RANGES, RANGES))
        pin = tmp_path / "run" / "net"
        await mounts.network_namespace(spawner, pin, user_pin)
        yield Inside(spawner, pin)


async def test_what_goes_to_one_port_arrives_at_others_and_answers_come_from_it(
    inside: Inside,
) -> None:
    datagrams, listener, netfilter = await mounts.name_sockets(
        inside.spawner, inside.pin, ADDRESS, PORT
    )
    with datagrams, listener, netfilter:
        assert datagrams.getsockname() == listener.getsockname() == (str(ADDRESS), PORT)
        detours = [Detour(protocol, ADDRESS, 53, PORT) for protocol in ("udp", "tcp")]
        async with answering(datagrams, listener):
            assert await inside.ask(53) == []
            for _ in range(2):
                await lead(netfilter, detours)
                assert await inside.ask(53) == ["udp", "tcp"]
            assert await inside.ask(54) == []
            assert (await inside.run("nft", "list", "ruleset")).count("dnat") == 2
            await lead(netfilter, [])
            assert await inside.ask(53) == []
    with await mounts.netlink_socket(inside.spawner, inside.pin) as other:
        with pytest.raises(Internal, match="cannot lead names to their server"):
            await lead(other, detours)


async def test_a_port_that_a_program_in_there_has_is_left_to_it(inside: Inside) -> None:
    first = await mounts.name_sockets(inside.spawner, inside.pin, ADDRESS, PORT)
    second = await mounts.name_sockets(inside.spawner, inside.pin, ADDRESS, PORT)
    ports = {sock.getsockname()[1] for sock in (*first[:2], *second[:2])}
    assert len(ports) in {2, 3}
    for sock in (*first, *second):
        sock.close()
    with pytest.raises(NotFound):
        await mounts.name_sockets(inside.spawner, inside.pin.with_name("no"), ADDRESS, PORT)
