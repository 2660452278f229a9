"""A container's stdio over HTTP.

Rules: everything that can be refused is refused before the connection is hijacked; afterwards a failure can only be
told in the stream itself, as dockerd does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from supervisor.api.call import Call
from supervisor.api.docker.containers import found
from supervisor.api.docker.logs import NOT_READABLE, LogForm, readable
from supervisor.api.http import Response
from supervisor.api.refusal import refusal
from supervisor.api.streams import HijackedStream, closed_after, while_client_stays
from supervisor.errors import Conflict
from supervisor.runtime.attach import Attachment, AttachRequest
from supervisor.runtime.logs import LogQuery
from supervisor.runtime.status import Status
from supervisor.runtime.stdio import parse_detach_keys

if TYPE_CHECKING:
    from supervisor.runtime.keeper import Keeper


async def attach(call: Call) -> Response | None:
    """``POST /containers/{id}/attach``."""
    keeper = found(call)
    request = _wish(call, keeper)
    if request.logs and not readable(keeper):
        return refusal(NOT_READABLE)
    await call.connection.whole_body(call.services.config.api.json_body_bytes_max)
    attachment = await keeper.attachment(request) if request.stream else None
    try:
        stream = await call.connection.hijack()
        await _serve(call, keeper, request, attachment, stream)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return None
    finally:
        if attachment is not None:
            keeper.leave(attachment)
    return None


def _wish(call: Call, keeper: Keeper) -> AttachRequest:
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
    return request


async def _serve(
    call: Call,
    keeper: Keeper,
    request: AttachRequest,
    attachment: Attachment | None,
    stream: HijackedStream,
) -> None:
    """What was written before, then what comes, until the session ends or the client leaves."""
    if request.logs:
        asked = LogQuery(stdout=request.stdout, stderr=request.stderr)
        form = LogForm(asked, terminal=keeper.record.request.tty)
        pages = call.services.containers.logs(keeper, asked, form.encode)
        async with closed_after(pages):
            async for page in pages:
                await stream.send_all(page)
    if attachment is not None:
        async with while_client_stays(stream):
            await attachment.serve(stream)
        if attachment.detached:
            await keeper.detached()
