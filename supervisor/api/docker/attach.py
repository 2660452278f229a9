"""A container's stdio over HTTP: attach, logs, and the execs' start.

Rules: everything that can be refused is refused before the connection is hijacked; afterwards a failure can only be
told in the stream itself, as dockerd does.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from supervisor.access.policy import Action
from supervisor.api.call import Call
from supervisor.api.connection import RAW_STREAM
from supervisor.api.docker.containers import found, size
from supervisor.api.docker.fields import Fields, check
from supervisor.api.docker.shape_container import exec_request
from supervisor.api.docker.times import parse_time
from supervisor.api.docker.view_container import exec_inspect
from supervisor.api.http import Response, empty_response, json_response
from supervisor.api.streams import closed_after, while_client_stays
from supervisor.clock import rfc3339
from supervisor.errors import BakehouseError, Conflict, InvalidArgument
from supervisor.runtime.attach import Attachment, AttachRequest
from supervisor.runtime.execs import Exec
from supervisor.runtime.logs import LogEntry, LogQuery
from supervisor.runtime.status import Status
from supervisor.runtime.stdio import STDERR, frame, parse_detach_keys

TAIL_DIGITS_MAX = 12
EXIT_SECONDS = 10.0
RESIZE_SECONDS, RESIZE_POLL_SECONDS = 10.0, 0.01


async def attach(call: Call) -> None:
    """``POST /containers/{id}/attach``."""
    keeper = found(call)
    query = call.query
    request = AttachRequest(
        stdin=query.flag("stdin"),
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
        logs=query.flag("logs"),
        stream=query.flag("stream"),
        detach_keys=query.text("detachKeys"),
    )
    parse_detach_keys(request.detach_keys)
    if keeper.state.status is Status.PAUSED:
        raise Conflict(
            f"Container {keeper.record.id} is paused, unpause the container before attach"
        )
    await call.connection.whole_body(call.services.config.api.json_body_bytes_max)
    attachment = await keeper.attachment(request) if request.stream else None
    try:
        stream = await call.connection.hijack()
        if request.logs:
            asked = LogQuery(stdout=request.stdout, stderr=request.stderr)
            async with closed_after(call.services.containers.logs(keeper, asked)) as pages:
                async for entries in pages:
                    await stream.send_all(
                        _LogForm(asked, terminal=keeper.record.request.tty).encode(entries)
                    )
        if attachment is not None:
            async with while_client_stays(stream):
                await attachment.serve(stream)
            if attachment.detached:
                await keeper.detached()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return
    finally:
        if attachment is not None:
            keeper.leave(attachment)


async def logs(call: Call) -> None:
    """``GET /containers/{id}/logs``."""
    keeper = found(call)
    query = _log_query(call)
    form = _LogForm(query, terminal=keeper.record.request.tty, details=call.query.flag("details"))
    answer = call.connection.streamed(RAW_STREAM)
    await answer.start()
    async with call.connection.while_client_stays():
        async with closed_after(call.services.containers.logs(keeper, query)) as pages:
            async for entries in pages:
                await answer.send(form.encode(entries))
    await answer.finish()


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


class _LogForm:
    """Log entries as clients read them: raw for a terminal, else in frames; a time before each line if asked for.

    ``details`` are what a log driver's options add to each line: nothing here, and a space that sets it off.
    """

    def __init__(self, query: LogQuery, *, terminal: bool, details: bool = False) -> None:
        self._timestamps = query.timestamps
        self._details = details
        self._terminal = terminal
        self._midway: set[int] = set()

    def encode(self, entries: Sequence[LogEntry]) -> bytes:
        """The bytes of these entries."""
        return b"".join(map(self._one, entries))

    def _one(self, entry: LogEntry) -> bytes:
        data = entry.data
        if entry.stream not in self._midway:
            data = b" " + data if self._details else data
            data = rfc3339(entry.time_ns).encode() + b" " + data if self._timestamps else data
        if entry.data.endswith(b"\n"):
            self._midway.discard(entry.stream)
        else:
            self._midway.add(entry.stream)
        return data if self._terminal else frame(entry.stream, data)


async def exec_create(call: Call) -> Response:
    """``POST /containers/{id}/exec``."""
    keeper = found(call)
    request = exec_request(await call.json())
    parse_detach_keys(request.detach_keys)
    await keeper.started()
    if not keeper.alive:
        raise Conflict(f"Container {keeper.record.id} is not running")
    if keeper.state.status is Status.PAUSED:
        raise Conflict(
            f"Container {keeper.record.name} is paused, unpause the container before exec"
        )
    await call.allow(Action.EXEC_CREATE, request, keeper.record.name)
    made = await call.services.containers.create_exec(call.identity, keeper, request)
    return json_response({"Id": made.record.id}, 201)


async def exec_start(call: Call) -> Response | None:
    """``POST /exec/{id}/start``."""
    made = call.services.containers.find_exec(call.identity, call["id"])
    body = Fields(await call.json(), "", [])
    detach, terminal = body.flag("Detach"), body.flag("Tty")
    check(body.faults, "start the exec")
    if made.record.started:
        raise Conflict(f"Error: Exec command {made.record.id} is already running")
    if not made.keeper.alive:
        raise Conflict(f"Container {made.keeper.record.id} is not running")
    request = made.record.request
    if detach or not (request.attach_stdin or request.attach_stdout or request.attach_stderr):
        await made.start(None, terminal=terminal)
        return empty_response(200)
    attachment = made.attachment(terminal=terminal)
    try:
        await _attended(call, made, attachment, terminal=terminal)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return None
    finally:
        attachment.close()
    return None


async def _attended(call: Call, made: Exec, attachment: Attachment, *, terminal: bool) -> None:
    """Start an exec with its client at it, until it ends or the client goes: then what runs goes on."""
    stream = await call.connection.hijack()
    try:
        await made.start(attachment, terminal=terminal)
    except BakehouseError as error:
        text = f"{error.message}\r\n".encode()
        await stream.send_all(text if terminal else frame(STDERR, text))
        return
    async with while_client_stays(stream) as left:
        await attachment.serve(stream)
    if attachment.detached:
        await made.detached()
    if attachment.detached or attachment.left or left.is_set():
        return
    if terminal and not made.ended.is_set():
        made.hang_up()
    with trio.move_on_after(EXIT_SECONDS):  # clients ask for the exit code when the stream ends
        await made.ended.wait()


def exec_inspect_one(call: Call) -> Response:
    """``GET /exec/{id}/json``."""
    made = call.services.containers.find_exec(call.identity, call["id"])
    return json_response(exec_inspect(made.record))


async def exec_resize(call: Call) -> Response:
    """``POST /exec/{id}/resize``."""
    made = call.services.containers.find_exec(call.identity, call["id"])
    height, width = size(call)
    with trio.move_on_after(RESIZE_SECONDS):  # clients ask as soon as they have asked for the start
        while made.record.started and made.record.process is None and not made.ended.is_set():  # noqa: ASYNC110  # an exec tells nobody that its process is there
            await trio.sleep(RESIZE_POLL_SECONDS)
    await made.resize(height, width)
    return empty_response(200)
