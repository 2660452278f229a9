"""Pipes to and from a command: ours is non-blocking and bounded, the child's end is closed once it has been passed on.

Rules: both ends are closed by the exit stacks they are given, whatever happens.
"""

from __future__ import annotations

import contextlib
import os

import trio

PIPE_READ_BYTES = 65_536


class Capture:
    """Our end of a pipe a command writes to, and the first bytes of what came."""

    def __init__(
        self, bytes_max: int, ours: contextlib.ExitStack, theirs: contextlib.ExitStack
    ) -> None:
        self._fd, self.child_fd = os.pipe2(os.O_CLOEXEC)
        ours.callback(os.close, self._fd)
        theirs.callback(os.close, self.child_fd)
        os.set_blocking(self._fd, False)
        self._bytes_max = bytes_max
        self.content = bytearray()
        self.truncated = False

    async def read(self) -> None:
        """Read until the pipe ends or this is cancelled."""
        while self._available():
            await trio.lowlevel.wait_readable(self._fd)

    def drain(self) -> None:
        """Take what is there, without waiting."""
        self._available()

    def _available(self) -> bool:
        """Take what is there; False at the end of the pipe."""
        while True:
            try:
                chunk = os.read(self._fd, PIPE_READ_BYTES)
            except BlockingIOError:
                return True
            if not chunk:
                return False
            room = self._bytes_max - len(self.content)
            self.content += chunk[:room]
            self.truncated |= len(chunk) > room


class Feed:
    """Our end of a pipe a command reads from."""

    def __init__(
        self, content: bytes, ours: contextlib.ExitStack, theirs: contextlib.ExitStack
    ) -> None:
        self.child_fd, fd = os.pipe2(os.O_CLOEXEC)
        theirs.callback(os.close, self.child_fd)
        self._stream = trio.lowlevel.FdStream(fd)
        ours.callback(self._stream.close)
        self._content = content

    async def write(self) -> None:
        """Write it all; a command that stops reading is no failure."""
        async with self._stream:
            with contextlib.suppress(trio.BrokenResourceError):
                await self._stream.send_all(self._content)
