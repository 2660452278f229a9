"""The one line that tells how the daemon stands, kept true for the service manager.

Rules: it is told when it has changed and not otherwise, and at most once in ``PAUSE_SECONDS``; while nothing happens on
this host, nothing happens here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import attrs
import trio

from supervisor.events.journal import Events
from supervisor.linux.systemd import ServiceManager

PAUSE_SECONDS = 2.0
SETTLE_SECONDS = 0.2
"""An event is told by those whose state it changes, who need a moment to do so."""


@attrs.frozen
class Standing:
    """What runs.

    Attributes:
        containers: How many.
        builds: How many.
        owners: Whose all of them are.
    """

    containers: int = 0
    builds: int = 0
    owners: Collection[int] = ()

    def line(self) -> str:
        """In words; pure."""
        if not self.containers and not self.builds:
            return "ready: nothing runs"
        people = _counted(len(set(self.owners)), "person", "people")
        parts = [
            _counted(number, one, many)
            for number, one, many in (
                (self.containers, "container", "containers"),
                (self.builds, "build", "builds"),
            )
            if number
        ]
        return f"ready: {' and '.join(parts)} of {people}"


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


async def keep_told(
    manager: ServiceManager, events: Events, standing: Callable[[], Standing], told: str
) -> None:
    """Tell the service manager how we stand whenever that is no longer what was ``told``; until cancelled."""
    seen = events.last_seq
    while manager.listens:
        await events.wait_beyond(seen)
        seen = events.last_seq
        await trio.sleep(SETTLE_SECONDS)
        line = standing().line()
        if line != told:
            manager.status(line)
            told = line
            await trio.sleep(PAUSE_SECONDS)
