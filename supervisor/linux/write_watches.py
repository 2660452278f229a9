"""Being told once when a file is written to, so that what is quiet need not be looked at. See inotify(7).

Rules: a watch is of the file that had the path when it was armed; it goes off once and is gone then, or when the file is.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import trio

from supervisor.linux import syscall

READ_BYTES = 65_536
_HEAD = struct.Struct("iIII")
_OVERFLOW = -1


class WriteWatches:
    """Files that are watched until they are next written to; closed by whoever made it."""

    def __init__(self) -> None:
        self._fd = syscall.inotify_init()
        self._armed: set[int] = set()

    def arm(self, path: Path) -> int:
        """Watch the file; the number of the watch, the same for the same file.

        Raises:
            OSError: It is not there, or there are no watches left.
        """
        number = syscall.inotify_add_watch(
            self._fd, str(path), syscall.IN_MODIFY | syscall.IN_ONESHOT
        )
        self._armed.add(number)
        return number

    async def wait(self) -> None:
        """Return when a watch has gone off."""
        await trio.lowlevel.wait_readable(self._fd)

    def gone_off(self) -> set[int]:
        """Which have since this was last asked; all of them when the kernel has lost count."""
        try:
            told = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return set()
        gone, place = set[int](), 0
        while place < len(told):
            number, _, _, name_bytes = _HEAD.unpack_from(told, place)
            gone |= self._armed if number == _OVERFLOW else {number}
            place += _HEAD.size + name_bytes
        self._armed -= gone
        return gone

    def close(self) -> None:
        """Watch nothing any more."""
        os.close(self._fd)
