"""Containers' networks on the real kernel: who reaches whom, and what is left behind.

Network namespaces stand in for containers. Everything stays on this machine.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import attrs
import pytest
import trio

from supervisor.access.identity import Identity, Role
from supervisor.access.owners import Owner, open_owners
from supervisor.access.requests import PortRequest
from supervisor.config import Config
from supervisor.database.database import open_database
from supervisor.errors import Conflict, InvalidArgument, NotFound
from supervisor.events.journal import open_events
from supervisor.linux import mounts
from supervisor.linux.idmap import IdMap
from supervisor.linux.netlink import Netlink
from supervisor.linux.nftables import open_nftables
from supervisor.linux.spawner import Command, Completed, Credentials, Spawner
from supervisor.network.networks import Networks, Sandbox, open_networks
from tests.support.spawners import spawner_in

pytestmark = pytest.mark.root
ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
PYTHON = (sys.executable, "-I", "-S", "-c")
SERVE = """
import socket, sys
server = socket.create_server(("0.0.0.0", int(sys.argv[1])))
while True:
    sock, peer = server.accept()
    sock.sendall(sys.argv[2].format(peer=peer[0]).encode())
    sock.close()
"""
ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3])) as sock:
    print(sock.recv(100).decode(), end="")
"""
REFUSED_SECONDS = "0.4"


def owner(uid: int) -> Owner:
    return Owner(uid, uid, f"u{uid}", (uid,), None, IdMap.IDENTITY, IdMap.IDENTITY)


def identity(uid: int, role: Role = Role.USER) -> Identity:
    return Identity(uid, uid, (uid,), f"u{uid}", "/", role)


ANN, BEN = owner(51_001), owner(51_002)


@attrs.define
class World:
    """The networks, and a way to run things inside a container's."""

    spawner: Spawner
    networks: Networks
    config: Config
    host: str
    nursery: trio.Nursery

    async def seat(
        self, name: str, who: Owner, *ports: PortRequest, serves: bool = True
    ) -> Sandbox:
        """A container of that name, serving its name at port 80."""
        endpoint = await self.networks.attach(
            name.ljust(64, "0"), name, who, "default", ports, None
        )
        if serves:
            await self.serve(endpoint, 80, name)
        return endpoint

    async def serve(
        self, endpoint: Sandbox | None, port: int, says: str, at: str = "127.0.0.1"
    ) -> None:
        """A server in the container (None: on the host) that says one thing; ends with the test.

        ``{peer}`` in it is the asker's address; ``at`` is one that the server has.
        """
        command = Command((*PYTHON, SERVE, str(port), says), dies_with_daemon=True)

        async def run(task_status: trio.TaskStatus[None]) -> None:
            async with self.inside(
                endpoint
            ) as namespaces:  # and closed: a pin with open fds is busy
                process = await self.spawner.spawn(attrs.evolve(command, namespaces=namespaces))
            async with process:
                task_status.started()
                await process.wait()

        await self.nursery.start(run)
        for _ in range(100):
            if await self.ask(endpoint, at, port) == says.format(peer=at):
                return
            await trio.sleep(0.02)
        pytest.fail("the server does not start")

    async def ask(
        self, endpoint: Sandbox | None, address: str, port: int, uid: int | None = None
    ) -> str:
        """What a server says to the container (None: to the host); empty when it is not reached."""
        argv = (*PYTHON, ASK, address, str(port), REFUSED_SECONDS)
        who = None if uid is None else Credentials(uid, uid)
        return (await self.run(endpoint, *argv, who=who)).stdout.decode()

    async def run(
        self, endpoint: Sandbox | None, *argv: str, who: Credentials | None = None
    ) -> Completed:
        async with self.inside(endpoint) as namespaces:
            command = Command(argv, ENV, namespaces=namespaces, identity=who)
            return await self.spawner.run(command)

    async def sh(self, endpoint: Sandbox | None, script: str) -> str:
        done = await self.run(endpoint, "sh", "-ec", script)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    @asynccontextmanager
    async def inside(self, endpoint: Sandbox | None) -> AsyncIterator[tuple[int, ...]]:
        if endpoint is None:
            yield ()
            return
        assert endpoint.netns_pin is not None
        namespace = await mounts.open_namespace(self.spawner, endpoint.netns_pin)
        try:
            yield (namespace,)
        finally:
            os.close(namespace)


