"""The name server: it answers for the networks an asker is on, and passes all else on.

Words: a **door** is where the server is asked: a datagram socket and a listener, at the gateway of a network, or at a
container's own loopback (:mod:`supervisor.network.doors`); a **turn** is one look at all doors that somebody stands at.

Rules:

* A gateway's door is at its address *and* on the bridge alone (SO_BINDTODEVICE): other owners' bridges and the world
  outside do not reach it. Who asks from an address that is not of the network's gets no answer. At a container's own
  door nobody else can ask.
* One task waits at all doors, and costs nothing while nobody asks. What we know is answered in place; only what is
  passed on has a task of its own.
* Queries in flight, connections and their time are bounded, for a door, an owner and the host. Beyond the bound a
  datagram is dropped, a connection closed: clients ask again. What an owner's askers may cost in a turn, at once and in
  the long run is bounded as well: a flood takes a part of the daemon's time, whatever it asks, and the rest waits.
* From an internal network nothing is passed on: names would be a way out.
* Nothing is kept between queries.

RFC 1035 section 4, RFC 7766.
"""

from __future__ import annotations

import errno
import select
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

import attrs
import trio

from supervisor.errors import Unavailable
from supervisor.network.dns_message import (
    MESSAGE_BYTES_MAX,
    Code,
    Question,
    address_records,
    answer,
    datagram_bytes_max,
    name_records,
    query_of,
)
from supervisor.network.dns_upstream import (
    PORT,
    Upstream,
    forward_datagram,
    forward_stream,
    receive_message,
    send_message,
)
from supervisor.network.names import Asker, Names

QUERIES_MAX = {"door": 256, "owner": 512, "host": 2_048}
"""Passed on and not yet answered, at once."""

CONNECTIONS_MAX = {"door": 16, "owner": 32, "host": 512}
IDLE_SECONDS = 10.0

TURN_COST_MAX = 32
"""What one owner's askers get in a turn: so many answers of ours, or an eighth of that passed on."""

COST_AT_ONCE_MAX, COST_PER_SECOND_MAX = 1_024, 8_000
"""What they get in many turns; an answer takes some thirty microseconds."""

PAUSE_SECONDS = 0.002
"""After a turn in which somebody had got all that, and between the queries of a connection."""

_FORWARD_COST = 8
_REST_SECONDS = 1.0
"""Before connections are accepted again where there was no descriptor left for one."""

_QUERY_BYTES_MAX = 4_096
_BACKLOG = 16


@attrs.define(eq=False)
class _Door:
    """Where one network, by its number, or one container, by its id, asks."""

    of: int | str
    owner: int
    datagrams: socket.socket
    listener: socket.socket

    def asker(self, names: Names, sender: str) -> Asker | None:
        """Who asks there from an address; None when nobody can."""
        if isinstance(self.of, str):
            return names.container(self.of)
        return names.asker(self.of, IPv4Address(sender))

    def close(self) -> None:
        self.datagrams.close()
        self.listener.close()


@attrs.define(eq=False)
class _Bound:
    """How many of something there are at once: at a door, of an owner, on the host."""

    most: dict[str, int]
    there: Counter[tuple[str, int | str]] = attrs.field(factory=Counter)

    def take(self, door: _Door) -> bool:
        """Whether there was room for one more; then it is counted."""
        keys = self._keys(door)
        if any(self.there[key] >= self.most[key[0]] for key in keys):
            return False
        self.there.update(keys)
        return True

    @contextmanager
    def taken(self, door: _Door) -> Iterator[None]:
        """One that was taken is given back at the end."""
        try:
            yield
        finally:
            for key in self._keys(door):
                self.there[key] -= 1
                if not self.there[key]:
                    del self.there[key]

    @staticmethod
    def _keys(door: _Door) -> tuple[tuple[str, int | str], ...]:
        return ("door", door.of), ("owner", door.owner), ("host", 0)


@attrs.define(eq=False)
class _Purse:
    """What an owner's askers may still cost: in this turn, and all in all."""

    at: float
    left: float = COST_AT_ONCE_MAX
    turn: float = 0

    def begin_turn(self, now: float) -> None:
        self.left = min(COST_AT_ONCE_MAX, self.left + (now - self.at) * COST_PER_SECOND_MAX)
        self.turn = min(self.left, TURN_COST_MAX)
        self.at = now

    def spend(self, cost: int) -> None:
        self.left -= cost
        self.turn -= cost


