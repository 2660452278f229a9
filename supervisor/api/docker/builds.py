"""Builds over HTTP: the classic ``POST /build``, whose body is the context as a tar."""

from __future__ import annotations

from supervisor.access.policy import Action
from supervisor.access.requests import BuildRequest
from supervisor.api.call import Call
from supervisor.api.connection import StreamedResponse
from supervisor.api.docker.shape_build import build_request
from supervisor.api.http import JsonObject, Response, json_line, json_response
from supervisor.build.operation_run import StepFailed
from supervisor.build.progress import ClassicText, ImageBuilt, Progress
from supervisor.errors import BakehouseError, Unavailable


async def build(call: Call) -> None:
    """``POST /build``.

    Refusals before the first line of output have their own status; later ones are the last message of the stream, as
    dockerd does. A client who goes away cancels the build, and so does the daemon's end, which is told.
    """
    request = build_request(call.query)
    await call.allow(Action.BUILD, request, " ".join(request.tags))
    answer = call.connection.streamed("application/json")
    told = _Told(answer, quiet=request.quiet)
    ending = call.connection.ending
    with ending.waits():
        try:
            async with ending.cuts_short(), call.connection.while_client_stays():
                await _build(call, request, told)
        except Unavailable as error:
            await told.failure(error)
        await answer.finish()


async def _build(call: Call, request: BuildRequest, told: _Told) -> None:
    """The build, and why it failed if it did: inside of what watches the client."""
    try:
        await call.services.builds.build(
            call.identity, request, call.connection.body(), told.progress
        )
    except BakehouseError as error:
        await told.failure(error)


class _Told:
    """What the client of a build is told: the classic builder's words, and the image's id for programs."""

    def __init__(self, answer: StreamedResponse, *, quiet: bool) -> None:
        self._answer = answer
        self._quiet = quiet
        self._text = ClassicText()

    async def message(self, message: JsonObject) -> None:
        """One JSON message."""
        await self._answer.send(json_line(message))

    async def failure(self, error: BakehouseError) -> None:
        """The last message; before the first, an answer of its own."""
        if not self._answer.started:
            raise error
        await self.message({"errorDetail": _detail(error), "error": error.text()})

    async def progress(self, progress: Progress) -> None:
        """One step further; when asked to be quiet, only the image's id is told."""
        if isinstance(progress, ImageBuilt):
            await self.message(
                {"stream": f"{progress.image}\n"}
                if self._quiet
                else {"aux": {"ID": progress.image}}
            )
        text = self._text.render(progress)
        if text and not self._quiet:
            await self.message({"stream": text})


async def prune(call: Call) -> Response:
    """``POST /build/prune``: forget the caller's cached steps."""
    reclaimed = await call.services.builds.prune(call.identity)
    return json_response({"CachesDeleted": None, "SpaceReclaimed": reclaimed})


def _detail(error: BakehouseError) -> JsonObject:
    """What went wrong, with the exit code where a step's command ended with one."""
    if isinstance(error, StepFailed):
        return {"code": error.code, "message": error.text()}
    return {"message": error.text()}