def host_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))  # sends nothing: it chooses a source address
        found: str = sock.getsockname()[0]
    return found


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("0.0.0.0", 0))
        port: int = sock.getsockname()[1]
    return port


@asynccontextmanager
async def opened(config: Config, spawner: Spawner) -> AsyncIterator[Networks]:
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(config.data_root / "db.sqlite"))
        events = await stack.enter_async_context(open_events(database, config.journal))
        owners = await stack.enter_async_context(open_owners(database, events, config))
        yield await stack.enter_async_context(
            open_networks(database, events, spawner, owners, config)
        )


async def left_behind(config: Config) -> list[str]:
    links = Netlink()
    try:
        found = [link.name for link in await links.links()]
    finally:
        links.close()
    async with open_nftables() as nft:
        table = [config.instance] if await nft.has_table("inet", config.instance) else []
    prefixes = (f"bh{config.instance_tag}-", f"bv{config.instance_tag}-")
    return [name for name in found if name.startswith(prefixes)] + table


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "data").mkdir()
    return Config(data_root=tmp_path / "data", run_root=tmp_path / "run")


@pytest.fixture
async def world(config: Config) -> AsyncIterator[World]:
    async with spawner_in(config.run_root) as spawner:
        async with opened(config, spawner) as networks:
            await networks.recover(())
            async with trio.open_nursery() as nursery:
                yield World(spawner, networks, config, host_address(), nursery)
                nursery.cancel_scope.cancel()
            await networks.recover(())
        assert await left_behind(config) == []


async def test_owners_do_not_reach_each_other_and_siblings_do(world: World) -> None:
    ann, sibling = await world.seat("a", ANN), await world.seat("b", ANN, serves=False)
    ben = await world.seat("c", BEN, serves=False)
    assert await world.ask(sibling, ann.address, 80) == "a"
    assert await world.ask(ben, ann.address, 80) == ""
    assert await world.sh(None, f"ip -6 -o addr show dev bh{world.config.instance_tag}-1") == ""
    # Nor do they reach each other's gateway, and what the host serves there.
    port = free_port()
    await world.serve(None, port, "host")
    assert await world.ask(ben, ben.gateway, port) == "host"
    assert await world.ask(ben, ann.gateway, port) == ""
    assert await world.ask(ben, world.host, port) == "host"


async def test_on_the_host_only_root_and_the_owner_reach_a_container_itself(world: World) -> None:
    ann = await world.seat("a", ANN, PortRequest(80))
    assert await world.ask(None, ann.address, 80) == "a"
    assert await world.ask(None, ann.address, 80, ANN.uid) == "a"
    assert await world.ask(None, ann.address, 80, BEN.uid) == ""
    assert await world.ask(None, world.host, ann.ports[0].host_port, BEN.uid) == "a"


async def test_a_published_port_is_reached_through_every_address_of_the_host(world: World) -> None:
    ann = await world.seat("a", ANN, PortRequest(80))
    sibling, ben = (
        await world.seat("b", ANN, serves=False),
        await world.seat("c", BEN, serves=False),
    )
    (port,) = ann.ports
    for asker in (None, ann, sibling, ben):
        assert await world.ask(asker, world.host, port.host_port) == "a"
    assert await world.ask(None, "127.0.0.1", port.host_port) == "a"
    assert await world.ask(ann, ann.gateway, port.host_port) == "a"
    await world.networks.detach("a".ljust(64, "0"))
    assert await world.ask(None, world.host, port.host_port) == ""


async def test_a_datagram_port_is_published(world: World) -> None:
    ann = await world.seat("a", ANN, PortRequest(5353, "udp"), serves=False)
    echo = (
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 5353));"
        "d, p = s.recvfrom(99); s.sendto(d.upper(), p)"
    )
    async with world.inside(ann) as namespaces:
        command = Command((*PYTHON, echo), namespaces=namespaces, dies_with_daemon=True)
        async with await world.spawner.spawn(command):
            with trio.socket.socket(type=socket.SOCK_DGRAM) as sock, trio.fail_after(20):
                await sock.connect((world.host, ann.ports[0].host_port))
                heard = b""
                while not heard:  # until there is somebody who listens
                    with suppress(ConnectionRefusedError), trio.move_on_after(0.3):
                        await sock.send(b"hello")
                        heard = await sock.recv(99)
                assert heard == b"HELLO"


