"""Images for everybody: making a base image of the distribution's packages, and publishing what is here."""

from __future__ import annotations

from protocol.errors import Fault
from supervisor.api.call import Call
from supervisor.api.docker.fields import Fields, check
from supervisor.api.http import Response, json_line, json_response
from supervisor.errors import BakehouseError


async def bootstrap(call: Call) -> None:
    """``POST /bakehouse/v1/images/bootstrap``: ``{"reference": "debian:bookworm", "include": ["python3"]}``.

    An administrator's is published to everybody. A client who goes away cancels it.
    """
    faults: list[Fault] = []
    body = Fields(await call.json(), "", faults)
    reference, include = body.text("reference"), body.texts("include")
    check(faults, "make a base image")
    answer = call.connection.streamed("application/json")

    async def told(line: str) -> None:
        await answer.send(json_line({"stream": f"{line}\n"}))

    async with call.connection.while_client_stays():
        try:
            image = await call.services.store.bootstrap.bootstrap(
                call.identity, reference, include, told
            )
        except BakehouseError as error:
            if not answer.started:
                raise
            await answer.send(
                json_line({"errorDetail": {"message": error.text()}, "error": error.text()})
            )
        else:
            await answer.send(json_line({"aux": {"ID": image.id}}))
    await answer.finish()


async def publish(call: Call) -> Response:
    """``POST /bakehouse/v1/images/{name}/publish``: everybody can use it, by this name or by the one ``as`` says."""
    images = call.services.store.images
    image = await images.publish(call.identity, call["name"], call.query.text("as"))
    return json_response({"id": image.id, "names": [name.familiar for name in image.names]})
