"""Our own API beside the stream: how the host is."""

from __future__ import annotations

import cattrs

from supervisor.api.call import Call
from supervisor.api.http import Response, json_response


async def reload(call: Call) -> Response:
    """``POST /bakehouse/v1/reload``: read the settings again; which changed, and which wait for a restart."""
    found = await call.services.reread()
    return json_response({"changed": list(found.changed), "waiting": list(found.waiting)})


def monitor(call: Call) -> Response:
    """``GET /bakehouse/v1/monitor``: the newest sample, of what the caller may see; null before the first."""
    sample = call.services.monitor.latest()
    if sample is not None and not call.identity.admin:
        sample = sample.visible_to(call.identity.owner)
    return json_response(cattrs.unstructure(sample))


def queue(call: Call) -> Response:
    """``GET /bakehouse/v1/queue``: what works and what waits, in turn; users are told how much there is of others'."""
    found = call.services.monitor.queue()
    if not call.identity.admin:
        found = found.visible_to(call.identity.owner)
    return json_response(cattrs.unstructure(found))


def health(call: Call) -> Response:
    """``GET /bakehouse/v1/health``: the daemon answers, and what the monitor thinks of the host."""
    verdict = call.services.monitor.verdict()
    return json_response(
        {
            "status": "ok",
            "version": call.services.facts.version,
            "verdict": verdict.level.word,
            "reason": verdict.reason,
            "epoch": call.services.events.epoch,
            "last_seq": call.services.events.last_seq,
        }
    )
