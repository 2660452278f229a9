"""Room on the disk that is the database's before it needs it, so that people who fill the disk do not stop the daemon.

What ends, ends on a full disk too, and must be written down; and room is made by removing things, which is written down
as well. So blocks are allotted behind the end of the file and of its write-ahead log, where SQLite's writes find them
(fallocate(2) with ``FALLOC_FL_KEEP_SIZE``).

Rules: what a file system cannot do, or has no room for now, is done without; a descriptor of the database file is
closed after the last connection to it, because closing one lets go of the locks SQLite has through all others.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import attrs

from supervisor.linux.syscall import allocate_behind

RESERVE_BYTES = 8 * 1024 * 1024
"""Kept for each of the two files; thousands of events."""


@attrs.define(eq=False)
class Reserve:
    """The room behind one open file.

    Attributes:
        fd: Of the file, open for writing.
        allotted: Up to which byte blocks are there already.
    """

    fd: int
    allotted: int = 0

    def keep(self) -> None:
        """See to it that at least half of the reserve lies behind the file's end, if there is room for it. Blocks."""
        size = os.fstat(self.fd).st_size
        if size + RESERVE_BYTES // 2 <= self.allotted:
            return
        with contextlib.suppress(OSError):
            allocate_behind(self.fd, size + RESERVE_BYTES)
            self.allotted = size + RESERVE_BYTES

    def close(self) -> None:
        """Give up what was not used."""
        os.close(self.fd)


def reserve_for(path: Path) -> tuple[Reserve, ...]:
    """The reserves of the database at ``path`` and of its log, both of which are there. Blocks.

    Raises:
        OSError: One cannot be opened.
    """
    reserves: list[Reserve] = []
    for name in (path.name, f"{path.name}-wal"):
        reserve = Reserve(os.open(path.with_name(name), os.O_WRONLY | os.O_CLOEXEC))
        reserve.keep()
        reserves.append(reserve)
    return tuple(reserves)
