"""A step's output: written by the one that runs it, read by every build that waits for it, bounded, on disk.

Each piece is kept behind a head that says which of the two streams it is of and how long it is.

A reader who is slow holds nothing up: it has a position, not a queue. What exceeds the bound is dropped, and said so.
What a full disk does not take is dropped as well.
"""

from __future__ import annotations

import errno
import os
import struct
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path

import attrs
import trio

HEAD = struct.Struct(">?I")
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@attrs.frozen
class Written:
    """A piece of output; ``errors`` when it is of the standard error."""

    data: bytes
    errors: bool = False


class StepLog:
    """One log, in a file that has no name: it is gone when the last reader closes it."""

    def __init__(self, directory: Path, bytes_max: int) -> None:
        self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115  # closed by the last user
        self._bytes_max = bytes_max
        self._size = 0
        self._kept = 0
        self._full = False
        self._begun = False
        self._ended = False
        self._users = 1
        self._grown = trio.Event()

    def write(self, data: bytes, *, errors: bool = False) -> None:
        """Add output. Goes to the page cache, and does not wait."""
        if self._full:
            return
        if self._kept + len(data) > self._bytes_max:
            data = (
                data[: self._bytes_max - self._kept]
                + b"\n[further output of this step is not kept]\n"
            )
            self._full = True
        self._kept += len(data)
        try:
            self._append(HEAD.pack(errors, len(data)) + data)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            self._full = True
        self._wake()

    def _append(self, piece: bytes) -> None:
        """Readers see it when it is there as a whole."""
        view, position = memoryview(piece), self._size
        while view:
            written = os.pwrite(self._file.fileno(), view, position)
            position += written
            view = view[written:]
        self._size = position

    def begin(self) -> None:
        """The command runs: readers get an empty piece, at once."""
        self._begun = True
        self._wake()

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        self._wake()
        self._release()

    async def read(self) -> AsyncGenerator[Written]:
        """All of it from the beginning, until its end; an empty piece first, when the command begins.

        To be closed by who reads it (``aclosing``): until then the log is in use.
        """
        if self._file.closed:
            return
        self._users += 1
        position, begun = 0, False
        try:
            while True:
                if self._begun and not begun:
                    begun = True
                    yield Written(b"")
                while position < self._size:
                    head = os.pread(self._file.fileno(), HEAD.size, position)
                    errors, size = HEAD.unpack(head)
                    data = os.pread(self._file.fileno(), size, position + HEAD.size)
                    position += HEAD.size + size
                    yield Written(data, errors)
                if self._ended:
                    return
                await self._grown.wait()
        finally:
            self._release()

    def _wake(self) -> None:
        self._grown.set()
        self._grown = trio.Event()

    def _release(self) -> None:
        self._users -= 1
        if not self._users:
            self._file.close()
