"""The connections to one session's stdio, none of which is hung up before the session ends.

conmon (seen with 2.1.6) is killed by its own memory fault, now and then, when a connection hangs up while it writes there,
and the container's exit code goes with it. So a client who leaves hands their *line* back: it *rests*, read and thrown
away, until the next client takes it or the session ends. There are never more lines than there were clients at once.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import trio

from supervisor.errors import Unavailable
from supervisor.tasks import finish_within

PACKET_BYTES_MAX = 65_536
HANDING_OVER_SECONDS = 1.0

Line = trio.socket.SocketType


@attrs.define(eq=False)
class _Resting:
    """A line nobody is at, and the task that reads it."""

    line: Line
    reading: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    done: trio.Event = attrs.field(factory=trio.Event)
    ended: bool = False


class Lines:
    """The lines of one session after another.

    Args:
        nursery: Where resting lines are read; called when one comes to rest.
    """

    def __init__(self, nursery: Callable[[], trio.Nursery]) -> None:
        self._nursery = nursery
        self._resting: list[_Resting] = []
        self._serving: set[trio.CancelScope] = set()

    @contextmanager
    def serving(self) -> Iterator[None]:
        """A client is served at a line; the block is cut short when the client is let go."""
        scope = trio.CancelScope()
        self._serving.add(scope)
        try:
            with scope:
                yield
        finally:
            self._serving.discard(scope)

    def let_go(self) -> None:
        """Nobody is at a line any more, whatever they have not taken yet."""
        for scope in self._serving:
            scope.cancel()

    async def take(self, attach_socket: Path) -> Line:
        """A line to the session whose socket this is: one that rests, or a new one.

        Raises:
            Unavailable: The session has ended.
        """
        while self._resting:
            resting = self._resting.pop()
            resting.reading.cancel()
            with finish_within(HANDING_OVER_SECONDS):
                await resting.done.wait()
            if not resting.ended:
                return resting.line
        return await connect(attach_socket)

    def give_back(self, line: Line) -> None:
        """The client is gone; the line rests. At the daemon's end it is hung up."""
        if line.fileno() < 0:
            return
        resting = _Resting(line)
        try:
            self._nursery().start_soon(self._rest, resting)
        except RuntimeError:  # the container's nursery is closed, and it is gone
            line.close()
            return
        self._resting.append(resting)

    async def _rest(self, resting: _Resting) -> None:
        try:
            with resting.reading:
                await _read_to_its_end(resting.line)
                resting.ended = True
        finally:
            if resting in self._resting:  # nobody took it: the session or the daemon ends
                self._resting.remove(resting)
                resting.ended = True
            if resting.ended:
                resting.line.close()
            resting.done.set()


async def connect(attach_socket: Path) -> Line:
    """A new line.

    Raises:
        Unavailable: Nobody is there any more.
    """
    line = trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        # A short way to a long path: sun_path holds 108 bytes, unix(7).
        directory = os.open(attach_socket.parent, os.O_PATH | os.O_CLOEXEC)
        try:
            await line.connect(f"/proc/self/fd/{directory}/{attach_socket.name}")
        finally:
            os.close(directory)
    except OSError as error:
        line.close()
        raise Unavailable(
            f"cannot attach: {error.strerror}", hint="it may have ended just now"
        ) from error
    except BaseException:
        line.close()
        raise
    return line


async def _read_to_its_end(line: Line) -> None:
    try:
        while await line.recv(PACKET_BYTES_MAX):
            pass
    except OSError:
        return  # the other end is gone, which is an end too
