"""Reading a container's log.

conmon writes it (its ``k8s-file`` form: ``<RFC 3339 time> stdout|stderr F|P <bytes>``, ``P`` for a line that goes on), the
keeper rotates it: ``log`` is the current file, ``log.1`` the one before, and so on. A reader works through the files from
the oldest and holds them open, so that a rotation under it takes nothing away.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import attrs
import trio

from protocol.times import parse_time
from supervisor.errors import Unavailable
from supervisor.runtime.stdio import STDERR, STDOUT
from supervisor.tasks import in_thread

BLOCK_BYTES = 1_048_576
FOLLOW_POLL_SECONDS = 0.05
STREAMS = {b"stdout": STDOUT, b"stderr": STDERR}
FIELDS = 4


@attrs.frozen
class LogQuery:
    """What a reader wants.

    Attributes:
        since_ns: Entries from this time on; 0 for all. ``until_ns`` likewise, 0 for no end.
        tail: Only the last so many lines of what is there; None for all.
        follow: Go on with what comes until the container ends.
    """

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    since_ns: int = 0
    until_ns: int = 0
    tail: int | None = None
    timestamps: bool = False


@attrs.frozen
class LogEntry:
    """A line or a part of one. ``data`` ends with a newline when it ends the line. ``time`` is RFC 3339 as written."""

    stream: int
    time: bytes
    data: bytes

    @property
    def time_ns(self) -> int:
        """Wall time it was written, nanoseconds."""
        return parse_time(self.time.decode())


def parse(line: bytes) -> LogEntry | None:
    """One line of the file (without its newline); None for what no log line looks like."""
    fields = line.split(b" ", FIELDS - 1)
    if len(fields) != FIELDS or fields[1] not in STREAMS:
        return None
    time, stream, flag, data = fields
    return LogEntry(STREAMS[stream], time, data if flag == b"P" else data + b"\n")


def wanted(entry: LogEntry, query: LogQuery) -> bool:
    """Whether the query asks for this entry."""
    if not (query.stdout if entry.stream == STDOUT else query.stderr):
        return False
    if not query.since_ns and not query.until_ns:
        return True
    time_ns = entry.time_ns
    return query.since_ns <= time_ns and (not query.until_ns or time_ns <= query.until_ns)


def files_of(log: Path, files_max: int) -> list[Path]:
    """The log's files that may exist, oldest first."""
    return [log.with_name(f"{log.name}.{number}") for number in range(files_max - 1, 0, -1)] + [log]


def rotate(log: Path, bytes_max: int, files_max: int) -> bool:
    """Move the log's files on by one if the current one has grown too large; whether conmon must open it anew.

    What goes while this looks was its container's, and has gone with it.
    """
    try:
        if log.stat().st_size < bytes_max:
            return False
        names = files_of(log, files_max)
        for older, newer in pairwise(names):
            with suppress(FileNotFoundError):
                newer.replace(older)
    except OSError:
        return False
    return True


async def read_log(
    log: Path, files_max: int, query: LogQuery, ended: Callable[[], bool]
) -> AsyncIterator[list[LogEntry]]:
    """The entries that ``query`` asks for, in order, many at a time.

    Args:
        log: The current file; it need not exist.
        files_max: How many files are kept.
        query: What is wanted.
        ended: Whether nothing more will be written.

    Raises:
        Unavailable: The log cannot be read.
    """
    reader = _Reader(log, files_max)
    try:
        if query.tail is not None:
            yield await _tail(reader, query)
        while True:
            over = ended()  # asked before reading: what was written until then is read below
            while query.tail is None or query.follow:
                entries = await _next(reader, query)
                if not entries:
                    break
                yield entries
            if over or not query.follow:
                return
            await trio.sleep(FOLLOW_POLL_SECONDS)
    finally:
        reader.close()


async def _next(reader: _Reader, query: LogQuery) -> list[LogEntry]:
    """The next entries that are asked for; none at the end of what is written so far."""
    while entries := await in_thread(reader.block):
        chosen = [entry for entry in entries if wanted(entry, query)]
        if chosen:
            return chosen
    return []


async def _tail(reader: _Reader, query: LogQuery) -> list[LogEntry]:
    """The last lines: entries are kept until more lines follow them than are asked for. One not ended yet counts."""
    kept: deque[LogEntry] = deque()
    lines = 0
    limit = query.tail or 0
    while entries := await in_thread(reader.block):
        for entry in entries:
            if not wanted(entry, query):
                continue
            kept.append(entry)
            lines += entry.data.endswith(b"\n")
            _drop_lines(kept, lines - limit)
            lines = min(lines, limit)
    if kept and not kept[-1].data.endswith(b"\n"):
        _drop_lines(kept, lines + 1 - limit)
    return list(kept) if limit else []


def _drop_lines(kept: deque[LogEntry], lines: int) -> None:
    """Take so many whole lines away from the front."""
    while kept and lines > 0:
        lines -= kept.popleft().data.endswith(b"\n")


class _Reader:
    """Reads the files one after another, a block at a time; blocking, so called in threads, one call at a time."""

    def __init__(self, log: Path, files_max: int) -> None:
        self._log = log
        self._waiting = [path for path in files_of(log, files_max) if path != log]
        self._file: int | None = None
        self._rest = b""

    def block(self) -> list[LogEntry]:
        """The next entries; none at the end of what is written so far."""
        while True:
            if self._file is None and not self._open_next():
                return []
            assert self._file is not None
            data = os.read(self._file, BLOCK_BYTES)
            if data:
                entries = list(self._entries(data))
                if entries:
                    return entries
                continue
            if not self._waiting and not self._replaced():
                return []
            os.close(self._file)
            self._file = None

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open_next(self) -> bool:
        while self._waiting:
            path = self._waiting.pop(0)
            if self._open(path):
                return True
        return self._open(self._log)

    def _open(self, path: Path) -> bool:
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Unavailable(f"cannot read the log: {error.strerror}") from error
        return True

    def _replaced(self) -> bool:
        """Whether the file we are at the end of was rotated away."""
        assert self._file is not None
        try:
            return not os.path.samestat(self._log.stat(), os.fstat(self._file))
        except FileNotFoundError:
            return False

    def _entries(self, data: bytes) -> Iterator[LogEntry]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            entry = parse(line)
            if entry is not None:
                yield entry
