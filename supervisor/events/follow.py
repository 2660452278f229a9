"""The journal as Docker's ``/events`` reads it: from a time, to a time, through Docker's filters."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping

import attrs
import trio

from protocol.events import Event
from supervisor import clock
from supervisor.errors import InvalidArgument
from supervisor.events.journal import Events

Filters = Mapping[str, Collection[str]]

_OBJECTS = (
    "container",
    "image",
    "network",
    "volume",
    "plugin",
    "config",
    "secret",
    "service",
    "node",
)
_SAYING_MORE = frozenset({"health_status", "exec_create", "exec_start"})
KNOWN_FILTERS = ("type", "event", "label", "scope", "daemon", *_OBJECTS)


@attrs.frozen
class Span:
    """Nanoseconds since 1970: entries from ``since_ns`` (None: from now on) to ``until_ns`` (None: for ever)."""

    since_ns: int | None = None
    until_ns: int | None = None


async def follow(
    events: Events, *, visible_to: int | None, span: Span, filters: Filters
) -> AsyncGenerator[Event, None]:
    """Every event Docker knows of, in order, as it happens; ends when ``span`` does.

    Raises:
        InvalidArgument: There is no such filter.
    """
    check_filters(filters)
    after = events.last_seq
    if span.since_ns is not None:
        after = await events.seq_before(span.since_ns)
    while True:
        page = await events.page(after, visible_to=visible_to)
        for event in page.events:
            if span.until_ns is not None and event.time_ns > span.until_ns:
                return
            if accepts(event, filters):
                yield event
        at_end, after = page.upto == after, page.upto
        if at_end and not await _newer(events, after, span.until_ns):
            return


async def _newer(events: Events, after: int, until_ns: int | None) -> bool:
    """Wait for what comes after ``after``; False when the time is over first."""
    if until_ns is None:
        await events.wait_beyond(after)
        return True
    seconds = max(0.0, (until_ns - clock.now_ns()) / clock.NANOSECONDS_PER_SECOND)
    with trio.move_on_after(seconds) as scope:
        await events.wait_beyond(after)
    return not scope.cancelled_caught


def check_filters(filters: Filters) -> None:
    """Refuse a filter that does not exist.

    Raises:
        InvalidArgument: There is one.
    """
    for name in filters:
        if name not in KNOWN_FILTERS:
            raise InvalidArgument(
                f"cannot follow events: invalid filter '{name}'",
                hint=f"filters are {', '.join(KNOWN_FILTERS)}",
            )


def accepts(event: Event, filters: Filters) -> bool:
    """Whether the event is Docker's, and passes: any of one filter's values, all of the filters."""
    docker = event.data.docker_action()
    if docker is None:
        return False
    kind, action = docker
    tests: dict[str, Callable[[str], bool]] = {
        "type": lambda value: value == kind,
        "event": _happened(action, filters.get("event", ())),
        "scope": lambda value: value == "local",
        "image": lambda value: _about_image(event, kind, value),
    }
    for name in (*_OBJECTS, "daemon"):
        tests.setdefault(name, _about(event, kind, name))
    labels = filters.get("label", ())
    return all(_labelled(event.actor.attributes, value) for value in labels) and all(
        not values or any(map(tests[name], values))
        for name, values in filters.items()
        if name != "label"
    )


def _happened(action: str, values: Collection[str]) -> Callable[[str], bool]:
    """Docker's rule: where one is asked for whose action says more than its name, beginnings will do for all."""
    if _SAYING_MORE.isdisjoint(values):
        return action.__eq__
    return action.startswith


def _about(event: Event, kind: str, name: str) -> Callable[[str], bool]:
    """A test for events of things of the kind ``name``, by the beginning of an id or name."""
    known = (event.actor.id, event.actor.attributes.get("name", ""))
    return lambda value: kind == name and any(one.startswith(value) for one in known)


def _about_image(event: Event, kind: str, value: str) -> bool:
    """Docker's rule: an image by id or name, a container by the name of its image, tags left out if not asked for."""
    name = event.actor.attributes.get("name" if kind == "image" else "image", "")
    return value in {event.actor.id, name, _untagged(name)}


def _untagged(name: str) -> str:
    """``registry:5000/web`` of ``registry:5000/web:1``."""
    before, colon, tag = name.rpartition(":")
    return before if colon and "/" not in tag else name


def _labelled(attributes: Mapping[str, str], value: str) -> bool:
    key, equals, wanted = value.partition("=")
    return key in attributes and (not equals or attributes[key] == wanted)
