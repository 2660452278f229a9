"""A small name server on a bridge's gateway: it asks the host's resolvers, from the host's own network.

Words: a **query** is what a container sent; an **exchange** is asking one upstream server once.

Rules:

* It listens at the gateway's address *and* on the bridge alone (SO_BINDTODEVICE): other owners' bridges and the world
  outside do not reach it.
* What is no plain question is not passed on; what upstream says is passed on only when it answers that question. Every
  exchange has a socket (so a port) and an id of its own.
* Queries in flight, connections and their time are bounded. Beyond the bound a datagram is dropped: clients ask again.
* Nothing is kept: the host's resolver caches.

RFC 1035 section 4, RFC 7766.
"""

from __future__ import annotations

import errno
import secrets
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

import attrs
import trio

from supervisor.errors import Unavailable
from supervisor.network.resolvers import HOST_FILE, HostResolvers, read

QUERIES_MAX = 256
"""In flight at once, for one bridge."""

CONNECTIONS_MAX = 32
IDLE_SECONDS = 10.0
EXCHANGE_SECONDS = 2.0
"""For one upstream server; C libraries give us five in all before they ask the next."""

PORT = 53
_MESSAGE_BYTES_MAX = 65_535
_HEADER = struct.Struct("!HHHHHH")
_LENGTH = struct.Struct("!H")
_IS_RESPONSE, _OPCODE, _RECURSION_DESIRED = 0x8000, 0x7800, 0x0100
_SERVFAIL = 0x8082
"""A response, recursion available, server failure."""

_LABEL_BYTES_MAX, _NAME_BYTES_MAX = 63, 255


@attrs.frozen
class Question:
    """The one question of a message: its name in lower case, type and class, as on the wire."""

    wire: bytes
    end: int


def question_of(message: bytes) -> Question | None:
    """The question of a message that holds exactly one, uncompressed; None for anything else. Pure."""
    if len(message) < _HEADER.size or _HEADER.unpack_from(message)[2] != 1:
        return None
    offset = _HEADER.size
    while True:
        if offset >= len(message):
            return None
        length = message[offset]
        offset += 1 + length
        if length == 0:
            break
        if length > _LABEL_BYTES_MAX or offset - _HEADER.size >= _NAME_BYTES_MAX:
            return None
    end = offset + 4
    if end > len(message):
        return None
    return Question(message[_HEADER.size : offset].lower() + message[offset:end], end)


def is_query(message: bytes) -> bool:
    """Whether a message is a plain question: no response, no update or notification. Pure."""
    if question_of(message) is None:
        return False
    _, flags, _, answers, _, _ = _HEADER.unpack_from(message)
    return not flags & (_IS_RESPONSE | _OPCODE) and answers == 0


def answers(reply: bytes, number: int, question: Question) -> bool:
    """Whether a message answers our question with that id. Pure."""
    asked = question_of(reply)
    if asked is None or asked.wire != question.wire:
        return False
    got, flags, *_ = _HEADER.unpack_from(reply)
    return got == number and bool(flags & _IS_RESPONSE)


def failure(query: bytes) -> bytes:
    """What a query gets when nobody upstream answered: SERVFAIL. Pure."""
    question = question_of(query)
    assert question is not None
    number, flags, *_ = _HEADER.unpack_from(query)
    head = _HEADER.pack(number, _SERVFAIL | (flags & _RECURSION_DESIRED), 1, 0, 0, 0)
    return head + query[_HEADER.size : question.end]


@attrs.define
class Upstream:
    """The host's resolvers, read again when their file has changed."""

    host_file: Path = HOST_FILE
    _seen: tuple[int, int] | None = None
    _resolvers: HostResolvers = attrs.field(factory=HostResolvers)

    def current(self) -> HostResolvers:
        """As of now; a small file, read in place."""
        try:
            stat = self.host_file.stat()
            seen = (stat.st_mtime_ns, stat.st_ino)
        except OSError:
            seen = (0, 0)
        if seen != self._seen:
            self._seen, self._resolvers = seen, read(self.host_file)
        return self._resolvers