@attrs.define(eq=False)
class NameServer:
    """The name server of this daemon, at as many doors as are opened. :meth:`run` runs once."""

    names: Names
    upstream: Upstream
    port: int = PORT
    _doors: dict[int | str, _Door] = attrs.field(factory=dict)
    _epoll: select.epoll = attrs.field(factory=select.epoll)
    _listening: dict[int, _Door] = attrs.field(factory=dict)
    _asked: dict[int, _Door] = attrs.field(factory=dict)
    _queries: _Bound = attrs.field(factory=lambda: _Bound(QUERIES_MAX))
    _connections: _Bound = attrs.field(factory=lambda: _Bound(CONNECTIONS_MAX))
    _purses: dict[int, _Purse] = attrs.field(factory=dict)
    _rotation: Counter[int] = attrs.field(factory=Counter)

    def open(self, number: int, owner: int, gateway: IPv4Address, interface: str) -> None:
        """Answer at that network's gateway from now on. Success too when it has a door.

        Args:
            number: The network's; it is open in the names.
            owner: Whose bounds its askers are within.
            gateway: The address to be asked at.
            interface: The only link to be asked on.

        Raises:
            Unavailable: Another name server of the host has the port.
        """
        if number in self._doors:
            return
        try:
            datagrams = _bound(socket.SOCK_DGRAM, gateway, interface, self.port)
            with _closing_unless_kept(datagrams):
                listener = _bound(socket.SOCK_STREAM, gateway, interface, self.port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise Unavailable(
                f"cannot serve names at {gateway}: a name server of this host has the port"
            ) from error
        listener.listen(_BACKLOG)
        self._enter(_Door(number, owner, datagrams, listener))

    def open_inside(
        self, container_id: str, owner: int, datagrams: socket.socket, listener: socket.socket
    ) -> None:
        """Answer a container at sockets of its own namespace, which are ours from now on. One that it had is closed."""
        self.close(container_id)
        for sock in (datagrams, listener):
            sock.setblocking(False)
        self._enter(_Door(container_id, owner, datagrams, listener))

    def close(self, of: int | str) -> None:
        """Answer that network, or that container, there no more. Success too when it has no door."""
        door = self._doors.pop(of, None)
        if door is not None:
            del self._asked[door.datagrams.fileno()], self._listening[door.listener.fileno()]
            door.close()

    def serves(self, of: int | str) -> bool:
        """Whether a network, or a container, has a door."""
        return of in self._doors

    def _enter(self, door: _Door) -> None:
        self._doors[door.of] = door
        self._asked[door.datagrams.fileno()] = self._listening[door.listener.fileno()] = door
        for sock in (door.datagrams, door.listener):
            self._epoll.register(sock.fileno(), select.EPOLLIN)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled; then every door is closed."""
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                    if self._take_turn(nursery):
                        await trio.sleep(PAUSE_SECONDS)
        finally:
            for of in list(self._doors):
                self.close(of)
            self._epoll.close()

    def _take_turn(self, nursery: trio.Nursery) -> bool:
        """Answer who stands at the doors; whether somebody has nothing left to spend."""
        now, purses = trio.current_time(), dict[int, _Purse]()
        for descriptor, _ in self._epoll.poll(0):
            door = self._asked.get(descriptor) or self._listening.get(descriptor)
            if door is None:
                continue
            purse = purses.get(door.owner)
            if purse is None:
                purse = purses[door.owner] = self._purses.setdefault(door.owner, _Purse(now))
                purse.begin_turn(now)
            serve = self._hear if descriptor in self._asked else self._admit
            serve(door, purse, nursery)
        return any(purse.left <= 0 for purse in purses.values())

    def _hear(self, door: _Door, purse: _Purse, nursery: trio.Nursery) -> None:
        while purse.turn > 0:
            try:
                query, sender = door.datagrams.recvfrom(_QUERY_BYTES_MAX + 1)
            except OSError:
                return  # nobody is there any more, or the link has gone
            purse.spend(1)
            question = query_of(query) if len(query) <= _QUERY_BYTES_MAX else None
            asker = door.asker(self.names, sender[0])
            if question is None or asker is None:
                continue
            reply = self._answer(query, question, asker, datagram_bytes_max(query, question))
            if reply is not None:
                _reply(door, reply, sender)
            elif self._queries.take(door):
                purse.spend(_FORWARD_COST - 1)
                servers = self._servers(asker)
                nursery.start_soon(self._pass_on, door, query, question, servers, sender)

    def _admit(self, door: _Door, purse: _Purse, nursery: trio.Nursery) -> None:
        while purse.turn > 0:
            try:
                sock, sender = door.listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # no descriptor is left, or no memory
                self._epoll.unregister(door.listener.fileno())
                nursery.start_soon(self._rest, door)
                return
            purse.spend(_FORWARD_COST)
            if not self._connections.take(door):
                sock.close()
                continue
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
            nursery.start_soon(self._converse, door, stream, sender[0])

    def _answer(
        self, query: bytes, question: Question, asker: Asker, bytes_max: int = MESSAGE_BYTES_MAX
    ) -> bytes | None:
        """The answer, where it is for us to give; None when the question is to be passed on."""
        records = self._records(question, asker) if question.internet else None
        if records is not None:
            return answer(query, question, records, bytes_max=bytes_max)
        if not self.names.asks_outside(asker):
            return answer(query, question, code=Code.SERVER_FAILURE)
        return None

    def _records(self, question: Question, asker: Asker) -> list[bytes] | None:
        address = question.reverse
        if address is not None:
            found = self.names.names_of(asker, address)
            return None if found is None else name_records(question.kind, found)
        addresses = self.names.addresses_of(asker, question.name)
        if addresses is None:
            return None
        records = address_records(question.kind, addresses)
        if len(records) > 1:
            self._rotation[question.kind] += 1
            first = self._rotation[question.kind] % len(records)
            return records[first:] + records[:first]
        return records

    def _servers(self, asker: Asker) -> tuple[str, ...]:
        given = self.names.servers_of(asker)
        return self.upstream.current().upstream if given is None else given

    async def _pass_on(
        self,
        door: _Door,
        query: bytes,
        question: Question,
        servers: tuple[str, ...],
        sender: tuple[str, int],
    ) -> None:
        with self._queries.taken(door):
            reply = await forward_datagram(query, question, servers)
        _reply(door, reply, sender)

    async def _converse(self, door: _Door, stream: trio.SocketStream, sender: str) -> None:
        with self._connections.taken(door), stream.socket:
            try:
                while await self._exchange(door, stream, sender):
                    pass
            except trio.BrokenResourceError:
                return  # the asker has gone

    async def _exchange(self, door: _Door, stream: trio.SocketStream, sender: str) -> bool:
        """One query of a connection and its answer; whether there may be more."""
        await trio.sleep(PAUSE_SECONDS)
        query = None
        with trio.move_on_after(IDLE_SECONDS):
            query = await receive_message(stream)
        question = None if query is None else query_of(query)
        asker = door.asker(self.names, sender)
        if query is None or question is None or asker is None:
            return False
        reply = self._answer(query, question, asker)
        if reply is None:
            reply = await forward_stream(query, question, self._servers(asker))
        with trio.move_on_after(IDLE_SECONDS) as sending:
            await send_message(stream, reply)
        return not sending.cancelled_caught

    async def _rest(self, door: _Door) -> None:
        await trio.sleep(_REST_SECONDS)
        if self._doors.get(door.of) is door:
            self._epoll.register(door.listener.fileno(), select.EPOLLIN)


def _bound(kind: int, gateway: IPv4Address, interface: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    with _closing_unless_kept(sock):
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        sock.bind((str(gateway), port))
    return sock


@contextmanager
def _closing_unless_kept(sock: socket.socket) -> Iterator[None]:
    """What fails meanwhile closes the socket."""
    try:
        yield
    except BaseException:
        sock.close()
        raise


def _reply(door: _Door, message: bytes, sender: tuple[str, int]) -> None:
    try:
        door.datagrams.sendto(message, sender)
    except OSError:
        return  # the asker has gone, with its link perhaps; or does not read: it asks again
