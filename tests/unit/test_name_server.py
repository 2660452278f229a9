"""network/dns.py and dns_upstream.py at real sockets, on loopback: 127.x.y.z stand in for containers and resolvers."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

import attrs
import pytest
import trio

from supervisor.errors import Unavailable
from supervisor.network import dns, dns_upstream
from supervisor.network.dns import NameServer
from supervisor.network.dns_message import (
    Code,
    Kind,
    address_records,
    answer,
    is_of_no_help,
    is_truncated,
    query_of,
)
from supervisor.network.dns_upstream import Upstream
from supervisor.network.names import NamedEndpoint, NamedNetwork, Names

PORT = 54_153
FRONT, INNER = 1, 2
WEB, STORE = "a" * 64, "b" * 64
GATEWAY = "127.201.1.1"
NOBODY = "127.203.9.9"
OUTSIDE = IPv4Address("192.0.2.7")


def question(name: str, kind: int = Kind.A, number: int = 0xABCD, tail: bytes = b"") -> bytes:
    head = number.to_bytes(2, "big") + bytes.fromhex("01000001000000000000")
    if tail:
        head = head[:-1] + b"\1"
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return head + labels + b"\0" + kind.to_bytes(2, "big") + b"\0\1" + tail


def addresses(reply: bytes) -> list[str]:
    """The IPv4 addresses of a reply whose names are all pointers."""
    asked = query_of(reply[:2] + b"\0\0" + reply[4:6] + bytes(6) + reply[12:])
    assert asked is not None
    records = reply[asked.end : asked.end + 16 * int.from_bytes(reply[6:8], "big")]
    return [str(IPv4Address(records[at + 12 : at + 16])) for at in range(0, len(records), 16)]


async def ask(
    query: bytes, source: str = "127.201.1.3", at: str = GATEWAY, *, tcp: bool = False
) -> bytes:
    """What the server replies to who asks from ``source``."""
    reply = await heard(query, source, at, tcp=tcp, within_seconds=3)
    assert reply is not None
    return reply


async def heard(
    query: bytes,
    source: str = "127.201.1.3",
    at: str = GATEWAY,
    *,
    tcp: bool = False,
    within_seconds: float = 0.1,
) -> bytes | None:
    """The same; None when it does not reply."""
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with trio.move_on_after(within_seconds), trio.socket.socket(type=kind) as sock:
        await sock.bind((source, 0))
        try:
            await sock.connect((at, PORT))
            await sock.send(len(query).to_bytes(2, "big") * tcp + query)
            return (await sock.recv(70_000))[2 * tcp :] or None
        except ConnectionError:
            return None
    return None


@attrs.define
class World:
    """A name server with two networks; the second is internal."""

    server: NameServer
    resolv_conf: Path
    nursery: trio.Nursery

    async def resolver(self, address: str, replies: Callable[[bytes], bytes | None]) -> None:
        """A resolver of the host's there, for datagrams and connections."""
        sock = trio.socket.socket(type=socket.SOCK_DGRAM)
        await sock.bind((address, 53))
        (listener,) = await trio.open_tcp_listeners(53, host=address)

        async def datagrams() -> None:
            with sock:
                while True:
                    query, sender = await sock.recvfrom(70_000)
                    reply = replies(query)
                    if reply is not None:
                        await sock.sendto(reply, sender)

        async def converse(stream: trio.SocketStream) -> None:
            reply = replies(b"tcp" + (await stream.receive_some(70_000))[2:])
            if reply is not None:
                await stream.send_all(len(reply).to_bytes(2, "big") + reply)

        self.nursery.start_soon(datagrams)
        self.nursery.start_soon(trio.serve_listeners, converse, [listener])

    def resolvers(self, *servers: str) -> None:
        self.resolv_conf.write_text("".join(f"nameserver {server}\n" for server in servers))