@asynccontextmanager
async def neighbour_on_the_wire(world: World) -> AsyncIterator[Sandbox]:
    """A machine beside the host, that routes to the host what it should not."""
    pin = world.config.run_root / "ns" / "neighbour"
    await mounts.network_namespace(world.spawner, pin, None)
    outside = Sandbox(pin)
    name = f"bo{world.config.instance_tag}"
    async with world.inside(outside) as (namespace,):
        setup = (
            f"ip link add {name} type veth peer name wire netns /proc/self/fd/3 2>/dev/null"
            f" && ip addr add 198.18.0.1/30 dev {name} && ip link set {name} up"
        )
        done = await world.spawner.run(Command(("sh", "-ec", setup), ENV, keep_fds={3: namespace}))
        assert done.returncode == 0, done.stderr
    try:
        await world.sh(
            outside,
            "ip addr add 198.18.0.2/30 dev wire; ip link set wire up; echo 1 > /proc/sys/net/ipv4/conf/wire/route_localnet;"
            "ip addr flush dev lo; ip route add default via 198.18.0.1;"
            "ip route add 127.0.0.0/8 via 198.18.0.1 dev wire",
        )
        yield outside
    finally:
        with trio.CancelScope(shield=True):
            await world.sh(None, f"ip link del {name}")
            await mounts.unmount(world.spawner, pin)


async def test_a_neighbour_reaches_what_is_published_to_all_and_nothing_else(world: World) -> None:
    port = free_port()
    ann = await world.seat("a", ANN, PortRequest(80), PortRequest(80, "tcp", "127.0.0.1", port))
    everywhere = next(one for one in ann.ports if one.host_address == "0.0.0.0")
    async with neighbour_on_the_wire(world) as outside:
        assert await world.ask(outside, "198.18.0.1", everywhere.host_port) == "a"
        assert await world.ask(outside, ann.address, 80) == ""
        assert await world.ask(outside, "198.18.0.1", port) == ""
        assert await world.ask(outside, "127.0.0.1", port) == ""
        await world.serve(outside, 80, "{peer}", "198.18.0.2")
        assert await world.ask(ann, "198.18.0.2", 80) == "198.18.0.1"  # the host's, not ours
    assert await world.ask(None, "127.0.0.1", port) == "a"
    assert await world.ask(None, world.host, port) == ""


async def test_a_container_does_not_reach_the_hosts_loopback(world: World) -> None:
    ann = await world.seat("a", ANN, serves=False)
    port = free_port()
    await world.serve(None, port, "host")
    await world.sh(
        ann,
        "ip addr flush dev lo; echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet;"
        f"ip route add 127.0.0.0/8 via {ann.gateway} dev eth0",
    )
    assert await world.ask(ann, "127.0.0.1", port) == ""
    assert await world.ask(ann, world.host, port) == "host"


async def test_a_container_cannot_send_from_anothers_address(world: World) -> None:
    ann, ben = await world.seat("a", ANN, serves=False), await world.seat("b", BEN, serves=False)
    send = "import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); s.bind((sys.argv[1], 0)); s.sendto(sys.argv[1].encode(), (sys.argv[2], int(sys.argv[3])))"
    with trio.socket.socket(type=socket.SOCK_DGRAM) as sock:
        await sock.bind(("0.0.0.0", 0))
        port = str(sock.getsockname()[1])
        await world.sh(ann, f"ip addr add {ben.address}/32 dev eth0")
        for source in (ben.address, ann.address):
            await world.run(ann, *PYTHON, send, source, world.host, port)
        with trio.fail_after(20):
            assert await sock.recv(99) == ann.address.encode()


