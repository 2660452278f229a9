"""What became of containers' files, over HTTP: ``docker diff`` and ``docker commit``."""

from __future__ import annotations

import os

from supervisor.access.policy import Action
from supervisor.access.requests import CommitRequest
from supervisor.api.call import Call
from supervisor.api.docker.changes import checked, execution_of
from supervisor.api.http import JsonObject, Query, Response, json_response
from supervisor.oci.image import Execution, parse_execution
from supervisor.runtime import commits
from supervisor.store.images import wanted_name

COMMANDS = ("Cmd", "Entrypoint", "Shell")


async def changes(call: Call) -> Response:
    """``GET /containers/{id}/changes``; null when there are none, as with dockerd."""
    keeper = call.services.containers.find(call.identity, call["id"])
    found = await call.services.store.snapshots.changes(keeper.record.id)
    listed = [
        {"Path": os.fsdecode(one.path).encode(errors="replace").decode(), "Kind": int(one.kind)}
        for one in found
    ]
    return json_response(listed or None)


async def commit(call: Call) -> Response:
    """``POST /commit``."""
    keeper = call.services.containers.find(call.identity, call.query.text("container"))
    request = commit_request(call.query, await call.json())
    await call.allow(Action.COMMIT, request, keeper.record.name)
    own = commits.merged(request.config, commits.execution_of(keeper.record))
    execution = execution_of(request.changes, own)
    async with call.connection.while_client_stays():
        image = await commits.commit(keeper, call.identity.owner, request, execution)
    return json_response({"Id": image.id}, 201)


def commit_request(query: Query, body: JsonObject) -> CommitRequest:
    """One typed request.

    Raises:
        InvalidArgument: The name is none, an instruction is not allowed, or a field is of another type; Docker's wording.
    """
    repository, tag = query.text("repo"), query.text("tag")
    reference = ""
    if repository:
        reference = wanted_name(f"{repository}:{tag}" if tag else repository).familiar
    stated = {
        name: [value] if name in COMMANDS and isinstance(value, str) else value
        for name, value in body.items()
    }
    said = parse_execution(stated)
    return CommitRequest(
        reference=reference,
        author=query.text("author"),
        comment=query.text("comment"),
        pause=query.flag("pause", default=True),
        changes=checked(query.all("changes")),
        config=_known(said),
    )


def _known(said: Execution) -> Execution:
    """What an image can say: the rest of a container's config is about that container."""
    return commits.merged(said, Execution())
