"""A websocket's messages as a stream of bytes, for what speaks to streams."""

from __future__ import annotations

import trio
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    WebSocketRequest,
    wrap_server_stream,
)
from typing_extensions import override

from supervisor.api.streams import ReplayStream

HANDSHAKE_SECONDS = 10.0
CLOSE_SECONDS = 2.0
MESSAGE_BYTES_MAX = 1_048_576


class MessageStream(trio.abc.Stream):
    """Each piece that is sent is a message; the client's are joined. One that is closed is broken both ways.

    Args:
        websocket: Open.
        binary: Whether what is sent are bytes; else text, as API versions before 1.28 have it.
    """

    def __init__(self, websocket: WebSocketConnection, *, binary: bool) -> None:
        self._websocket = websocket
        self._binary = binary
        self._rest = b""

    @override
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See trio.abc.SendStream."""
        message = bytes(data) if self._binary else bytes(data).decode(errors="replace")
        try:
            await self._websocket.send_message(message)
        except ConnectionClosed as error:
            raise trio.BrokenResourceError("the websocket is closed") from error

    @override
    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        await trio.lowlevel.checkpoint()

    @override
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See trio.abc.ReceiveStream."""
        while not self._rest:
            try:
                message = await self._websocket.get_message()
            except ConnectionClosed as error:
                raise trio.BrokenResourceError("the websocket is closed") from error
            self._rest = message.encode() if isinstance(message, str) else bytes(message)
        data, self._rest = self._rest[:max_bytes], self._rest[len(self._rest[:max_bytes]) :]
        return data

    @override
    async def aclose(self) -> None:
        """Say that it is over; a client that does not answer is not waited for."""
        with trio.move_on_after(CLOSE_SECONDS):
            await self._websocket.aclose()


async def accept(
    nursery: trio.Nursery, wire: ReplayStream, *, binary: bool
) -> MessageStream | None:
    """The client's upgrade is accepted; None when the client went away instead.

    Args:
        nursery: Where the websocket is read while it is open.
        wire: The connection, with the upgrade request's head to be read once more.
        binary: See :class:`MessageStream`.
    """
    with trio.move_on_after(HANDSHAKE_SECONDS):
        try:
            request: WebSocketRequest = await wrap_server_stream(
                nursery, wire, message_queue_size=1, max_message_size=MESSAGE_BYTES_MAX
            )
            websocket = await request.accept()
        except ConnectionClosed:
            return None
        wire.release()
        return MessageStream(websocket, binary=binary)
    return None