async def test_a_taken_port_is_told_and_leaves_nothing(world: World) -> None:
    port = free_port()
    await world.seat("db", ANN, PortRequest(80, host_port=port), serves=False)
    again = PortRequest(80, host_port=port)
    with pytest.raises(
        Conflict,
        match=f"^cannot publish port {port}/tcp: it is taken by container db: Bind for 0.0.0.0:{port} failed: port is already allocated$",
    ):
        await world.networks.attach("1" * 64, "web", ANN, "bridge", [again], None)
    with pytest.raises(
        Conflict, match=f"^cannot publish port {port}/tcp: it is taken on this host: Bind for"
    ):
        await world.networks.attach("2" * 64, "web", BEN, "bridge", [again], None)
    assert world.networks.sandbox("1" * 64) is None
    assert len(list((world.config.run_root / "ns" / "net").iterdir())) == 1
    with pytest.raises(InvalidArgument, match="not an address of this host"):
        await world.networks.attach(
            "3" * 64, "web", ANN, "bridge", [PortRequest(80, "tcp", "203.0.113.9", port)], None
        )
    with pytest.raises(NotFound, match="network other not found"):
        await world.networks.attach("3" * 64, "web", ANN, "other", [], None)


async def test_attach_and_detach_may_be_repeated(world: World) -> None:
    first = await world.seat("a", ANN, PortRequest(80), serves=False)
    assert await world.seat("a", ANN, PortRequest(80), serves=False) == first
    for _ in range(2):
        await world.networks.detach("a".ljust(64, "0"))
        assert world.networks.sandbox("a".ljust(64, "0")) is None


async def test_none_has_loopback_alone_and_host_has_no_namespace(world: World) -> None:
    none = await world.networks.attach("1" * 64, "n", ANN, "none", [], None)
    links = await world.sh(none, "ip -o link; ip -o -4 addr")
    assert "127.0.0.1/8" in links
    assert "eth0" not in links
    host = await world.networks.attach("2" * 64, "h", ANN, "host", [], None)
    assert (host.netns_pin, host.endpoints[0].network_name, host.address) == (None, "host", "")


async def test_networks_are_listed_as_docker_does_each_owner_their_own(world: World) -> None:
    ann = await world.seat("a", ANN, serves=False)
    await world.seat("b", BEN, serves=False)
    listed = {view.name: view for view in world.networks.list(identity(ANN.uid))}
    assert {name: view.driver for name, view in listed.items()} == {
        "bridge": "bridge",
        "host": "host",
        "none": "null",
    }
    assert [member.name for member in listed["bridge"].members] == ["a"]
    assert listed["bridge"].id == ann.endpoints[0].network_id
    theirs = world.networks.inspect(identity(BEN.uid), "bridge")
    assert theirs.id != ann.endpoints[0].network_id
    with pytest.raises(NotFound):
        world.networks.inspect(identity(ANN.uid), theirs.id)
    assert world.networks.inspect(identity(0, Role.ADMIN), theirs.id[:12]) == theirs


async def test_the_table_comes_back_when_somebody_flushes_it(world: World) -> None:
    ann, ben = await world.seat("a", ANN), await world.seat("b", BEN, serves=False)
    await world.sh(None, f"nft delete table inet {world.config.instance}")
    assert await world.ask(ben, ann.address, 80) in {"a", ""}  # open until it is noticed
    async with open_nftables() as nft:
        with trio.fail_after(20):
            while not await nft.has_table("inet", world.config.instance):  # the kernel's doing
                await trio.sleep(0.05)
    assert await world.ask(ben, ann.address, 80) == ""


