"""One client's connection: requests in, answers out, on any trio stream.

Words: an *exchange* is one request and its answer; *hijacked* is a connection that after an answer's head carries raw
bytes both ways; to *linger* is to read and throw away what a client still sends after we answered, because closing at
once would reset the connection before it has read the answer. Rules: one task serves one connection; everything the
client can make us hold or wait for is bounded by :class:`supervisor.config.ApiConfig`; a body is streamed, never
gathered, unless the handler asks for it whole.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import h11
import trio

from supervisor.api.ending import Ending
from supervisor.api.http import (
    ClientGoneError,
    Head,
    HttpRefusedError,
    Response,
    parse_head,
    reason,
)
from supervisor.api.streams import HijackedStream, send_bounded
from supervisor.config import ApiConfig
from supervisor.errors import InvalidArgument

RECEIVE_BYTES = 131_072
LINGER_SECONDS = 5.0
RAW_STREAM = "application/vnd.docker.raw-stream"

_NO_BODY_STATUSES = frozenset({204, 304})


class Connection:
    """HTTP/1.1 as a server speaks it; see the module for the rules.

    Args:
        stream: To the client; closed by the caller.
        config: The bounds.
        fields: Header fields every answer carries.
        descriptor: The socket's file descriptor, for those who send past the stream; None if there is none.
        ending: The end of the API; of this connection alone if it is None.
    """

    def __init__(
        self,
        stream: trio.abc.HalfCloseableStream,
        config: ApiConfig,
        fields: tuple[tuple[str, str], ...] = (),
        descriptor: int | None = None,
        ending: Ending | None = None,
    ) -> None:
        self._stream = stream
        self._config = config
        self._fields = fields
        self.descriptor = descriptor
        self.ending = ending or Ending()
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=config.header_bytes_max)
        self._head: Head | None = None
        self._body_ended = trio.Event()
        self.answered = False
        self.taken = False
        self._reusable = True

    async def next_head(self) -> Head | None:
        """Wait for the next request; None when the client has closed or has been idle for too long.

        Raises:
            HttpRefusedError: What came is not HTTP/1.1, or came too slowly.
            ClientGoneError: The connection broke.
        """
        if self._head is not None:
            self._h11.start_next_cycle()
            self._head, self._body_ended, self.answered = None, trio.Event(), False
        with trio.move_on_after(self._config.idle_seconds_max) as idle:
            await self._fill_if_empty()
        if idle.cancelled_caught:
            return None
        with trio.move_on_after(self._config.head_seconds_max) as slow:
            event = await self._next_event()
            if isinstance(event, h11.ConnectionClosed):
                return None
            assert isinstance(event, h11.Request), event
            self._head = parse_head(event)
            if len(self._head.raw) > self._config.header_bytes_max:
                raise HttpRefusedError(431, "cannot read the request: its head is too long")
            self._note_body_end()
        if slow.cancelled_caught:
            raise HttpRefusedError(408, "the request's head took too long to arrive")
        return self._head

    # --- the body -----------------------------------------------------------------------------------------------

    async def receive_body(self) -> bytes:
        """The next piece of the request's body; empty at its end.

        Raises:
            ClientGoneError: The client left in the middle, or sent nothing for the idle time.
            HttpRefusedError: The body's chunks make no sense.
        """
        if self._body_ended.is_set():
            await trio.lowlevel.checkpoint()
            return b""
        if self._h11.they_are_waiting_for_100_continue:
            await self._send(
                h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            )
        with trio.move_on_after(self._config.idle_seconds_max) as idle:
            event = await self._next_event()
        if idle.cancelled_caught:
            raise ClientGoneError("the client stopped sending in the middle of a body")
        if isinstance(event, h11.Data):
            return bytes(event.data)
        assert isinstance(event, h11.EndOfMessage), event
        self._body_ended.set()
        return b""

    async def body(self) -> AsyncIterator[bytes]:
        """The request's body, piece by piece. See :meth:`receive_body`."""
        while piece := await self.receive_body():
            yield piece

    async def whole_body(self, bytes_max: int) -> bytes:
        """The whole body.

        Raises:
            InvalidArgument: It is longer than ``bytes_max``.
        """
        gathered = bytearray()
        while piece := await self.receive_body():
            gathered += piece
            if len(gathered) > bytes_max:
                raise InvalidArgument(
                    f"cannot read the request's body: it is longer than {bytes_max} bytes"
                )
        return bytes(gathered)

    @asynccontextmanager
    async def while_client_stays(self) -> AsyncIterator[None]:
        """Cancel what is inside when the client goes away.

        The client's leaving is seen once the body has been read to its end; before, reading the body sees it.

        Raises:
            ClientGoneError: It did (possibly within an exception group, as a nursery stands around the block).
        """
        gone = False

        async def watch(scope: trio.CancelScope) -> None:
            nonlocal gone
            await self._body_ended.wait()
            gone = await self._left()
            if gone:
                scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, nursery.cancel_scope)
            yield
            nursery.cancel_scope.cancel()
        if gone:
            raise ClientGoneError("the client closed the connection")

    async def _left(self) -> bool:
        """Wait for the client's end; False when it has sent more than we keep, and so cannot be watched."""
        while len(self._h11.trailing_data[0]) <= self._config.header_bytes_max:
            try:
                data = await self._stream.receive_some(RECEIVE_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return True
            if not data:
                return True
            self._h11.receive_data(bytes(data))  # the next request, pipelined: kept for its turn
        return False

    # --- the answer ---------------------------------------------------------------------------------------------

    async def reply(self, response: Response) -> None:
        """Send a whole answer."""
        headers = [*self._fields, *response.fields]
        if response.status not in _NO_BODY_STATUSES:
            headers += [
                ("Content-Type", response.content_type),
                ("Content-Length", str(len(response.body))),
            ]
        data = self._begin(response.status, headers)
        if response.body and not self._without_body(response.status):
            data += self._h11.send(h11.Data(data=response.body)) or b""
        data += self._h11.send(h11.EndOfMessage()) or b""
        await send_bounded(self._stream, data, self._config.write_stall_seconds_max)

    def streamed(
        self, content_type: str, status: int = 200, fields: Sequence[tuple[str, str]] = ()
    ) -> StreamedResponse:
        """An answer sent piece by piece; nothing goes out before its ``start`` or first ``send``."""
        return StreamedResponse(self, status, [*fields, ("Content-Type", content_type)])

    async def start_stream(self, status: int, fields: Sequence[tuple[str, str]]) -> None:
        """Send the head of a streamed answer. For :class:`StreamedResponse`."""
        data = self._begin(status, [*self._fields, *fields])
        await send_bounded(self._stream, data, self._config.write_stall_seconds_max)

    async def send_piece(self, data: bytes) -> None:
        """Send one piece of a streamed answer at once. For :class:`StreamedResponse`."""
        if data and not self._without_body(200):
            await self._send(h11.Data(data=data))

    async def end_stream(self) -> None:
        """Send the end of a streamed answer. For :class:`StreamedResponse`."""
        await self._send(h11.EndOfMessage())

    async def hijack(self, content_type: str = RAW_STREAM) -> HijackedStream:
        """Answer with a head only, and give the connection away. The request's body must have been read.

        The head is written by hand: 101 where the client asked to upgrade to ``tcp``, else 200 without a length, which
        h11 would send in chunks.
        """
        assert self._head is not None
        assert self._body_ended.is_set(), "hijacked before the body was read"
        self.answered, self.taken = True, True
        lines = ["HTTP/1.1 200 OK", f"Content-Type: {content_type}"]
        if self._head.upgrade() == "tcp":
            lines = [
                "HTTP/1.1 101 UPGRADED",
                f"Content-Type: {content_type}",
                "Connection: Upgrade",
                "Upgrade: tcp",
            ]
        lines += [f"{name}: {value}" for name, value in self._fields]
        stream = self._take_over()
        await stream.send_all("\r\n".join([*lines, "", ""]).encode())
        return stream

    def take_over(self) -> HijackedStream:
        """Give the connection away without any answer: the new owner sends it (a websocket's handshake)."""
        self.answered, self.taken = True, True
        return self._take_over()

    def _take_over(self) -> HijackedStream:
        early = self._h11.trailing_data[0]
        return HijackedStream(self._stream, early, self._config.write_stall_seconds_max)

    async def refuse(self, response: Response) -> None:
        """Answer what could not even be read, if HTTP still allows an answer; the connection then ends."""
        self._reusable = False
        if self.answered or self._h11.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        self.answered = True
        fields = [
            *self._fields,
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            ("Connection", "close"),
        ]
        lines = [f"HTTP/1.1 {response.status} {reason(response.status).decode()}"]
        lines += [f"{name}: {value}" for name, value in fields]
        data = "\r\n".join([*lines, "", ""]).encode() + response.body
        await send_bounded(self._stream, data, self._config.write_stall_seconds_max)

    async def linger(self) -> None:
        """Let the client read our last answer before the connection is closed."""
        with trio.move_on_after(LINGER_SECONDS):
            try:
                await self._stream.send_eof()
                while await self._stream.receive_some(RECEIVE_BYTES):
                    pass
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    def finished(self) -> bool:
        """After an answer: is this connection at its end?"""
        both = (self._h11.our_state, self._h11.their_state)
        return self.taken or not self._reusable or both != (h11.DONE, h11.DONE)

    # --- h11 ----------------------------------------------------------------------------------------------------

    def _begin(self, status: int, headers: list[tuple[str, str]]) -> bytes:
        """The answer's head. A body left unread means that the connection cannot be used again."""
        assert not self.answered, "answered twice"
        self._note_body_end()
        if not self._body_ended.is_set():
            self._reusable = False
            headers = [*headers, ("Connection", "close")]
        self.answered = True
        head = h11.Response(status_code=status, headers=headers, reason=reason(status))
        return self._h11.send(head) or b""

    def _without_body(self, status: int) -> bool:
        return status in _NO_BODY_STATUSES or (
            self._head is not None and self._head.method == "HEAD"
        )

    def _note_body_end(self) -> None:
        """A request without a body has ended as soon as its head is here; find out without reading more."""
        if self._body_ended.is_set() or self._h11.they_are_waiting_for_100_continue:
            return
        has_body = self._head is not None and (
            "transfer-encoding" in self._head.fields
            or self._head.fields.get("content-length", "0").strip("0")
        )
        if not has_body and isinstance(self._h11.next_event(), h11.EndOfMessage):
            self._body_ended.set()

    async def _send(self, event: h11.InformationalResponse | h11.Data | h11.EndOfMessage) -> None:
        data = self._h11.send(event)
        if data:
            await send_bounded(self._stream, data, self._config.write_stall_seconds_max)

    async def _fill_if_empty(self) -> None:
        if not self._h11.trailing_data[0]:
            await self._receive()

    async def _next_event(self) -> object:
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                if self._h11.trailing_data[1] and self._head is not None:
                    raise ClientGoneError(
                        "the client closed the connection in the middle of a body"
                    ) from error
                message = f"cannot read the request: {str(error).partition(':')[0]}"
                raise HttpRefusedError(error.error_status_hint, message) from error
            if event is not h11.NEED_DATA:
                return event
            await self._receive()

    async def _receive(self) -> None:
        try:
            data = await self._stream.receive_some(RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ClientGoneError("the client closed the connection") from error
        self._h11.receive_data(bytes(data))


class StreamedResponse:
    """An answer whose length is not known: sent piece by piece, each piece at once.

    An answer that was started but not finished ends by closing the connection without the last chunk, so that the
    client sees that something is missing.
    """

    def __init__(
        self, connection: Connection, status: int, fields: Sequence[tuple[str, str]]
    ) -> None:
        self._connection = connection
        self._fields = fields
        self._status = status
        self.started = False

    async def start(self) -> None:
        """Send the head, unless it is sent."""
        if not self.started:
            self.started = True
            await self._connection.start_stream(self._status, self._fields)

    async def send(self, data: bytes) -> None:
        """Send the head if need be, and one piece."""
        await self.start()
        await self._connection.send_piece(data)

    async def finish(self) -> None:
        """Send the end."""
        await self.start()
        await self._connection.end_stream()
