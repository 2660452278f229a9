"""The daemon's log tells the events that an administrator wants to read, from where the last daemon's ended."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from supervisor.errors import BakehouseError
from supervisor.events.journal import Events
from supervisor.linux.journald import FIELDS
from supervisor.service.log_lines import TOLD, line_of

OWNERS_MAX = 4_096

log = logging.getLogger(__name__)


async def log_events(events: Events, after: int, name_of: Callable[[int], Awaitable[str]]) -> None:
    """Tell every event beyond ``after`` that has words, in order; until cancelled.

    Args:
        events: The journal.
        after: A place in it.
        name_of: The login name of an owner.
    """
    names: dict[int, str] = {}
    while True:
        page = await events.page(after, visible_to=None, want=TOLD)
        for event in page.events:
            if event.owner not in names:
                if len(names) >= OWNERS_MAX:
                    names.clear()
                names[event.owner] = await _named(event.owner, name_of)
            line = line_of(event, names[event.owner])
            if line is not None:
                log.log(line.level, "%s", line.text, extra={FIELDS: line.fields})
        if page.upto == after:
            await events.wait_beyond(after)
        after = page.upto


async def _named(owner: int, name_of: Callable[[int], Awaitable[str]]) -> str:
    try:
        return await name_of(owner)
    except BakehouseError:
        return f"uid {owner}"
