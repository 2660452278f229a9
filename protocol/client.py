"""A trio client of the stream: one connection, or a follower that comes back by its cursor.

async with open_stream("/run/bakehouse/bakehouse.sock", from_="oldest") as stream:
    async for message in stream:
        ...

async with open_follower("/run/bakehouse/bakehouse.sock", Hello(from_="now")) as messages:
    async for message in messages:
        ...
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import cast

import attrs
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)
from typing_extensions import override

from protocol import codec
from protocol.errors import ErrorKind, Refused
from protocol.ids import Cursor
from protocol.messages import STREAM_PATH, SUBPROTOCOL, Batch, Bookmark, Gone, Hello, Want, Welcome

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
RETRY_SECONDS_FIRST = 0.1
RETRY_SECONDS_MAX = 5.0
HANDSHAKE_SECONDS = 30.0

Address = str | Path | tuple[str, int]
"""A unix socket's path, or a host and port."""


class StreamRefusedError(Exception):
    """The server does not serve us; ``refused`` says why."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.message)
        self.refused = refused


class StreamLostError(Exception):
    """There is no connection (any more); come back with the cursor."""


async def dial(address: Address) -> trio.SocketStream:
    """A connection to ``address``.

    Raises:
        OSError: There is nobody.
    """
    if isinstance(address, tuple):
        return await trio.open_tcp_stream(*address)
    return await trio.open_unix_socket(os.fspath(address))


@attrs.define(eq=False)
class Stream:
    """An open stream. Iterate it for its messages, in order; ``cursor`` follows."""

    welcome: Welcome
    cursor: Cursor | None
    _websocket: WebSocketConnection

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> codec.Message:
        """The next message.

        Raises:
            StreamLostError: The connection ended.
            StreamRefusedError: The server ended it, and says why.
        """
        message = await _receive(self._websocket)
        if isinstance(message, Batch | Bookmark):
            self.cursor = Cursor(self.welcome.epoch, message.upto)
        elif isinstance(message, Gone):
            self.cursor = Cursor(self.welcome.epoch, message.first_seq - 1)
        return message


async def _receive(websocket: WebSocketConnection) -> codec.Message:
    try:
        message = codec.decode(await websocket.get_message())
    except ConnectionClosed as error:
        raise StreamLostError("the stream ended") from error
    if isinstance(message, Refused):
        raise StreamRefusedError(message)
    return message


@asynccontextmanager
async def open_stream(
    address: Address,
    *,
    want: Want = Want(),  # noqa: B008  # frozen
    from_: str = "now",
    snapshot: bool = False,
    samples: bool = False,
) -> AsyncIterator[Stream]:
    """Connect, say hello, and wait to be welcome.

    Raises:
        StreamLostError: Nobody is there, or the connection ended.
        StreamRefusedError: The server does not serve us.
    """
    hello = Hello(want=want, from_=from_, snapshot=snapshot, samples=samples)
    try:
        connection = await dial(address)
    except OSError as error:
        raise StreamLostError(f"cannot reach {address}: {error.strerror or error}") from error
    with _one_error():
        async with connection, trio.open_nursery() as nursery:
            try:
                websocket = await _upgrade(nursery, connection)
                yield await _greet(websocket, hello)
            finally:
                nursery.cancel_scope.cancel()


async def _upgrade(nursery: trio.Nursery, connection: trio.SocketStream) -> WebSocketConnection:
    line = _Line(connection)
    try:
        with trio.fail_after(HANDSHAKE_SECONDS), line.while_open():
            return await wrap_client_stream(
                nursery,
                # It sends, receives and closes, which any stream does.
                cast("trio.SocketStream", line),
                "bakehouse",
                STREAM_PATH,
                subprotocols=[SUBPROTOCOL],
                max_message_size=MESSAGE_BYTES_MAX,
            )
    except ConnectionRejected as error:
        raise StreamRefusedError(_rejection(error)) from error
    except (HandshakeError, ConnectionClosed) as error:
        raise StreamLostError(f"the server did not answer: {error}") from error
    except trio.TooSlowError as error:
        raise StreamLostError("the server did not answer") from error
    raise StreamLostError("the server hung up instead of answering")


class _Line(trio.abc.Stream):
    """A stream that tells when the other side has ended it.

    trio-websocket waits for the answer to its handshake for ever, also on a connection that has ended.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._scope = trio.CancelScope()

    def while_open(self) -> trio.CancelScope:
        """A scope that is cancelled when the stream ends; to be entered once."""
        return self._scope

    @override
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._ends_if_broken():
            await self._stream.send_all(data)

    @override
    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    @override
    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        with self._ends_if_broken():
            data = await self._stream.receive_some(max_bytes)
        if not data:
            self._scope.cancel()
        return data

    @contextmanager
    def _ends_if_broken(self) -> Iterator[None]:
        try:
            yield
        except trio.BrokenResourceError:
            self._scope.cancel()
            raise

    @override
    async def aclose(self) -> None:
        await self._stream.aclose()


