"""Builds over HTTP: the classic ``POST /build``, whose body is the context as a tar."""

from __future__ import annotations

from supervisor.access.policy import Action
from supervisor.api.call import Call
from supervisor.api.connection import StreamedResponse
from supervisor.api.docker.shape_build import build_request
from supervisor.api.http import JsonObject, Response, json_line, json_response
from supervisor.errors import BakehouseError


async def build(call: Call) -> None:
    """``POST /build``.

    Refusals before the first line of output have their own status; later ones are the last message of the stream, as
    dockerd does. A client who goes away cancels the build.
    """
    request = build_request(call.query)
    await call.allow(Action.BUILD, request, " ".join(request.tags))
    answer = call.connection.streamed("application/json")
    async with call.connection.while_client_stays():
        told = Told(answer, quiet=request.quiet)
        try:
            image = await call.services.builds.build(
                call.identity, request, call.connection.body(), told.progress
            )
        except BakehouseError as error:
            if not answer.started:
                raise
            await told.message({"errorDetail": {"message": error.text()}, "error": error.text()})
        else:
            await told.done(image.id, request.tags)
    await answer.finish()


class Told:
    """What the client of a build is told."""

    def __init__(self, answer: StreamedResponse, *, quiet: bool) -> None:
        self._answer = answer
        self._quiet = quiet

    async def message(self, message: JsonObject) -> None:
        """One JSON message."""
        await self._answer.send(json_line(message))

    async def progress(self, text: str) -> None:
        """A piece of output."""
        if not self._quiet and text:
            await self.message({"stream": text})

    async def done(self, image_id: str, tags: tuple[str, ...]) -> None:
        """The end of a build that went well."""
        if self._quiet:
            await self.message({"stream": f"{image_id}\n"})
            return
        await self.message({"aux": {"ID": image_id}})
        short = image_id.removeprefix("sha256:")[:12]
        await self.message({"stream": f"Successfully built {short}\n"})
        for tag in tags:
            await self.message({"stream": f"Successfully tagged {tag}\n"})


async def prune(call: Call) -> Response:
    """``POST /build/prune``: forget the caller's cached steps."""
    reclaimed = await call.services.builds.prune(call.identity)
    return json_response({"CachesDeleted": None, "SpaceReclaimed": reclaimed})
