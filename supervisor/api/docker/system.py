"""The daemon as such: ping, version, info, events, disk usage, login."""

from __future__ import annotations

import collections
from contextlib import aclosing

from supervisor.api.call import Call
from supervisor.api.docker.container_list import seen
from supervisor.api.docker.images import listed_images
from supervisor.api.docker.refused import refuse
from supervisor.api.docker.shape_build import filters
from supervisor.api.docker.times import parse_time
from supervisor.api.docker.view_container import listed
from supervisor.api.docker.view_event import message
from supervisor.api.docker.view_system import info, version
from supervisor.api.docker.volumes import view as volume_view
from supervisor.api.docker.volumes import visible
from supervisor.api.http import Response, json_line, json_response
from supervisor.clock import now_ns
from supervisor.events.follow import KNOWN_FILTERS, Span, follow
from supervisor.runtime.status import Status

_NO_CACHE = (("Cache-Control", "no-cache, no-store, must-revalidate"), ("Pragma", "no-cache"))
_COUNTED = {Status.RUNNING: "running", Status.PAUSED: "paused"}

login = refuse(
    "log in", "there is no registry yet; images come by docker load, docker import and docker build"
)


def ping(_call: Call) -> Response:
    """``GET`` and ``HEAD /_ping``; ``Builder-Version`` 1 keeps clients with the classic builder."""
    return Response(
        200,
        b"OK",
        "text/plain; charset=utf-8",
        (*_NO_CACHE, ("Builder-Version", "1"), ("Swarm", "inactive")),
    )


def version_of(call: Call) -> Response:
    """``GET /version``."""
    return json_response(version(call.services.facts))


async def info_of(call: Call) -> Response:
    """``GET /info``: the host, and how much the caller has."""
    keepers = call.services.containers.visible_to(call.identity)
    counts = collections.Counter(_COUNTED.get(keeper.state.status, "stopped") for keeper in keepers)
    images = await call.services.store.images.list(call.identity)
    security = ["name=seccomp,profile=default", *([] if call.identity.admin else ["name=userns"])]
    root = str(call.services.config.data_root)
    return json_response(info(call.services.facts, root, counts, len(images), security))


async def events(call: Call) -> None:
    """``GET /events``: of what the caller may see, until ``until`` or for ever."""
    query = call.query
    span = Span(parse_time("since", query.text("since")), parse_time("until", query.text("until")))
    chosen = filters(query, *KNOWN_FILTERS)
    visible_to = None if call.identity.admin else call.identity.owner
    answer = call.connection.streamed("application/json")
    await answer.start()
    async with call.connection.while_client_stays():
        async with aclosing(
            follow(call.services.events, visible_to=visible_to, span=span, filters=chosen)
        ) as followed:
            async for event in followed:
                await answer.send(json_line(message(event)))
    await answer.finish()


async def disk_usage(call: Call) -> Response:
    """``GET /system/df``: what the caller's things take."""
    now = now_ns()
    keepers = call.services.containers.visible_to(call.identity)
    images = await listed_images(call)
    volumes = await visible(call)
    _, cache_bytes = await call.services.builds.usage(call.identity)
    return json_response(
        {
            "LayersSize": await call.services.store.images.layer_bytes(call.identity),
            "Images": images,
            "Containers": [listed(seen(call, keeper, (0, 0)), now) for keeper in keepers],
            "Volumes": [
                volume_view(call, volume)
                | {"UsageData": {"RefCount": len(volume.holders), "Size": -1}}
                for volume in volumes
            ],
            "BuildCache": [],
            "BuilderSize": cache_bytes,
        }
    )
