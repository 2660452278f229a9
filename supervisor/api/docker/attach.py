"""A container's stdio over HTTP.

Rules: everything that can be refused is refused before the connection is hijacked; afterwards a failure can only be
told in the stream itself, as dockerd does. Who wants what was written before *and* what comes gets both from the log, so
that nothing is told twice and nothing is missed in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from supervisor.api.call import Call
from supervisor.api.docker.containers import found
from supervisor.api.docker.logs import NOT_READABLE, LogForm, readable
from supervisor.api.http import HttpRefusedError, Response
from supervisor.api.message_stream import accept
from supervisor.api.refusal import refusal
from supervisor.api.streams import HijackedStream, ReplayStream, closed_after, while_client_stays
from supervisor.errors import Conflict
from supervisor.runtime.attach import Attachment, AttachRequest
from supervisor.runtime.logs import LogQuery
from supervisor.runtime.status import Status
from supervisor.runtime.stdio import parse_detach_keys

if TYPE_CHECKING:
    from supervisor.runtime.keeper import Keeper

BINARY_SINCE = (1, 28)
"""The API version from which a websocket's messages are bytes."""


@attrs.frozen
class _Attaching:
    """One client who is being attached.

    Attributes:
        request: What it wants.
        from_log: What comes is told from the log, too.
        attachment: Its place; None where it wants only what was written.
        framed: Its stream tells stdout from stderr.
    """

    call: Call
    keeper: Keeper
    request: AttachRequest
    from_log: bool
    attachment: Attachment | None
    framed: bool


async def attach(call: Call) -> Response | None:
    """``POST /containers/{id}/attach``."""
    keeper = found(call)
    request = _wish(call, keeper)
    if request.logs and not readable(keeper):
        return refusal(NOT_READABLE)
    await call.connection.whole_body(call.services.config.api.json_body_bytes_max)
    attaching = await _attached(call, keeper, request, framed=not keeper.record.request.tty)
    try:
        stream = await call.connection.hijack()
        await _serve(attaching, stream, stream)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return None
    finally:
        _leave(attaching)
    return None


async def attach_by_websocket(call: Call) -> Response | None:
    """``GET /containers/{id}/attach/ws``: all of stdio, whatever is asked for, and unframed, as dockerd has it."""
    keeper = found(call)
    if call.head.upgrade() != "websocket":
        return refusal(HttpRefusedError(400, "not a websocket handshake"))
    request = attrs.evolve(_wish(call, keeper), stdin=True, stdout=True, stderr=True)
    if request.logs and not readable(keeper):
        return refusal(NOT_READABLE)
    attaching = await _attached(call, keeper, request, framed=False)
    try:
        raw = call.connection.take_over()
        await _serve_by_websocket(attaching, raw, ReplayStream(raw, call.head.raw))
    finally:
        _leave(attaching)
    return None


async def _serve_by_websocket(
    attaching: _Attaching, raw: HijackedStream, wire: ReplayStream
) -> None:
    async with trio.open_nursery() as nursery:
        binary = attaching.call.version >= BINARY_SINCE
        stream = await accept(nursery, wire, binary=binary)
        try:
            if stream is not None:
                await _serve(attaching, stream, raw)
                await stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client has gone, and there is nobody to tell
        finally:
            nursery.cancel_scope.cancel()
            await trio.aclose_forcefully(wire)


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


async def _attached(
    call: Call, keeper: Keeper, request: AttachRequest, *, framed: bool
) -> _Attaching:
    from_log = request.logs and request.stream and keeper.alive
    wish = attrs.evolve(request, stdout=False, stderr=False) if from_log else request
    attachment = await keeper.clients.attachment(wish, framed=framed) if request.stream else None
    return _Attaching(call, keeper, request, from_log, attachment, framed)


def _leave(attaching: _Attaching) -> None:
    if attaching.attachment is not None:
        attaching.keeper.clients.leave(attaching.attachment)


async def _serve(attaching: _Attaching, stream: trio.abc.Stream, raw: HijackedStream) -> None:
    """What was written before, then what comes, until the session ends or the client leaves."""
    attachment = attaching.attachment
    if attachment is None or not attaching.from_log:
        if attaching.request.logs:
            await _tell_log(attaching, stream)
        if attachment is not None:
            async with while_client_stays(raw):
                await attachment.serve(stream)
    else:
        async with while_client_stays(raw):
            await _serve_from_log(attaching, attachment, stream)
    if attachment is not None and attachment.detached:
        await attaching.keeper.clients.detached()


async def _serve_from_log(
    attaching: _Attaching, attachment: Attachment, stream: trio.abc.Stream
) -> None:
    async def carry_in() -> None:
        await attachment.serve(stream)
        if attachment.detached or attachment.left:
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(carry_in)
        await _tell_log(attaching, stream)
        nursery.cancel_scope.cancel()


async def _tell_log(attaching: _Attaching, stream: trio.abc.Stream) -> None:
    """The log, to its end, or to the client's."""
    request, keeper = attaching.request, attaching.keeper
    asked = LogQuery(stdout=request.stdout, stderr=request.stderr, follow=attaching.from_log)
    form = LogForm(asked, terminal=not attaching.framed)
    pages = attaching.call.services.containers.logs(keeper, asked, form.encode)
    async with closed_after(pages):
        async for page in pages:
            try:
                await stream.send_all(page)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
