"""Asking the resolvers of the host, or those a container was given, from the host's own network.

Words: an **exchange** is asking one server once.

Rules: every exchange has a socket (so a port) and an id of its own, and only what replies to the question counts. A
server that does not answer in its time, or cannot help, is followed by the next. Nothing is kept: the host's resolver
caches.

RFC 1035 section 4.2, RFC 5452, RFC 7766.
"""

from __future__ import annotations

import secrets
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import attrs
import trio

from supervisor.network.dns_message import (
    MESSAGE_BYTES_MAX,
    Code,
    Question,
    answer,
    datagram_bytes_max,
    is_of_no_help,
    is_reply_to,
    is_truncated,
    number_of,
    numbered,
)
from supervisor.network.resolvers import HOST_FILE, HostResolvers, read

EXCHANGE_SECONDS = 2.0
"""For one server; C libraries give us five in all before they ask the next."""

SERVERS_MAX = 3
PORT = 53
_LENGTH = struct.Struct("!H")


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


async def forward_datagram(query: bytes, question: Question, servers: Sequence[str]) -> bytes:
    """What the first server that can help replies; a failure when none does.

    A reply that was cut short for the way to us is fetched whole if it then fits what the client can take.
    """
    bytes_max = datagram_bytes_max(query, question)

    async def exchange(asked: bytes, server: str) -> bytes | None:
        reply = await _exchange_datagram(asked, question, server)
        if not is_truncated(reply):
            return reply
        whole = None
        with trio.move_on_after(EXCHANGE_SECONDS / 2):
            try:
                whole = await _exchange_stream(asked, question, server)
            except (OSError, trio.BrokenResourceError):
                return reply
        return whole if whole is not None and len(whole) <= bytes_max else reply

    return await _ask(query, question, servers, exchange)


async def forward_stream(query: bytes, question: Question, servers: Sequence[str]) -> bytes:
    """The same, over TCP."""

    async def exchange(asked: bytes, server: str) -> bytes | None:
        return await _exchange_stream(asked, question, server)

    return await _ask(query, question, servers, exchange)


async def receive_message(stream: trio.SocketStream) -> bytes | None:
    """The next message of a stream; None at its end."""
    head = await _exactly(stream, _LENGTH.size)
    return None if head is None else await _exactly(stream, _LENGTH.unpack(head)[0])


async def send_message(stream: trio.SocketStream, message: bytes) -> None:
    """Send a message behind its length."""
    await stream.send_all(_LENGTH.pack(len(message)) + message)


async def _ask(
    query: bytes,
    question: Question,
    servers: Sequence[str],
    exchange: Callable[[bytes, str], Awaitable[bytes | None]],
) -> bytes:
    number = number_of(query)
    best = None
    for server in servers[:SERVERS_MAX]:
        reply = None
        with trio.move_on_after(EXCHANGE_SECONDS):
            try:
                reply = await exchange(numbered(query, secrets.randbits(16)), server)
            except (OSError, trio.BrokenResourceError):
                continue
        if reply is None:
            continue
        best = numbered(reply, number)
        if not is_of_no_help(reply):
            break
    return best or answer(query, question, code=Code.SERVER_FAILURE)


async def _exchange_datagram(asked: bytes, question: Question, server: str) -> bytes:
    with trio.socket.socket(_family(server), socket.SOCK_DGRAM) as sock:
        await sock.connect((server, PORT))
        await sock.send(asked)
        while True:
            reply = await sock.recv(MESSAGE_BYTES_MAX)
            if is_reply_to(reply, number_of(asked), question):
                return reply


async def _exchange_stream(asked: bytes, question: Question, server: str) -> bytes | None:
    with trio.socket.socket(_family(server), socket.SOCK_STREAM) as sock:
        await sock.connect((server, PORT))
        stream = trio.SocketStream(sock)
        await send_message(stream, asked)
        reply = await receive_message(stream)
    if reply is None or not is_reply_to(reply, number_of(asked), question):
        return None
    return reply


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
