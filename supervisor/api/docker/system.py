"""The daemon as such: ping, version, info, events, disk usage, login."""

from __future__ import annotations

import collections
from contextlib import aclosing

import trio

from supervisor.api.call import Call
from supervisor.api.docker.container_list import seen, with_layers
from supervisor.api.docker.images import listed_images
from supervisor.api.docker.refused import refuse
from supervisor.api.docker.shape_build import filters
from supervisor.api.docker.times import parse_time
from supervisor.api.docker.view_container import listed
from supervisor.api.docker.view_event import message
from supervisor.api.docker.view_system import info, version
from supervisor.api.docker.volumes import view as volume_view
from supervisor.api.docker.volumes import visible
from supervisor.api.http import JsonObject, Response, json_line, json_response
from supervisor.clock import now_ns
from supervisor.errors import InvalidArgument
from supervisor.events.follow import KNOWN_FILTERS, Span, follow
from supervisor.runtime.disk_use import CONTAINER, VOLUME, DiskUse, Sizes
from supervisor.runtime.status import Status

_NO_CACHE = (("Cache-Control", "no-cache, no-store, must-revalidate"), ("Pragma", "no-cache"))
LOOK_SECONDS = 0.5
USAGE_TYPES = ("container", "image", "volume", "build-cache")
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
    services = call.services
    return json_response(
        info(services.facts, services.config, counts, len(images), security, call.version)
    )


async def events(call: Call) -> None:
    """``GET /events``: of what the caller may see, until ``until`` or for ever."""
    query = call.query
    span = Span(parse_time("since", query.text("since")), parse_time("until", query.text("until")))
    if span.since_ns is not None and span.until_ns is not None and span.until_ns < span.since_ns:
        since, until = query.text("since"), query.text("until")
        raise InvalidArgument(f"`since` time ({since}) cannot be after `until` time ({until})")
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
    """``GET /system/df``: what the caller's things take; ``type`` (since 1.42) chooses among them."""
    wanted = _usage_types(call)
    await look_quickly(call.services.disk)
    sizes = await call.services.disk.sizes()
    whole: JsonObject = {}
    if "image" in wanted:
        whole |= {
            "LayersSize": await call.services.store.images.layer_bytes(call.identity),
            "Images": await listed_images(call),
        }
    if "container" in wanted:
        whole["Containers"] = await _containers_usage(call, sizes)
    if "volume" in wanted:
        whole["Volumes"] = await _volumes_usage(call, sizes)
    if "build-cache" in wanted:
        _, cache_bytes = await call.services.builds.usage(call.identity)
        whole |= {"BuildCache": [], "BuilderSize": cache_bytes}
    return json_response(whole)


async def look_quickly(disk: DiskUse) -> None:
    """Have the sizes that can be had within a moment; of the others those that were known hold."""
    with trio.move_on_after(LOOK_SECONDS):
        await disk.look()


def _usage_types(call: Call) -> frozenset[str]:
    asked = frozenset(call.query.all("type"))
    for unknown in sorted(asked - set(USAGE_TYPES)):
        raise InvalidArgument(f"unknown object type: {unknown[:40]}", ", ".join(USAGE_TYPES))
    return asked or frozenset(USAGE_TYPES)


async def _containers_usage(call: Call, sizes: Sizes) -> list[JsonObject]:
    now, shown = now_ns(), list[JsonObject]()
    for keeper in call.services.containers.visible_to(call.identity):
        written = sizes.get((keeper.record.owner, CONTAINER, keeper.record.id), 0)
        shown.append(listed(seen(call, keeper, await with_layers(call, keeper, written)), now))
    return shown


async def _volumes_usage(call: Call, sizes: Sizes) -> list[JsonObject]:
    return [
        volume_view(call, volume)
        | {
            "UsageData": {
                "RefCount": len(volume.holders),
                "Size": sizes.get((volume.owner, VOLUME, volume.name), 0),
            }
        }
        for volume in await visible(call)
    ]
