"""A command on a terminal of its own, as a person has it: they type, read, resize the window, and wait."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import attrs

EXPECT_SECONDS = 15.0


@attrs.define(eq=False)
class Terminal:
    """What a person sees of a command.

    Attributes:
        seen: All that it wrote so far.
    """

    process: subprocess.Popen[bytes]
    master: int
    seen: str = ""
    _told: int = 0

    def type(self, text: str) -> None:
        """Keys are pressed; ``\\x03`` is Ctrl-C."""
        os.write(self.master, text.encode())

    def expect(self, text: str) -> str:
        """Wait until it writes ``text``, beyond what was expected before; what it wrote up to there."""
        until = time.monotonic() + EXPECT_SECONDS
        while (found := self.seen.find(text, self._told)) < 0:
            if not self._read(until - time.monotonic()):
                message = f"{text!r} never came, but {self.seen[self._told :]!r}"
                raise AssertionError(message)
        start, self._told = self._told, found + len(text)
        return self.seen[start : self._told]

    def resize(self, rows: int, columns: int) -> None:
        """The window has another size; the command is told, as a terminal's foreground is."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait(self) -> int:
        """The command's exit code, when it has ended; all it wrote is ``seen``."""
        until = time.monotonic() + EXPECT_SECONDS
        while self._read(until - time.monotonic()):
            pass
        return self.process.wait(max(until - time.monotonic(), 0.1))

    def _read(self, seconds: float) -> bool:
        """More was written; False when nothing came for so long, or nothing can come any more."""
        if not select.select([self.master], [], [], max(seconds, 0))[0]:
            return False
        try:
            data = os.read(self.master, 65_536)
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)


@contextmanager
def terminal(
    argv: Sequence[str], environment: Mapping[str, str], rows: int = 24, columns: int = 80
) -> Iterator[Terminal]:
    """``argv`` on a terminal of this size; at the end it is gone."""
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(
        ["setsid", "--ctty", *argv],  # which makes the terminal its own, then becomes the command
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**environment, "TERM": "xterm"},
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait()
        os.close(master)
