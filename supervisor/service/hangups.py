"""SIGHUP: read the settings again. Several that come while one is answered are one."""

from __future__ import annotations

import logging

import attrs
import trio

from supervisor.errors import BakehouseError
from supervisor.linux.systemd import ServiceManager
from supervisor.service.reload import Reloading

log = logging.getLogger(__name__)


@attrs.define(eq=False)
class Hangups:
    """Whether one has come that is not answered yet."""

    _come: trio.Event = attrs.field(factory=trio.Event)

    def come(self) -> None:
        """There is one."""
        self._come.set()

    async def answer(self, reread: Reloading, manager: ServiceManager) -> None:
        """Answer each until cancelled; settings that cannot be used are told in the log and in the status."""
        while True:
            await self._come.wait()
            self._come = trio.Event()
            try:
                await reread()
            except BakehouseError as error:
                log.error("%s", error.text())  # noqa: TRY400  # a fault of the file's, not of the program's
                manager.status(f"{reread.standing()}; settings not read again: {error.message}")
