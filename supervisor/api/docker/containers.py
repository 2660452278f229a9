"""The life of containers over HTTP: create, start, stop, kill, restart, pause, rename, remove, wait.

Rules: a change is done in the container's keeper, so a client who goes away takes nothing back; statuses and wording
are Docker's where clients go by them.
"""

from __future__ import annotations

import math
import signal
from typing import TYPE_CHECKING

import trio

from supervisor.access.policy import Action
from supervisor.api.call import Call
from supervisor.api.docker.shape_container import container_request, update_request
from supervisor.api.http import JsonObject, Response, empty_response, json_line, json_response
from supervisor.errors import InvalidArgument, NotFound
from supervisor.runtime.links import unlink
from supervisor.runtime.signals import parse_signal

if TYPE_CHECKING:
    from supervisor.runtime.keeper import Keeper

DEFAULT_KILL_SIGNAL = "KILL"
KILL_SECONDS = 10.0
WAIT_CONDITIONS = ("not-running", "next-exit", "removed")


def found(call: Call) -> Keeper:
    """The container the path names.

    Raises:
        NotFound: None that the caller may know of.
    """
    return call.services.containers.find(call.identity, call["id"])


async def create(call: Call) -> Response:
    """``POST /containers/create``."""
    request = container_request(await call.json(), call.query)
    await call.allow(Action.CONTAINER_CREATE, request, request.name)
    keeper, warnings = await call.services.containers.create(call.identity, request)
    return json_response({"Id": keeper.record.id, "Warnings": warnings}, 201)


async def start(call: Call) -> Response:
    """``POST /containers/{id}/start``; 304 if it runs already."""
    keeper = found(call)
    return empty_response(204 if await keeper.perform(keeper.start) else 304)


async def stop(call: Call) -> Response:
    """``POST /containers/{id}/stop``; 304 if it does not run."""
    keeper = found(call)
    grace, number = _grace_seconds(call, keeper), _stop_signal(call, keeper)
    return empty_response(204 if await keeper.perform(lambda: keeper.stop(grace, number)) else 304)


async def restart(call: Call) -> Response:
    """``POST /containers/{id}/restart``."""
    keeper = found(call)
    grace, number = _grace_seconds(call, keeper), _stop_signal(call, keeper)
    await keeper.perform(lambda: keeper.restart(grace, number))
    return empty_response()


async def kill(call: Call) -> Response:
    """``POST /containers/{id}/kill``."""
    keeper = found(call)
    number = parse_signal(call.query.text("signal") or DEFAULT_KILL_SIGNAL)
    await keeper.started()
    await keeper.perform(lambda: keeper.kill(number))
    if number == signal.SIGKILL:  # clients remove it next, and dockerd lets them
        with trio.move_on_after(KILL_SECONDS):
            await keeper.wait("not-running")
    return empty_response()


async def pause(call: Call) -> Response:
    """``POST /containers/{id}/pause``."""
    keeper = found(call)
    await keeper.perform(keeper.pause)
    return empty_response()


async def unpause(call: Call) -> Response:
    """``POST /containers/{id}/unpause``."""
    keeper = found(call)
    await keeper.perform(keeper.unpause)
    return empty_response()


async def rename(call: Call) -> Response:
    """``POST /containers/{id}/rename``."""
    keeper = found(call)
    name = call.query.text("name")
    if not name:
        raise InvalidArgument("cannot rename the container: Neither old nor new names may be empty")
    if name.removeprefix("/") == keeper.record.name:
        raise InvalidArgument("Renaming a container with the same name as its current name")
    await call.services.containers.rename(keeper, name)
    return empty_response()


async def update(call: Call) -> Response:
    """``POST /containers/{id}/update``."""
    keeper = found(call)
    request = update_request(await call.json())
    await call.allow(Action.CONTAINER_UPDATE, request, keeper.record.name)
    await keeper.perform(lambda: keeper.update(request))
    return json_response({"Warnings": []})


async def remove(call: Call) -> Response:
    """``DELETE /containers/{id}``."""
    if call.query.flag("link"):
        raise InvalidArgument(
            f"Conflict, cannot remove the default link name of the container: {call['id']}"
        )
    keeper = found(call)
    force, volumes = call.query.flag("force"), call.query.flag("v")
    await keeper.perform(lambda: keeper.remove(force=force, volumes=volumes))
    return empty_response()


async def remove_link(call: Call) -> Response:
    """``DELETE /containers/{id}/{alias}``: with ``link`` the container calls nobody so from its next start on."""
    keeper, alias = found(call), call["alias"]
    if not call.query.flag("link"):
        raise NotFound(f"No such container: {call['id']}/{alias}")
    await keeper.perform(lambda: unlink(keeper, alias))
    return empty_response()


async def resize(call: Call) -> Response:
    """``POST /containers/{id}/resize``."""
    keeper = found(call)
    height, width = size(call)
    await keeper.started()
    await keeper.perform(lambda: keeper.clients.resize(height, width))
    return empty_response(200)


def size(call: Call) -> tuple[int, int]:
    """Height and width of a terminal, in characters.

    Raises:
        InvalidArgument: They are no such numbers.
    """
    height, width = call.query.number("h"), call.query.number("w")
    if not (0 <= height < 2**16 and 0 <= width < 2**16):
        raise InvalidArgument(
            "cannot resize the terminal: height and width must be from 0 to 65535"
        )
    return height, width


async def wait(call: Call) -> None:
    """``POST /containers/{id}/wait``.

    The head goes out as soon as we wait: clients start the container only when they have seen it.
    """
    keeper = found(call)
    condition = call.query.text("condition") or WAIT_CONDITIONS[0]
    if condition not in WAIT_CONDITIONS:
        raise InvalidArgument(
            f"cannot wait for the container: invalid condition {condition[:40]!r}",
            ", ".join(WAIT_CONDITIONS),
        )
    answer = call.connection.streamed("application/json")
    told: list[JsonObject] = []

    async def await_exit() -> None:
        exited = await keeper.wait(condition)
        told.append(
            {
                "StatusCode": exited.code,
                "Error": {"Message": exited.error} if exited.error else None,
            }
        )

    async with call.connection.while_client_stays():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(await_exit)
            await answer.start()
    await answer.send(json_line(told[0]))
    await answer.finish()


def _grace_seconds(call: Call, keeper: Keeper) -> float:
    """``t``, else the container's own, else the configured; below 0 is for ever."""
    seconds: float = call.services.config.runtime.stop_seconds
    if keeper.record.request.stop_seconds is not None:
        seconds = keeper.record.request.stop_seconds
    if call.query.has("t"):
        seconds = call.query.number("t")
    return math.inf if seconds < 0 else seconds


def _stop_signal(call: Call, keeper: Keeper) -> int:
    return parse_signal(call.query.text("signal") or keeper.record.stop_signal)