def says(*found: IPv4Address, code: Code = Code.NO_ERROR) -> Callable[[bytes], bytes]:
    def reply(query: bytes) -> bytes:
        query = query.removeprefix(b"tcp")
        asked = query_of(query)
        assert asked is not None
        return answer(query, asked, address_records(Kind.A, found), code=code)

    return reply


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    names = Names()
    names.open(NamedNetwork(FRONT, "front", (IPv4Network("127.201.1.0/24"),)))
    names.open(NamedNetwork(INNER, "inner", (IPv4Network("127.201.2.0/24"),), internal=True))
    twice = (IPv4Address("127.201.1.2"), IPv6Address("fd00::2"))
    names.enter(NamedEndpoint(FRONT, WEB, "web", twice, ("shared",)))
    names.enter(
        NamedEndpoint(FRONT, STORE, "store", (IPv4Address("127.201.1.3"),), ("shared", "db"))
    )
    server = NameServer(names, Upstream(tmp_path / "resolv.conf"), PORT)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        server.open(FRONT, 1001, IPv4Address(GATEWAY), "lo")
        server.open(INNER, 1002, IPv4Address("127.201.2.1"), "lo")
        made = World(server, tmp_path / "resolv.conf", nursery)
        made.resolvers(NOBODY)
        yield made
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("tcp", [False, True])
async def test_names_are_answered_where_they_are_and_nowhere_else(
    world: World, *, tcp: bool
) -> None:
    assert world.server.serves(FRONT)
    reply = await ask(question("Web.front"), tcp=tcp)
    assert addresses(reply) == ["127.201.1.2"]
    assert reply[:2] == b"\xab\xcd"
    assert b"\3Web\5front\0" in reply  # as it was asked
    six = await ask(question("web", Kind.AAAA), tcp=tcp)
    assert six.endswith(IPv6Address("fd00::2").packed)
    for kind in (Kind.AAAA, Kind.PTR, 15, 65):
        nothing = await ask(question("store", kind), tcp=tcp)
        assert nothing[3:8] == b"\x80\0\1\0\0"
    named = await ask(question("2.1.201.127.in-addr.arpa", Kind.PTR), tcp=tcp)
    assert named.endswith(b"\3web\5front\0")
    other = await ask(question("web"), "127.201.2.2", "127.201.2.1", tcp=tcp)
    assert is_of_no_help(other)


async def test_those_with_one_alias_take_turns(world: World) -> None:
    firsts = set()
    for _ in range(4):
        reply = await ask(question("shared"))
        assert sorted(addresses(reply)) == ["127.201.1.2", "127.201.1.3"]
        firsts.add(addresses(reply)[0])
        await ask(
            question("shared", Kind.AAAA)
        )  # C libraries ask for both: it must not undo the turn
    assert len(firsts) == 2


async def test_an_address_that_is_not_the_networks_gets_no_answer(world: World) -> None:
    for tcp in (False, True):
        assert await heard(question("web"), "127.201.3.3", tcp=tcp) is None
        assert await heard(question("web"), "127.201.2.3", tcp=tcp) is None


@pytest.mark.parametrize("tcp", [False, True])
async def test_what_is_no_query_gets_no_answer(world: World, *, tcp: bool) -> None:
    response = bytearray(question("web"))
    response[2] |= 0x80
    for hostile in (b"", b"x", bytes(12), bytes(response), question("web")[:-1], b"\xc0\x0c" * 40):
        assert await heard(hostile, tcp=tcp) is None
    assert await ask(question("web"))
    assert await heard(question("web") + bytes(5_000)) is None


async def test_many_addresses_are_cut_short_in_a_datagram_and_whole_in_a_stream(
    world: World,
) -> None:
    many = tuple(IPv4Address("127.201.1.10") + number for number in range(100))
    world.server.names.enter(NamedEndpoint(FRONT, "c" * 64, "many", many))
    cut = await ask(question("many"))
    more = await ask(question("many", tail=bytes.fromhex("0000291000000000000000")))
    whole = await ask(question("many"), tcp=True)
    assert is_truncated(cut)
    assert is_truncated(more)
    assert len(cut) <= 512 < len(more) <= 1232
    assert (is_truncated(whole), len(addresses(whole))) == (False, 100)


@pytest.mark.root
@pytest.mark.parametrize("tcp", [False, True])
async def test_the_next_resolver_is_asked_where_one_cannot_help(world: World, *, tcp: bool) -> None:
    asked: list[bytes] = []

    def silent(query: bytes) -> None:
        asked.append(query)

    await world.resolver("127.203.1.1", says(code=Code.SERVER_FAILURE))
    await world.resolver("127.203.1.2", silent)
    await world.resolver("127.203.1.3", says(OUTSIDE))
    world.resolvers(NOBODY, "127.203.1.1", "127.203.1.3")
    reply = await ask(question("example.org"), tcp=tcp)
    assert addresses(reply) == [str(OUTSIDE)]
    assert reply[:2] == b"\xab\xcd"
    world.resolvers("127.203.1.1", NOBODY)
    refused = await ask(question("example.org"), tcp=tcp)
    assert is_of_no_help(refused)
    inner = await ask(question("example.org"), "127.201.2.2", "127.201.2.1", tcp=tcp)
    assert is_of_no_help(inner)
    assert not asked


@pytest.mark.root
async def test_a_silent_resolver_has_its_time_and_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns_upstream, "EXCHANGE_SECONDS", 0.1)
    await world.resolver("127.203.1.4", lambda _: None)
    await world.resolver("127.203.1.5", says(OUTSIDE))
    world.resolvers("127.203.1.4", "127.203.1.5")
    reply = await ask(question("example.org"))
    assert addresses(reply) == [str(OUTSIDE)]


