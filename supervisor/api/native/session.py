"""The way from a request to the event stream: who is asking, and what they may see beside events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import attrs

from supervisor.api.call import Call
from supervisor.api.docker.container_list import seen
from supervisor.api.docker.images import listed_images
from supervisor.api.docker.networks import view as network_view
from supervisor.api.docker.view_container import listed
from supervisor.api.http import HttpRefusedError
from supervisor.api.native.stream import Subscriber, serve_stream
from supervisor.api.streams import ReplayStream
from supervisor.clock import now_ns
from supervisor.monitor.monitor import Tick


async def stream(call: Call) -> None:
    """``GET /bakehouse/v1/stream``, upgraded to a websocket."""
    if call.head.upgrade() != "websocket":
        raise HttpRefusedError(
            426, "the event stream is a websocket: upgrade the connection to one"
        )
    visible_to = None if call.identity.admin else call.identity.owner
    subscriber = Subscriber(visible_to, lambda: _samples(call), lambda: _snapshot(call))
    wire = ReplayStream(call.connection.take_over(), call.head.raw)
    await serve_stream(wire, call.connection.descriptor, subscriber, call.hub)


async def _samples(call: Call) -> AsyncIterator[Tick]:
    async for tick in call.services.monitor.samples():
        if call.identity.admin:
            yield tick
        else:
            yield attrs.evolve(tick, sample=tick.sample.visible_to(call.identity.owner))


async def _snapshot(call: Call) -> Mapping[str, object]:
    """What there is now, in the forms the Engine API lists it."""
    now = now_ns()
    keepers = call.services.containers.visible_to(call.identity)
    networks = call.services.networks.list(call.identity)
    return {
        "containers": [listed(seen(call, keeper), now) for keeper in keepers],
        "images": await listed_images(call),
        "networks": [network_view(network, with_members=True) for network in networks],
    }
