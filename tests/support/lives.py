"""Whether the journal tells lives: every number once, and of each container what can follow what it told before."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from tests.support.daemon import Daemon

Event = Mapping[str, object]

AFTER = {
    None: {"container.create"},
    "container.create": {"container.start", "container.destroy"},
    "container.start": {"container.die"},
    "container.die": {"container.start", "container.destroy"},
    "container.destroy": set(),
}
"""Which event of a container's life may follow which."""


def told(daemon: Daemon) -> list[Event]:
    """Everything its journal tells, as an administrator sees it."""
    lines = daemon.bakehouse("events", "--from", "oldest", "--json").stdout.splitlines()
    return [json.loads(line) for line in lines]


def gaps(events: Sequence[Event]) -> list[str]:
    """The numbers that do not follow the one before."""
    numbers = [event["seq"] for event in events]
    return [
        f"{number} stands where {wanted} should"
        for wanted, number in enumerate(numbers, 1)
        if number != wanted
    ][:1]


def broken_lives(events: Sequence[Event]) -> Iterator[str]:
    """Containers whose events do not make a life, from their creation to their end."""
    latest: dict[str, str | None] = {}
    for event in events:
        kind, subject = str(event["type"]), str(event["subject"])
        if kind not in AFTER:
            continue
        before = latest.get(subject)
        if kind not in AFTER[before]:
            yield f"{subject[:12]}: {kind} (seq {event['seq']}) after {before}"
        latest[subject] = kind
    yield from (
        f"{subject[:12]} ends with {kind}"
        for subject, kind in latest.items()
        if kind != "container.destroy"
    )
