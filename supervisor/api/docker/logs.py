"""A container's log over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from supervisor.api.call import Call
from supervisor.api.connection import RAW_STREAM
from supervisor.api.docker.containers import found
from supervisor.api.docker.times import parse_time
from supervisor.api.http import HttpRefusedError, Response
from supervisor.api.refusal import refusal
from supervisor.api.streams import closed_after
from supervisor.errors import Conflict, InvalidArgument
from supervisor.runtime.log_settings import NONE, details
from supervisor.runtime.logs import LogEntry, LogQuery, utc
from supervisor.runtime.status import Status
from supervisor.runtime.stdio import frame_head

if TYPE_CHECKING:
    from supervisor.runtime.keeper import Keeper

TAIL_DIGITS_MAX = 12
NOT_READABLE = HttpRefusedError(501, "configured logging driver does not support reading")
"""Dockerd's status and wording."""


async def logs(call: Call) -> Response | None:
    """``GET /containers/{id}/logs``."""
    keeper = found(call)
    query = _log_query(call)
    if keeper.state.status in {Status.REMOVING, Status.DEAD}:
        raise Conflict("can not get logs from container which is dead or marked for removal")
    if not readable(keeper):
        return refusal(NOT_READABLE)
    await keeper.started()
    said = details(keeper.record) if call.query.flag("details") else None
    form = LogForm(query, terminal=keeper.record.request.tty, details=said)
    answer = call.connection.streamed(RAW_STREAM)
    await answer.start()
    async with call.connection.while_client_stays():
        pages = call.services.containers.logs(keeper, query, form.encode)
        async with closed_after(pages):
            async for page in pages:
                await answer.send(page)
    await answer.finish()
    return None


def readable(keeper: Keeper) -> bool:
    """Whether its log can be read back."""
    return keeper.record.request.log.driver != NONE


def _log_query(call: Call) -> LogQuery:
    query = call.query
    stdout, stderr = query.flag("stdout"), query.flag("stderr")
    if not (stdout or stderr):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    tail = query.text("tail") or "all"
    if tail != "all" and not (tail.isascii() and tail.isdigit() and len(tail) <= TAIL_DIGITS_MAX):
        tail = "all"  # as dockerd does with what is no number
    return LogQuery(
        stdout=stdout,
        stderr=stderr,
        follow=query.flag("follow"),
        since_ns=parse_time("since", query.text("since")) or 0,
        until_ns=parse_time("until", query.text("until")) or 0,
        tail=None if tail == "all" else int(tail),
        timestamps=query.flag("timestamps"),
    )


class LogForm:
    """Log entries as clients read them: raw for a terminal, else in frames; a time before each line if asked for.

    ``details`` stand between the time and the line, also when there are none to tell; None leaves them out.
    """

    def __init__(self, query: LogQuery, *, terminal: bool, details: str | None = None) -> None:
        self._timestamps = query.timestamps
        self._before = b"" if details is None else f"{details} ".encode()
        self._terminal = terminal
        self._midway: set[int] = set()

    def encode(self, entries: Sequence[LogEntry]) -> bytes:
        """The bytes of these entries."""
        if self._timestamps or self._before:
            entries = self._introduced(entries)
        if self._terminal:
            return b"".join([data for _, _, data in entries])
        return b"".join(
            [part for stream, _, data in entries for part in (frame_head(stream, len(data)), data)]
        )

    def _introduced(self, entries: Sequence[LogEntry]) -> list[LogEntry]:
        """With what stands before each line; entries that go on with one have nothing before them."""
        midway, before, timestamps = self._midway, self._before, self._timestamps
        found: list[LogEntry] = []
        for stream, time, data in entries:
            head = b""
            if stream not in midway:
                head = utc(time) + b" " + before if timestamps else before
            if data.endswith(b"\n"):
                midway.discard(stream)
            else:
                midway.add(stream)
            found.append((stream, time, head + data))
        return found
