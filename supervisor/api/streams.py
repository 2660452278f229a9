"""Connections that are no longer HTTP: hijacked by attach and exec, or upgraded to a websocket.

Rule: bytes that arrived together with the request and belong to the new protocol are handed on first, none lost and
none read twice.
"""

from __future__ import annotations

import select
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import trio
from typing_extensions import override

from supervisor.api.http import ClientGoneError

T = TypeVar("T")

SEND_PIECE_BYTES = 65_536
FAREWELL_SECONDS = 1.0


class HijackedStream(trio.abc.HalfCloseableStream):
    """The raw connection after the answer's head, with the client's early bytes in front.

    A client that reads nothing for ``stall_seconds`` is taken for gone: :class:`trio.BrokenResourceError`.
    """

    def __init__(
        self, stream: trio.abc.HalfCloseableStream, early: bytes, stall_seconds: float
    ) -> None:
        self._stream = stream
        self._early = early
        self._stall_seconds = stall_seconds

    @override
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, in pieces, so that a slow reader is told from one that stalls."""
        try:
            await send_bounded(self._stream, data, self._stall_seconds)
        except ClientGoneError as error:
            raise trio.BrokenResourceError(str(error)) from error

    @override
    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        await self._stream.wait_send_all_might_not_block()

    @override
    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """First what came early, then what comes."""
        if self._early:
            await trio.lowlevel.checkpoint()
            size = len(self._early) if max_bytes is None else max_bytes
            data, self._early = self._early[:size], self._early[size:]
            return data
        return await self._stream.receive_some(max_bytes)

    @override
    async def send_eof(self) -> None:
        """Tell the client that no more comes; it may go on sending."""
        await self._stream.send_eof()

    async def hung_up(self) -> None:
        """Wait until the client has closed both directions, without reading; for ever where that cannot be seen.

        A socket's end of reading cannot be told from a half-closed one by waiting for it to be readable. An epoll that is
        asked for nothing still tells of a hang-up, epoll_ctl(2), and can itself be waited for.
        """
        if not isinstance(self._stream, trio.SocketStream):
            await trio.sleep_forever()
        with select.epoll() as hangups:
            hangups.register(self._stream.socket.fileno(), 0)
            await trio.lowlevel.wait_readable(hangups.fileno())

    @override
    async def aclose(self) -> None:
        """Close both directions."""
        await self._stream.aclose()


@asynccontextmanager
async def while_client_stays(stream: HijackedStream) -> AsyncIterator[trio.Event]:
    """Cancel what is inside when the client has closed both directions; the event is set then.

    One that only sends no more stays. What it sent before it left has :data:`FAREWELL_SECONDS` to be carried on.
    """
    left = trio.Event()

    async def watch(scope: trio.CancelScope) -> None:
        await stream.hung_up()
        await trio.sleep(FAREWELL_SECONDS)
        left.set()
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, nursery.cancel_scope)
        yield left
        nursery.cancel_scope.cancel()


class ReplayStream(trio.abc.Stream):
    """Shows a request's head once more to a protocol that wants to read it itself.

    What the client sent behind the head is held back until :meth:`release`: wsproto loses bytes that it is fed between
    the upgrade request and its acceptance.
    """

    def __init__(self, stream: trio.abc.HalfCloseableStream, head: bytes) -> None:
        self._stream = stream
        self._head = head
        self._released = trio.Event()

    def release(self) -> None:
        """The upgrade is accepted: let the rest through."""
        self._released.set()

    @override
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See trio.abc.SendStream."""
        await self._stream.send_all(data)

    @override
    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        await self._stream.wait_send_all_might_not_block()

    @override
    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """The head, then, once released, what follows it."""
        if self._head:
            await trio.lowlevel.checkpoint()
            data, self._head = self._head, b""
            return data
        await self._released.wait()
        return await self._stream.receive_some(max_bytes)

    @override
    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()


async def send_bounded(
    stream: trio.abc.SendStream, data: bytes | bytearray | memoryview, stall_seconds: float
) -> None:
    """Send all of ``data``; every piece must be taken within ``stall_seconds``.

    Raises:
        ClientGoneError: The peer closed, or reads nothing.
    """
    view = memoryview(data)
    for start in range(0, len(view), SEND_PIECE_BYTES):
        with trio.move_on_after(stall_seconds) as scope:
            try:
                await stream.send_all(view[start : start + SEND_PIECE_BYTES])
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ClientGoneError("the client closed the connection") from error
        if scope.cancelled_caught:
            raise ClientGoneError(f"the client has read nothing for {stall_seconds} s")


@asynccontextmanager
async def closed_after(pieces: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """``pieces``, closed at the end of the block also when it was left early: what a generator holds is let go at once."""
    try:
        yield pieces
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()