async def serve(
    gateway: IPv4Address,
    interface: str,
    upstream: Callable[[], HostResolvers],
    port: int = PORT,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer queries until cancelled.

    Args:
        gateway: The address to listen at.
        interface: The only link to listen on.
        upstream: Gives the resolvers to ask.
        port: Where to listen.
        task_status: Told when queries are heard.

    Raises:
        Unavailable: Another name server of the host has the port.
    """
    try:
        datagrams = await _bound(socket.SOCK_DGRAM, gateway, interface, port)
        with datagrams:
            streams = await _bound(socket.SOCK_STREAM, gateway, interface, port)
            with streams:
                streams.listen(CONNECTIONS_MAX)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_serve_datagrams, datagrams, upstream)
                    nursery.start_soon(_serve_streams, streams, upstream)
                    task_status.started()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise Unavailable(
            f"cannot serve names at {gateway}: a name server of this host has the port"
        ) from error


async def _bound(
    kind: int, gateway: IPv4Address, interface: str, port: int
) -> trio.socket.SocketType:
    sock = trio.socket.socket(socket.AF_INET, kind)
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        await sock.bind((str(gateway), port))
    except BaseException:
        sock.close()
        raise
    return sock


async def _serve_datagrams(
    sock: trio.socket.SocketType, upstream: Callable[[], HostResolvers]
) -> None:
    free = trio.Semaphore(QUERIES_MAX)

    async def answer(query: bytes, sender: tuple[str, int]) -> None:
        try:
            reply = await _ask_datagram(query, upstream().upstream)
            await sock.sendto(reply, sender)
        except OSError:
            return  # the asker has gone, with its link perhaps
        finally:
            free.release()

    async with trio.open_nursery() as nursery:
        while True:
            query, sender = await sock.recvfrom(_MESSAGE_BYTES_MAX)
            if not is_query(query):
                continue
            try:
                free.acquire_nowait()
            except trio.WouldBlock:
                continue
            nursery.start_soon(answer, query, sender)


async def _serve_streams(
    listener: trio.socket.SocketType, upstream: Callable[[], HostResolvers]
) -> None:
    free = trio.Semaphore(CONNECTIONS_MAX)

    async def converse(sock: trio.socket.SocketType) -> None:
        try:
            with trio.SocketStream(sock).socket:
                await _converse(trio.SocketStream(sock), upstream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            return  # the asker has gone
        finally:
            free.release()

    async with trio.open_nursery() as nursery:
        while True:
            await free.acquire()
            try:
                sock, _ = await listener.accept()
            except OSError:
                free.release()  # it went before we took it, or we are out of descriptors
                await trio.sleep(0.1)
                continue
            nursery.start_soon(converse, sock)


async def _converse(stream: trio.SocketStream, upstream: Callable[[], HostResolvers]) -> None:
    while True:
        with trio.move_on_after(IDLE_SECONDS) as idle:
            query = await _receive(stream)
        if idle.cancelled_caught or query is None or not is_query(query):
            return
        reply = await _ask_stream(query, upstream().upstream)
        with trio.move_on_after(IDLE_SECONDS) as idle:
            await stream.send_all(_LENGTH.pack(len(reply)) + reply)
        if idle.cancelled_caught:
            return


async def _ask_datagram(query: bytes, servers: tuple[str, ...]) -> bytes:
    for server in servers:
        with trio.move_on_after(EXCHANGE_SECONDS):
            try:
                return await _exchange_datagram(query, server)
            except OSError:
                continue
    return failure(query)


async def _exchange_datagram(query: bytes, server: str) -> bytes:
    question = question_of(query)
    assert question is not None
    number = secrets.randbits(16)
    with trio.socket.socket(_family(server), socket.SOCK_DGRAM) as sock:
        await sock.connect((server, PORT))
        await sock.send(_LENGTH.pack(number) + query[2:])
        while True:
            reply = await sock.recv(_MESSAGE_BYTES_MAX)
            if answers(reply, number, question):
                return query[:2] + reply[2:]


async def _ask_stream(query: bytes, servers: tuple[str, ...]) -> bytes:
    question = question_of(query)
    assert question is not None
    for server in servers:
        number = secrets.randbits(16)
        with trio.move_on_after(EXCHANGE_SECONDS):
            try:
                reply = await _exchange_stream(_LENGTH.pack(number) + query[2:], server)
            except (OSError, trio.BrokenResourceError):
                continue
            if reply is not None and answers(reply, number, question):
                return query[:2] + reply[2:]
    return failure(query)


async def _exchange_stream(query: bytes, server: str) -> bytes | None:
    with trio.socket.socket(_family(server), socket.SOCK_STREAM) as sock:
        await sock.connect((server, PORT))
        stream = trio.SocketStream(sock)
        await stream.send_all(_LENGTH.pack(len(query)) + query)
        return await _receive(stream)


async def _receive(stream: trio.SocketStream) -> bytes | None:
    """The next message of a stream; None at its end."""
    head = await _exactly(stream, _LENGTH.size)
    return None if head is None else await _exactly(stream, _LENGTH.unpack(head)[0])


async def _exactly(stream: trio.SocketStream, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        piece = await stream.receive_some(count - len(data))
        if not piece:
            return None
        data += piece
    return bytes(data)


def _family(server: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in server else socket.AF_INET
