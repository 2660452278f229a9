"""Volumes over HTTP: list, create, inspect, remove, prune."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio

from supervisor.access.policy import Action
from supervisor.api.call import Call
from supervisor.api.docker.filter_tests import labelled, named, passes_labels
from supervisor.api.docker.shape_build import Filters, filters, flag_filter, volume_request
from supervisor.api.http import JsonObject, Response, empty_response, json_response
from supervisor.clock import rfc3339
from supervisor.errors import NotFound

if TYPE_CHECKING:
    from supervisor.store.volumes import Volume

DRIVER = "local"
FILTERS = ("dangling", "driver", "label", "name")


def view(call: Call, volume: Volume) -> JsonObject:
    """A volume in Docker's JSON."""
    return {
        "CreatedAt": rfc3339(volume.created_ns),
        "Driver": DRIVER,
        "Labels": dict(volume.labels),
        "Mountpoint": str(call.services.store.volumes.path(volume.owner, volume.name)),
        "Name": volume.name,
        "Options": dict(volume.options) or None,
        "Scope": "local",
    }


async def visible(call: Call) -> Sequence[Volume]:
    """The caller's; an administrator's are everybody's."""
    return await call.services.store.volumes.list(
        None if call.identity.admin else call.identity.owner
    )


async def found(call: Call) -> Volume:
    """The volume the path names: the caller's own, or for an administrator the only one of this name.

    Raises:
        NotFound: There is none that the caller may know of.
    """
    name, own = call["name"], call.identity.owner
    everybodys = await call.services.store.volumes.named(name) if call.identity.admin else ()
    owners = {volume.owner for volume in everybodys}
    owner = owners.pop() if len(owners) == 1 else own
    return await call.services.store.volumes.get(owner, name)


async def list_all(call: Call) -> Response:
    """``GET /volumes``."""
    chosen = filters(call.query, *FILTERS)
    passes = _test(chosen)
    shown = list[JsonObject]()
    for volume in await visible(call):
        await trio.lowlevel.checkpoint()  # expressions take their time
        if passes(volume):
            shown.append(view(call, volume))
    return json_response({"Volumes": shown, "Warnings": None})


def _test(chosen: Filters) -> Callable[[Volume], bool]:
    dangling = flag_filter(chosen, "dangling")
    drivers, labels = chosen.get("driver", ()), chosen.get("label", ())
    is_named = named(chosen["name"]) if chosen.get("name") else lambda _: True
    return lambda volume: (
        (dangling is None or dangling is not bool(volume.holders))
        and (not drivers or DRIVER in drivers)
        and labelled(volume.labels, labels)
        and is_named(volume.name)
    )


async def create(call: Call) -> Response:
    """``POST /volumes/create``; one that is there already is the answer."""
    request = volume_request(await call.json())
    await call.allow(Action.VOLUME_CREATE, request, request.name)
    if request.driver != DRIVER:
        raise NotFound(
            f"create {request.name}: error looking up volume plugin {request.driver[:80]}:"
            f' plugin "{request.driver[:80]}" not found',
            "the only driver is local",
        )
    volume = await call.services.store.volumes.create(
        call.identity.owner, request.name, labels=request.labels, options=request.options
    )
    return json_response(view(call, volume), 201)


async def inspect_one(call: Call) -> Response:
    """``GET /volumes/{name}``."""
    return json_response(view(call, await found(call)))


async def remove(call: Call) -> Response:
    """``DELETE /volumes/{name}``."""
    force = call.query.flag("force")
    try:
        volume = await found(call)
    except NotFound:
        if not force:
            raise
        return empty_response()
    await call.services.store.volumes.remove(volume.owner, volume.name, force=force)
    return empty_response()


async def prune(call: Call) -> Response:
    """``POST /volumes/prune``: remove the caller's own that no container holds.

    All of them: that only anonymous ones go is so from API 1.42 on, which has ``all`` for the others.
    """
    chosen = filters(call.query, "label", "label!", "all")
    everything = flag_filter(chosen, "all") is not False
    removed, reclaimed = await call.services.store.volumes.prune(
        call.identity.owner,
        lambda volume: (
            not volume.options  # there is nothing to be won by those, as dockerd sees it
            and (everything or volume.anonymous)
            and passes_labels(volume.labels, chosen)
        ),
    )
    return json_response(
        {"VolumesDeleted": [volume.name for volume in removed], "SpaceReclaimed": reclaimed}
    )