async def test_a_restart_keeps_what_runs_and_ends_what_does_not(config: Config) -> None:
    async with spawner_in(config.run_root) as spawner, trio.open_nursery() as nursery:
        async with opened(config, spawner) as networks:
            await networks.recover(())
            world = World(spawner, networks, config, host_address(), nursery)
            kept = await world.seat("a", ANN, PortRequest(80), PortRequest(81))
            lost = await world.seat("b", BEN, PortRequest(80), serves=False)
            port, taken = (one.host_port for one in kept.ports)
        # No daemon now: what is published goes on, and somebody takes a port that nobody holds.
        assert await world.ask(None, world.host, port) == "a"
        with socket.socket() as thief:
            thief.bind(("0.0.0.0", taken))
            async with opened(config, spawner) as networks:
                world.networks = networks
                seated = await networks.recover({"a".ljust(64, "0")})
                assert set(seated) == {"a".ljust(64, "0")}
                again = seated["a".ljust(64, "0")]
                assert again == attrs.evolve(kept, ports=kept.ports[:1])
                assert await world.ask(None, world.host, port) == "a"
                assert await world.ask(again, world.host, port) == "a"
                assert lost.netns_pin is not None
                assert not lost.netns_pin.exists()
                with pytest.raises(OSError, match="in use"), socket.socket() as other:
                    other.bind(("0.0.0.0", port))
                await networks.detach("a".ljust(64, "0"))
        nursery.cancel_scope.cancel()
    assert await left_behind(config) == []


async def test_what_an_earlier_daemon_half_made_is_taken_down(config: Config) -> None:
    async with spawner_in(config.run_root) as spawner:
        stray = config.run_root / "ns" / "net" / "stray"
        stray.parent.mkdir(parents=True)
        await mounts.network_namespace(spawner, stray, None)
        tag = config.instance_tag
        for name in (f"bh{tag}-9", f"bv{tag}-9"):
            await spawner.run(Command(("ip", "link", "add", name, "type", "bridge"), ENV))
        assert len(await left_behind(config)) == 2
        async with opened(config, spawner) as networks:
            await networks.recover(())
            assert await left_behind(config) == []
            assert not stray.exists()


QUERY = bytes.fromhex("abcd01000001000000000000") + b"\x04Host\x07example\x00\x00\x01\x00\x01"
RECORD = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x07"
LOOKUP = """
import socket, sys
query = bytes.fromhex(sys.argv[2])
if sys.argv[3] == "udp":
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.settimeout(0.5)
    sock.sendto(query, (sys.argv[1], 53))
    print(sock.recv(999).hex())
else:
    sock = socket.create_connection((sys.argv[1], 53), 0.5)
    sock.sendall(len(query).to_bytes(2, "big") + query)
    print(sock.recv(999)[2:].hex())
"""


async def upstream(address: str, task_status: trio.TaskStatus[None]) -> None:
    """A resolver on the host's loopback, as systemd-resolved is; it first answers what was not asked."""

    def answer(query: bytes, name: bytes | None = None) -> bytes:
        question = name or query[12:]
        return query[:2] + bytes.fromhex("81800001000100000000") + question + RECORD

    async def streams(listener: trio.SocketListener) -> None:
        await trio.serve_listeners(converse, [listener])

    async def converse(stream: trio.SocketStream) -> None:
        query = (await stream.receive_some(999))[2:]
        reply = answer(query)
        await stream.send_all(len(reply).to_bytes(2, "big") + reply)

    with trio.socket.socket(type=socket.SOCK_DGRAM) as sock:
        await sock.bind((address, 53))
        (listener,) = await trio.open_tcp_listeners(53, host=address)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(streams, listener)
            task_status.started()
            while True:
                query, sender = await sock.recvfrom(999)
                await sock.sendto(answer(query, b"\x04evil\x00\x00\x01\x00\x01"), sender)
                await sock.sendto(b"\0\0" + answer(query)[2:], sender)
                await sock.sendto(answer(query), sender)


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
async def test_names_resolve_through_the_gateway_where_the_resolver_is_on_loopback(
    world: World, tmp_path: Path, protocol: str
) -> None:
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 127.9.9.9\n")
    world.networks._bridges.name_server.upstream.host_file = resolv_conf
    await world.nursery.start(upstream, "127.9.9.9")
    ann, ben = await world.seat("a", ANN, serves=False), await world.seat("b", BEN, serves=False)
    assert ann.resolvers == (ann.gateway,)
    lookup = (*PYTHON, LOOKUP, ann.gateway, QUERY.hex(), protocol)
    told = bytes.fromhex((await world.run(ann, *lookup)).stdout.decode())
    assert told[:2] == QUERY[:2]
    assert told.endswith(bytes((192, 0, 2, 7)))
    assert (await world.run(ben, *lookup)).stdout == b""
