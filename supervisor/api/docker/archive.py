"""Files in and out of containers over HTTP: ``docker cp`` and ``docker export``."""

from __future__ import annotations

from supervisor.api.call import Call
from supervisor.api.docker.view_archive import path_stat_field
from supervisor.api.http import Response
from supervisor.errors import InvalidArgument
from supervisor.linux.tree_view import Place
from supervisor.runtime import copies
from supervisor.runtime.keeper import Keeper

TAR = "application/x-tar"


def _named(call: Call) -> tuple[Keeper, str]:
    keeper = call.services.containers.find(call.identity, call["id"])
    path = call.query.text("path")
    if not path:
        raise InvalidArgument("bad parameter: path cannot be empty")
    return keeper, path


async def look(call: Call) -> Response:
    """``HEAD /containers/{id}/archive``."""
    keeper, path = _named(call)
    found = await copies.stat(keeper, path)
    return Response(fields=[path_stat_field(Place.of(path), found)])


async def copy_out(call: Call) -> None:
    """``GET /containers/{id}/archive``."""
    keeper, path = _named(call)
    async with copies.outgoing(keeper, path) as outgoing:
        field = path_stat_field(Place.of(path), outgoing.found)
        answer = call.connection.streamed(TAR, fields=[field])
        async for piece in outgoing.pieces:
            await answer.send(piece)
    await answer.finish()


async def copy_in(call: Call) -> Response:
    """``PUT /containers/{id}/archive``."""
    keeper, path = _named(call)
    try:
        async with call.connection.while_client_stays():
            await copies.incoming(
                keeper,
                path,
                call.connection.body(),
                keep_kinds=call.query.flag("noOverwriteDirNonDir"),
                as_user=call.query.flag("copyUIDGID"),
            )
    finally:
        call.services.disk.touched(keeper.record.id)  # of what failed a part may be there
    return Response(200)


async def export(call: Call) -> None:
    """``GET /containers/{id}/export``."""
    keeper = call.services.containers.find(call.identity, call["id"])
    async with copies.exported(keeper) as pieces:
        answer = call.connection.streamed("application/octet-stream")
        async for piece in pieces:
            await answer.send(piece)
    await answer.finish()
