"""What of the events an administrator reads in the daemon's log, in which words and with which fields; pure.

Rules: what people choose (names, commands, messages) stands in quotes or last, shortened to one line; who something
belongs to is told by login name, and by uid in ``BAKEHOUSE_OWNER``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

import attrs

from protocol.events import (
    AccessRefuse,
    BuildCancel,
    BuildDone,
    BuildFail,
    BuildStart,
    ContainerDestroy,
    ContainerDie,
    ContainerGiveUp,
    ContainerOom,
    ContainerRemoveFail,
    ContainerStart,
    ContainerStartFail,
    Event,
    EventData,
    MonitorRelief,
    MonitorVerdict,
    OwnerAllot,
    OwnerLimit,
    OwnerResume,
    OwnerSuspend,
)
from protocol.messages import Want

Kind = TypeVar("Kind", bound=EventData)

TEXT_CHARACTERS_MAX = 300
SHORT_ID = 12
NANOSECONDS = 1_000_000_000


@attrs.frozen
class LogLine:
    """One line.

    Attributes:
        level: Of Python's logging.
        fields: For the journal of systemd.
    """

    level: int
    text: str
    fields: Mapping[str, str]


@attrs.frozen
class _Words:
    """How a kind is told: ``say`` gets the event, and the thing's name with its owner's."""

    say: Callable[[Event, str], str]
    level: int = logging.INFO


def _started(event: Event, thing: str) -> str:
    image = event.actor.attributes.get("image", "")
    return f"{thing} started" + (f" from {_one_line(image)}" if image else "")


def _died(event: Event, thing: str) -> str:
    data = _of(event, ContainerDie)
    told = [f"{thing} ended with code {data.exit_code}"]
    if data.oom:
        told.append("out of memory")
    if data.reason:
        told.append(_one_line(data.reason))
    if data.restart_after_ns:
        told.append(f"starts again in {data.restart_after_ns / NANOSECONDS:.1f} s")
    return ", ".join(told)


def _refused(event: Event, _: str) -> str:
    data = _of(event, AccessRefuse)
    times = f"{data.count} times " if data.count > 1 else ""
    return f"refused {times}by {data.rule}: {_one_line(data.message)}"


def _relieved(event: Event, _: str) -> str:
    data = _of(event, MonitorRelief)
    done = "taken back" if data.undone else "only decided" if data.dry_run else "done"
    what = f" to {_one_line(data.what)}" if data.what else ""
    return f"relief, {data.step}{what}: {done}: {_one_line(data.reason)}"


def _suspended(event: Event, _: str) -> str:
    reason = _of(event, OwnerSuspend).reason
    by = _one_line(event.actor.attributes.get("by", ""))
    return f"suspended by {by}" + (f": {_one_line(reason)}" if reason else "")


_TOLD: Mapping[type[EventData], _Words] = {
    ContainerStart: _Words(_started),
    ContainerDie: _Words(_died),
    ContainerOom: _Words(lambda _, thing: f"{thing} is out of memory", logging.WARNING),
    ContainerStartFail: _Words(
        lambda event, thing: (
            f"{thing} cannot be started: {_one_line(_of(event, ContainerStartFail).reason)}"
        ),
        logging.WARNING,
    ),
    ContainerGiveUp: _Words(lambda _, thing: f"{thing} is not started again"),
    ContainerDestroy: _Words(lambda _, thing: f"{thing} removed"),
    ContainerRemoveFail: _Words(
        lambda event, thing: (
            f"{thing} cannot be removed: {_one_line(_of(event, ContainerRemoveFail).reason)}"
        ),
        logging.WARNING,
    ),
    BuildStart: _Words(lambda _, thing: f"{thing} begun"),
    BuildDone: _Words(lambda event, thing: f"{thing} made {_of(event, BuildDone).image[:19]}"),
    BuildFail: _Words(
        lambda event, thing: f"{thing} failed: {_one_line(_of(event, BuildFail).message)}"
    ),
    BuildCancel: _Words(lambda _, thing: f"{thing} cancelled"),
    AccessRefuse: _Words(_refused, logging.WARNING),
    OwnerAllot: _Words(
        lambda event, _: f"ids from {_of(event, OwnerAllot).range_first} allotted to a new owner"
    ),
    OwnerSuspend: _Words(_suspended, logging.WARNING),
    OwnerResume: _Words(lambda *_: "may work again"),
    OwnerLimit: _Words(
        lambda event, _: (
            f"{_of(event, OwnerLimit).name} is {_of(event, OwnerLimit).value:g},"
            f" and was {_of(event, OwnerLimit).before:g}"
        )
    ),
    MonitorRelief: _Words(_relieved, logging.WARNING),
    MonitorVerdict: _Words(
        lambda event, _: (
            f"the host is {_of(event, MonitorVerdict).verdict}"
            f": {_one_line(_of(event, MonitorVerdict).reason)}"
        ),
        logging.WARNING,
    ),
}

_ABOUT_OWNERS = (AccessRefuse, OwnerAllot, OwnerSuspend, OwnerResume, OwnerLimit, MonitorRelief)
"""Told with the owner's name before it, but for relief that is done to all."""

TOLD = Want(types=tuple(kind.type for kind in _TOLD))
"""The kinds there are words for."""


def line_of(event: Event, owner: str) -> LogLine | None:
    """How an event is told, if it is. ``owner`` is its owner's login name."""
    words = _TOLD.get(type(event.data))
    if words is None:
        return None
    text = words.say(event, _thing(event, owner))
    to_all = isinstance(event.data, MonitorRelief) and not event.owner
    if isinstance(event.data, _ABOUT_OWNERS) and not to_all:
        text = f"{owner}: {text}"
    return LogLine(words.level, text, _fields(event))


def _thing(event: Event, owner: str) -> str:
    kind, _, _ = event.type.partition(".")
    name = event.actor.attributes.get("name", "") or event.subject[:SHORT_ID]
    return f"{kind} {_one_line(name)} of {owner}"


def _fields(event: Event) -> Mapping[str, str]:
    found = {"BAKEHOUSE_EVENT": event.type, "BAKEHOUSE_OWNER": str(event.owner)}
    kind, _, _ = event.type.partition(".")
    if kind == "container":
        found["BAKEHOUSE_CONTAINER"] = event.subject
        found["BAKEHOUSE_CONTAINER_NAME"] = event.actor.attributes.get("name", "")
    if kind == "build":
        found["BAKEHOUSE_BUILD"] = event.subject
    return found


def _of(event: Event, kind: type[Kind]) -> Kind:
    assert isinstance(event.data, kind)
    return event.data


def _one_line(text: str) -> str:
    """Nothing that would end the line, or move a terminal's cursor."""
    plain = "".join(each if each.isprintable() else " " for each in text)
    short = " ".join(plain.split())
    return (
        short if len(short) <= TEXT_CHARACTERS_MAX else f"{short[: TEXT_CHARACTERS_MAX - 1]}\u2026"
    )