@pytest.mark.root
async def test_what_was_cut_short_on_the_way_to_us_is_fetched_whole(world: World) -> None:
    def replies(query: bytes) -> bytes:
        whole = says(*(OUTSIDE,) * 20)(query)
        return whole if query.startswith(b"tcp") else whole[:2] + b"\x83\x80" + whole[4:]

    await world.resolver("127.203.1.6", replies)
    world.resolvers("127.203.1.6")
    fits = await ask(question("example.org"))
    assert (is_truncated(fits), len(addresses(fits))) == (False, 20)


@pytest.mark.root
async def test_a_containers_own_resolvers_are_asked_instead(world: World) -> None:
    await world.resolver("127.203.1.7", says(OUTSIDE))
    world.resolvers("127.203.1.7")
    assert await ask(question("example.org"), "127.201.1.9")
    lone = NamedEndpoint(FRONT, WEB, "web", (IPv4Address("127.201.1.9"),), servers=("127.0.0.1",))
    world.server.names.enter(lone)
    reply = await ask(question("example.org"), "127.201.1.9")
    assert is_of_no_help(reply)  # the host's loopback is not for it


@pytest.mark.root
async def test_queries_passed_on_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(dns.QUERIES_MAX, "door", 3)
    heard = 0

    def silent(_: bytes) -> None:
        nonlocal heard
        heard += 1

    await world.resolver("127.203.1.8", silent)
    world.resolvers("127.203.1.8")
    with trio.socket.socket(type=socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.201.1.3", 0))
        for number in range(50):
            await sock.sendto(question("example.org", number=number), (GATEWAY, PORT))
        assert await ask(question("web"))  # what we know needs no room
    assert heard == 3


async def test_connections_are_bounded_and_a_flood_leaves_others_their_answers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dns.CONNECTIONS_MAX, "door", 1)
    with trio.socket.socket() as first, trio.socket.socket(type=socket.SOCK_DGRAM) as flood:
        await first.bind(("127.201.1.3", 0))
        await first.connect((GATEWAY, PORT))
        assert await heard(question("web"), tcp=True) is None
        await flood.bind(("127.201.1.3", 0))
        for _ in range(500):
            await flood.sendto(question("web"), (GATEWAY, PORT))
        inner = question("nothing")
        with trio.fail_after(2):
            assert await ask(inner, "127.201.2.2", "127.201.2.1")
    await trio.sleep(0.05)
    assert await ask(question("web"), tcp=True)


async def test_a_container_is_known_at_its_own_door_whatever_address_it_asks_from(
    world: World,
) -> None:
    for number, name in ((FRONT, "web"), (INNER, "other")):
        world.server.names.enter(NamedEndpoint(number, WEB, name, (IPv4Address("127.201.1.2"),)))
    former, at = "127.203.2.1", "127.203.2.2"
    for address in (former, at):  # the second in the place of the first
        sockets = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
        for sock in sockets:
            sock.bind((address, PORT))
        sockets[1].listen()
        world.server.open_inside(WEB, 1001, *sockets)
    assert await heard(question("store"), "127.0.0.1", former) is None
    for tcp in (False, True):
        reply = await ask(question("store"), "127.0.0.1", at, tcp=tcp)
        assert addresses(reply) == ["127.201.1.3"]
    world.server.names.leave(FRONT, WEB)
    assert is_of_no_help(await ask(question("store"), "127.0.0.1", at))
    world.server.close(WEB)
    assert not world.server.serves(WEB)
    assert await heard(question("web"), "127.0.0.1", at) is None


async def test_a_door_is_closed_and_opened_again(world: World) -> None:
    gateway = IPv4Address(GATEWAY)
    world.server.open(FRONT, 1001, gateway, "lo")
    rival = NameServer(Names(), Upstream(), PORT)
    with pytest.raises(Unavailable, match="has the port"):
        rival.open(FRONT, 1001, gateway, "lo")
    world.server.close(FRONT)
    world.server.close(FRONT)
    assert not world.server.serves(FRONT)
    assert await heard(question("web")) is None
    world.server.open(FRONT, 1001, gateway, "lo")
    assert await ask(question("web"))


def test_what_askers_may_cost_is_bounded_in_a_turn_at_once_and_in_the_long_run() -> None:
    purse = dns._Purse(at=0.0)
    spent, now = 0, 0.0
    while now < 10:
        purse.begin_turn(now)
        while purse.turn > 0:
            purse.spend(1)
            spent += 1
        assert purse.turn > -1
        now += dns.PAUSE_SECONDS
    most = dns.COST_AT_ONCE_MAX + 10 * dns.COST_PER_SECOND_MAX
    assert most * 0.95 < spent <= most + 1
    purse.begin_turn(now + 60)
    assert (purse.left, purse.turn) == (dns.COST_AT_ONCE_MAX, dns.TURN_COST_MAX)
