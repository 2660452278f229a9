"""Reading the settings again while the daemon runs: on SIGHUP, or when an administrator asks.

Rules: a faulty file changes nothing and tells all its faults; what changed, and what waits for a restart, is an event.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import attrs
import trio

from protocol.events import DaemonReload
from supervisor.access.owner_limits import check_defaults
from supervisor.config import Config
from supervisor.linux.systemd import ServiceManager
from supervisor.reloading import Reread, compare
from supervisor.runtime.parts import Parts
from supervisor.runtime.recovery import limit_owners
from supervisor.tasks import in_thread

ROOT = 0

log = logging.getLogger(__name__)


@attrs.define(eq=False)
class Reloading:
    """One reading at a time.

    Attributes:
        parts: Who holds settings, and limits owners by them.
        read: Reads the file and the command line as at the start.
        manager: Is told while it lasts.
        standing: The line it is told after that.
    """

    parts: Parts
    read: Callable[[], Config]
    manager: ServiceManager
    standing: Callable[[], str]
    _turn: trio.Lock = attrs.field(factory=trio.Lock)

    async def __call__(self) -> Reread:
        """Read the settings and let those hold that may change.

        Raises:
            NotFound, InvalidArgument: See :func:`supervisor.config.load`; nothing has changed.
        """
        async with self._turn:
            self.manager.reloading()
            try:
                return await self._reload()
            finally:
                self.manager.ready(self.standing())

    async def _reload(self) -> Reread:
        parts = self.parts
        wanted = await in_thread(self.read)
        check_defaults(wanted.owner)
        found = compare(parts.config, wanted)
        found.settle(parts.config)
        parts.events.config = parts.config.journal
        parts.audit.configure(parts.config)
        parts.monitor.configure(parts.config.monitor)
        if any(name.startswith("owner.") for name in found.changed):
            await limit_owners(parts)
        data = DaemonReload(found.changed, found.waiting)
        await parts.events.emit(data, owner=ROOT, subject=parts.events.epoch)
        log.info("settings read again; %s", told(found))
        return found


def told(found: Reread) -> str:
    """In words; pure."""
    said = [f"changed: {', '.join(found.changed) or 'nothing'}"]
    if found.waiting:
        said.append(f"after a restart: {', '.join(found.waiting)}")
    return "; ".join(said)
