"""A journal entry as Docker's event message. Pure."""

from __future__ import annotations

from protocol.events import Event
from supervisor.api.http import JsonObject
from supervisor.clock import NANOSECONDS_PER_SECOND


def message(event: Event) -> JsonObject:
    """One line of ``GET /events``; the event must be one Docker knows."""
    docker = event.data.docker_action()
    assert docker is not None, event.type
    kind, action = docker
    whole: JsonObject = {
        "Type": kind,
        "Action": action,
        "Actor": {"ID": event.actor.id, "Attributes": dict(event.actor.attributes)},
        "scope": "local",
        "time": event.time_ns // NANOSECONDS_PER_SECOND,
        "timeNano": event.time_ns,
    }
    if kind in {"container", "image"}:  # the form before 1.22, which some clients still read
        whole |= {"status": action, "id": event.actor.id}
    if kind == "container":
        whole["from"] = event.actor.attributes.get("image", "")
    return whole
