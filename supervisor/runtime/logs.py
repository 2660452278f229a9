"""Reading a container's log.

conmon writes it (its ``k8s-file`` form: ``<RFC 3339 time> stdout|stderr F|P <bytes>``, ``P`` for a line that goes on), the
daemon rotates it: see :mod:`supervisor.runtime.log_files`. Rules: entries are read, chosen and put into the reader's form
in threads, a bounded page at a time; of a log that is asked for its end only the end is read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import attrs
import trio

from protocol.times import format_time, parse_time
from supervisor.runtime.log_files import LogReader
from supervisor.runtime.log_settings import LogSettings
from supervisor.runtime.stdio import STDERR, STDOUT
from supervisor.tasks import in_thread

FOLLOW_POLL_SECONDS, FOLLOW_POLL_SECONDS_MAX = 0.05, 0.25
POLL_GROWTH = 1.1
STREAMS = {b"stdout": STDOUT, b"stderr": STDERR}
FIELDS = 4
TO_THE_NANOSECOND = len("2026-01-02T03:04:05.000000001")
UTC = b"+00:00"
AFTER_ALL = b"~"
"""Sorts behind whatever follows the same nanosecond."""


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


LogEntry = tuple[int, bytes, bytes]
"""A line or a part of one: its stream, its time in RFC 3339 as written, and its bytes, which end with a newline when they
end the line. A plain tuple, because there are many."""

Form = Callable[[Sequence[LogEntry]], bytes]
"""What a reader makes of entries; called in threads, in their order, one call at a time."""


def entries_of(lines: Sequence[bytes]) -> list[LogEntry]:
    """What lines of the file, without their newlines, tell; what no log line looks like is left out."""
    found: list[LogEntry] = []
    for line in lines:
        try:
            time, stream, flag, data = line.split(b" ", FIELDS - 1)
        except ValueError:
            continue
        number = STREAMS.get(stream)
        if number is not None:
            found.append((number, time, data if flag == b"P" else data + b"\n"))
    return found


def utc(time: bytes) -> bytes:
    """An entry's time in UTC, as Docker writes it."""
    if time[TO_THE_NANOSECOND:] == UTC:
        return time[:TO_THE_NANOSECOND] + b"Z"
    return format_time(_time_ns(time)).encode()


def _time_ns(time: bytes) -> int:
    """Nanoseconds since 1970; 0 for what a crash of the host has left of a time."""
    try:
        return parse_time(time.decode())
    except ValueError:
        return 0


class Choice:
    """Which entries a query asks for.

    Times written in UTC with nanoseconds, as conmon does on most hosts, are compared as text.
    """

    def __init__(self, query: LogQuery) -> None:
        self._streams = {STDOUT: query.stdout, STDERR: query.stderr}
        self._since_ns, self._until_ns = query.since_ns, query.until_ns
        self._timed = bool(query.since_ns or query.until_ns)
        self._since = _text(query.since_ns) if query.since_ns else b""
        self._until = (_text(query.until_ns) if query.until_ns else b"9") + AFTER_ALL

    def of(self, lines: Sequence[bytes]) -> list[LogEntry]:
        """Those that ``lines`` tell and that are wanted."""
        entries = entries_of(lines)
        if not all(self._streams.values()):
            entries = [entry for entry in entries if self._streams[entry[0]]]
        if not self._timed:
            return entries
        since, until = self._since, self._until
        return [
            entry
            for entry in entries
            if (
                since <= entry[1] <= until
                if entry[1][TO_THE_NANOSECOND:] == UTC
                else self._in_time(entry[1])
            )
        ]

    def _in_time(self, time: bytes) -> bool:
        time_ns = _time_ns(time)
        return self._since_ns <= time_ns and (not self._until_ns or time_ns <= self._until_ns)


def _text(time_ns: int) -> bytes:
    return format_time(time_ns)[:TO_THE_NANOSECOND].encode()


async def read_log(
    log: Path, settings: LogSettings, query: LogQuery, ended: Callable[[], bool], form: Form
) -> AsyncIterator[bytes]:
    """What ``form`` makes of the entries that ``query`` asks for, in order, many at a time.

    Args:
        log: The current file; it need not exist.
        settings: How much is kept of it.
        query: What is wanted.
        ended: Whether nothing more will be written.
        form: What is made of entries.

    Raises:
        Unavailable: The log cannot be read.
    """
    choice, limit = Choice(query), query.tail
    reader = LogReader(log, settings.bytes_max * settings.files_max)
    pause = FOLLOW_POLL_SECONDS
    try:
        if limit is not None:
            page = await in_thread(lambda: form(last_lines(reader, choice, limit)))
            if page:
                yield page
        while True:
            over = ended()  # asked before reading: what was written until then is read below
            while (limit is None or query.follow) and reader.newer():
                page, more = await in_thread(lambda: _page(reader, choice, form))
                if page:
                    pause = FOLLOW_POLL_SECONDS
                    yield page
                if not more:
                    break
            if over or not query.follow:
                return
            await trio.sleep(pause)
            pause = min(pause * POLL_GROWTH, FOLLOW_POLL_SECONDS_MAX)
    finally:
        reader.close()


def _page(reader: LogReader, choice: Choice, form: Form) -> tuple[bytes, bool]:
    """The next page, and whether there may be more; it is empty where nothing is wanted."""
    lines = reader.lines()
    return form(choice.of(lines)), bool(lines)


def last_lines(reader: LogReader, choice: Choice, limit: int) -> list[LogEntry]:
    """The last so many lines that are wanted, oldest first; one that is not ended yet counts."""
    kept: list[LogEntry] = []
    lines = 0
    for some in reader.backward():
        if limit == 0:
            break
        for entry in choice.of(some):
            lines += entry[2].endswith(b"\n") or not kept
            if lines > limit:
                kept.reverse()
                return kept
            kept.append(entry)
    kept.reverse()
    return kept
