"""Reading a container's output back from the host's journal, where conmon has written it.

Rules: only what conmon itself wrote as root is read, which the journal's own fields tell (``_UID``, ``_COMM``): anybody on
the host may write an entry that names any container. See journalctl(1) and systemd.journal-fields(7).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable, Sequence

import orjson
import trio

from protocol.times import format_time
from supervisor.errors import Unavailable
from supervisor.linux.mounts import told_as
from supervisor.linux.spawner import Command, Spawner
from supervisor.runtime.logs import UTC, Form, LogEntry, LogQuery
from supervisor.runtime.oci_runtime import ENVIRONMENT
from supervisor.runtime.stdio import STDERR, STDOUT

RECEIVE_BYTES = 65_536
LINE_BYTES_MAX = 1_048_576
SETTLE_SECONDS = 0.5
MICROSECOND = 1_000
_PRIORITIES = {STDOUT: "6", STDERR: "3"}
_FIELDS = "MESSAGE,PRIORITY,CONTAINER_PARTIAL_MESSAGE,_SOURCE_REALTIME_TIMESTAMP"


def words(container_id: str, query: LogQuery) -> tuple[str, ...]:
    """The arguments of journalctl."""
    found = ["--quiet", "--no-pager", "--all", "--output=json", f"--output-fields={_FIELDS}"]
    if query.since_ns:
        found.append(f"--since=@{_seconds(query.since_ns)}")
    if query.until_ns:
        found.append(f"--until=@{_seconds(query.until_ns)}")
    found.append("--lines=all" if query.tail is None else f"--lines={query.tail}")
    if query.follow:
        found.append("--follow")
    found += ["_UID=0", "_COMM=conmon", f"CONTAINER_ID_FULL={container_id}"]
    if query.stdout != query.stderr:
        found.append(f"PRIORITY={_PRIORITIES[STDOUT if query.stdout else STDERR]}")
    return tuple(found)


def _seconds(time_ns: int) -> str:
    return f"{time_ns // 10**9}.{time_ns % 10**9 // MICROSECOND:06d}"


def entry_of(line: bytes) -> LogEntry | None:
    """One line of journalctl's; None for what is no entry of conmon's."""
    try:
        fields = orjson.loads(line)
        message, priority = fields["MESSAGE"], fields["PRIORITY"]
        since = fields.get("_SOURCE_REALTIME_TIMESTAMP") or fields["__REALTIME_TIMESTAMP"]
        time_ns = int(since) * MICROSECOND
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
    text = message.encode() if isinstance(message, str) else bytes(message or ())
    partial = fields.get("CONTAINER_PARTIAL_MESSAGE") == "true"
    if not partial and not text.endswith(b"\n"):
        text += b"\n"
    time = format_time(time_ns).removesuffix("Z").encode() + UTC
    return STDERR if priority == _PRIORITIES[STDERR] else STDOUT, time, text


async def read_journal(
    spawner: Spawner, container_id: str, query: LogQuery, ended: Callable[[], bool], form: Form
) -> AsyncIterator[bytes]:
    """What ``form`` makes of the entries that ``query`` asks for, as :func:`supervisor.runtime.logs.read_log`.

    Raises:
        Unavailable: This host has no journalctl.
    """
    path = shutil.which("journalctl", path=ENVIRONMENT["PATH"])
    if path is None:
        raise Unavailable("cannot read the log: this host has no journalctl")
    read, write = os.pipe2(os.O_CLOEXEC)
    stream = trio.lowlevel.FdStream(read)
    async with stream:
        try:
            argv = (path, *words(container_id, query))
            command = Command(argv, env=ENVIRONMENT, stdout=write, dies_with_daemon=True)
            with told_as("read the journal"):
                process = await spawner.spawn(command)
        finally:
            os.close(write)
        async with process:
            rest = b""
            while (data := await _next(stream, query, ended)) is not None:
                *lines, rest = (rest + data).split(b"\n")
                rest = rest[-LINE_BYTES_MAX:]
                page = form(_entries(lines))
                if page:
                    yield page


async def _next(
    stream: trio.lowlevel.FdStream, query: LogQuery, ended: Callable[[], bool]
) -> bytes | None:
    """More of journalctl's output; None at its end, which of a followed journal is when the container has none."""
    while True:
        over = query.follow and ended()
        with trio.move_on_after(SETTLE_SECONDS if query.follow else float("inf")):
            return await stream.receive_some(RECEIVE_BYTES) or None
        if over:
            return None


def _entries(lines: Sequence[bytes]) -> list[LogEntry]:
    return [entry for entry in map(entry_of, lines) if entry is not None]