async def _greet(websocket: WebSocketConnection, hello: Hello) -> Stream:
    try:
        await websocket.send_message(codec.encode(hello).decode())
    except ConnectionClosed as error:
        raise StreamLostError("the stream ended") from error
    welcome = await _receive(websocket)
    if not isinstance(welcome, Welcome):
        raise StreamLostError(f"the server began with {type(welcome).__name__}, not with a welcome")
    cursor = Cursor(welcome.epoch, welcome.last_seq) if hello.from_ == "now" else None
    return Stream(welcome, cursor, websocket)


def _rejection(error: ConnectionRejected) -> Refused:
    """What an HTTP answer instead of a websocket says; Docker's errors have a ``message``."""
    body = error.body or b""
    try:
        table = codec.load_object(body)
    except codec.MalformedMessageError:
        table = {"message": body.decode(errors="replace").strip()}
    kind = ErrorKind.PERMISSION_DENIED if error.status_code == 403 else ErrorKind.UNAVAILABLE  # noqa: PLR2004
    text = str(table.get("message") or f"the server answered with status {error.status_code}")
    return Refused(kind, text)


@asynccontextmanager
async def open_follower(
    address: Address, hello: Hello
) -> AsyncIterator[trio.MemoryReceiveChannel[codec.Message]]:
    """The messages of one stream after another, each beginning where the last one ended; for ever.

    A lost connection is made again, with growing pauses; every new one shows as a further ``Welcome``.

    Raises:
        StreamLostError: There was nobody in the first place.
        StreamRefusedError: The server does not serve us.
    """
    send, receive = trio.open_memory_channel[codec.Message](0)
    with _one_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_follow, address, hello, send)
            with receive:
                yield receive
            nursery.cancel_scope.cancel()


async def _follow(
    address: Address, hello: Hello, messages: trio.MemorySendChannel[codec.Message]
) -> None:
    pause, welcomed = RETRY_SECONDS_FIRST, False
    while True:
        try:
            async with open_stream(
                address,
                want=hello.want,
                from_=hello.from_,
                snapshot=hello.snapshot,
                samples=hello.samples,
            ) as stream:
                pause, welcomed = RETRY_SECONDS_FIRST, True
                await messages.send(stream.welcome)
                while True:
                    hello = attrs.evolve(hello, from_=str(stream.cursor or hello.from_))
                    await messages.send(await anext(stream))
        except StreamLostError:
            if not welcomed:
                raise
            await trio.sleep(pause)
            pause = min(2 * pause, RETRY_SECONDS_MAX)


class _one_error:  # noqa: N801  # used like a function
    """One error is raised as itself, not as a group of one."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        lone = error
        while isinstance(lone, BaseExceptionGroup) and len(lone.exceptions) == 1:
            lone = lone.exceptions[0]
        if lone is not None and lone is not error:
            raise lone from None
