"""Execs over HTTP: create, start, resize, inspect.

Rules: everything that can be refused is refused before the connection is hijacked; afterwards a failure can only be
told in the stream itself, as dockerd does. Whether the process has a terminal was said when the exec was made; whether
its output comes in frames is said when it is started.
"""

from __future__ import annotations

import trio

from supervisor.access.policy import Action
from supervisor.api.call import Call
from supervisor.api.docker.containers import found, size
from supervisor.api.docker.fields import Fields, check
from supervisor.api.docker.shape_container import exec_request
from supervisor.api.docker.view_container import exec_inspect
from supervisor.api.http import Response, empty_response, json_response
from supervisor.api.streams import while_client_stays
from supervisor.errors import BakehouseError, Conflict
from supervisor.runtime.attach import Attachment
from supervisor.runtime.execs import Exec
from supervisor.runtime.stdio import STDERR, frame, parse_detach_keys

EXIT_SECONDS = 10.0
RESIZE_SECONDS, RESIZE_POLL_SECONDS = 10.0, 0.01


async def exec_create(call: Call) -> Response:
    """``POST /containers/{id}/exec``."""
    keeper = found(call)
    request = exec_request(await call.json())
    parse_detach_keys(request.detach_keys)
    await keeper.started()
    keeper.check_execs()
    await call.allow(Action.EXEC_CREATE, request, keeper.record.name)
    made = await call.services.containers.create_exec(call.identity, keeper, request)
    return json_response({"Id": made.record.id}, 201)


async def exec_start(call: Call) -> Response | None:
    """``POST /exec/{id}/start``."""
    made = call.services.containers.find_exec(call.identity, call["id"])
    body = Fields(await call.json(), "", [])
    detach, raw = body.flag("Detach"), body.flag("Tty")
    check(body.faults, "start the exec")
    if made.record.started:
        raise Conflict(f"Error: Exec command {made.record.id} is already running")
    made.keeper.check_execs()
    request = made.record.request
    if detach or not (request.attach_stdin or request.attach_stdout or request.attach_stderr):
        await made.start(None)
        return empty_response(200)
    attachment = made.attachment(framed=not raw)
    try:
        await _attended(call, made, attachment)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return None
    finally:
        attachment.close()
    return None


async def _attended(call: Call, made: Exec, attachment: Attachment) -> None:
    """Start an exec with its client at it, until it ends or the client goes: then what runs goes on."""
    stream = await call.connection.hijack()
    try:
        await made.start(attachment)
    except BakehouseError as error:
        text = f"{error.message}\r\n".encode()
        await stream.send_all(frame(STDERR, text) if attachment.framed else text)
        return
    async with while_client_stays(stream) as left:
        await attachment.serve(stream)
    if attachment.detached:
        await made.detached()
    if attachment.detached or attachment.left or left.is_set():
        return
    if attachment.terminal and not made.ended.is_set():
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
