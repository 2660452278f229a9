"""Clients at a session's stdio.

Words: an *attachment* is one client at one session. It may be made before the session runs (``docker run`` attaches,
then starts): whoever starts the session connects the attachments that wait, before the first instruction runs, so that
no output is missed.

Rules: a client who reads slowly slows the container down, as a pipe would; one who leaves takes nothing with them. Input
that ends is passed on when the container wants only one input (``StdinOnce``).
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import attrs
import trio

from supervisor.errors import Unavailable
from supervisor.runtime.lines import PACKET_BYTES_MAX, Lines
from supervisor.runtime.stdio import STDOUT, DetachWatch, frame, parse_detach_keys, split_packet


@attrs.frozen
class AttachRequest:
    """What a client wants to be at.

    Attributes:
        logs: What was written before comes first.
        stream: Stay for what comes; without it only the logs are told.
        detach_keys: Empty for the default.
    """

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    logs: bool = False
    stream: bool = True
    detach_keys: str = ""


class Attachment:
    """One client at one session, from the wish until it ends.

    Attributes:
        terminal: The session has one, so detach keys are looked for.
        framed: What is sent tells stdout from stderr; by default where there is no terminal.
        detached: The client typed the detach keys.
        left: The client went away while the session went on.
    """

    def __init__(
        self,
        request: AttachRequest,
        lines: Lines,
        *,
        terminal: bool,
        stdin_once: bool,
        framed: bool | None = None,
    ) -> None:
        self.request = request
        self._lines = lines
        self.terminal = terminal
        self.framed = not terminal if framed is None else framed
        self.detached = False
        self.left = False
        self._stdin_once = stdin_once
        self._watch = DetachWatch(parse_detach_keys(request.detach_keys)) if terminal else None
        self._socket: trio.socket.SocketType | None = None
        self._settled = trio.Event()
        self._closed = False

    async def connect(self, attach_socket: Path) -> None:
        """Be at the session whose socket this is.

        Raises:
            Unavailable: The session has ended.
        """
        connection = await self._lines.take(attach_socket)
        if self._closed:  # the client left meanwhile
            self._lines.give_back(connection)
            return
        self._socket = connection
        self._settled.set()

    def give_up(self) -> None:
        """The session will not run, or is over: :meth:`serve` ends."""
        self._settled.set()

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Carry bytes both ways until the session ends, the client leaves, or the detach keys are typed."""
        await self._settled.wait()
        connection = self._socket
        if connection is None:
            return
        try:
            with self._lines.serving():
                async with trio.open_nursery() as nursery:
                    if self.request.stdin:
                        nursery.start_soon(self._carry_in, stream, connection, nursery.cancel_scope)
                    await self._carry_out(stream, connection)
                    nursery.cancel_scope.cancel()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the session; it goes on."""
        self._closed = True
        if self._socket is not None:
            if self.request.stdin and self._stdin_once and not self.detached:
                end_input(self._socket)  # it had one input, and that is over
            self._lines.give_back(self._socket)
            self._socket = None

    async def _carry_out(self, stream: trio.abc.Stream, connection: trio.socket.SocketType) -> None:
        async with aclosing(packets(connection)) as told:
            async for number, data in told:
                if not (self.request.stdout if number == STDOUT else self.request.stderr):
                    continue
                try:
                    await stream.send_all(frame(number, data) if self.framed else data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self.left = True
                    return

    async def _carry_in(
        self, stream: trio.abc.Stream, connection: trio.socket.SocketType, scope: trio.CancelScope
    ) -> None:
        while True:
            try:
                typed = bytes(await stream.receive_some(PACKET_BYTES_MAX // 2))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self.left = True
                scope.cancel()
                return
            if not typed:
                if self._stdin_once:
                    end_input(connection)
                return
            if self._watch is not None:
                typed, self.detached = self._watch.feed(typed)
            if typed and not await put(connection, typed):
                return
            if self.detached:
                scope.cancel()
                return


class WaitingAttachments:
    """Those who wait for a container's next run. Some come and some go at any moment."""

    def __init__(self) -> None:
        self._waiting: set[Attachment] = set()

    def add(self, attachment: Attachment) -> None:
        """It is connected when the session runs."""
        self._waiting.add(attachment)

    def discard(self, attachment: Attachment) -> None:
        """It does not wait any more."""
        self._waiting.discard(attachment)

    async def connect(self, attach_socket: Path) -> None:
        """All who wait are at the session.

        Raises:
            Unavailable: It has ended.
        """
        while self._waiting:
            attachment = next(iter(self._waiting))
            await attachment.connect(attach_socket)
            self._waiting.discard(attachment)

    async def connect_rest(self, attach_socket: Path) -> None:
        """The same for those who came too late for the first instruction; a session that has ended has none."""
        try:
            await self.connect(attach_socket)
        except Unavailable:
            self.give_up()

    def give_up(self) -> None:
        """There is no session for them."""
        for attachment in self._waiting:
            attachment.give_up()
        self._waiting.clear()


async def packets(connection: trio.socket.SocketType) -> AsyncGenerator[tuple[int, bytes], None]:
    """(stream, bytes) as they come, until the session ends."""
    while True:
        try:
            packet = await connection.recv(PACKET_BYTES_MAX)
        except ConnectionError:
            return
        if not packet:
            return
        yield split_packet(packet)


async def put(connection: trio.socket.SocketType, data: bytes) -> bool:
    """Give input to the session; False when it takes none any more."""
    try:
        await connection.send(data)
    except OSError:
        return False
    return True


def end_input(connection: trio.socket.SocketType) -> None:
    """Tell the session that there is no more input."""
    try:
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        return  # it has ended: there is nothing left to tell
