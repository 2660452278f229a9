"""Opening services one after the other, and telling the service manager which; at the end, which is waited for."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TypeVar

from supervisor.linux.systemd import ServiceManager

T = TypeVar("T")

STEP_SECONDS_MAX = 120.0
"""How long one step of the start may take before the service manager gives us up."""


class Rungs:
    """The rungs of one ladder; they are left in reverse by the stack they stand on."""

    def __init__(self, stack: AsyncExitStack, manager: ServiceManager) -> None:
        self._stack = stack
        self._manager = manager

    async def opened(self, name: str, service: AbstractAsyncContextManager[T]) -> T:
        """Open a service, called ``name`` in what is told."""
        self._manager.starting(f"opening {name}", STEP_SECONDS_MAX)
        made = await self._stack.enter_async_context(service)
        self._stack.callback(self._manager.status, f"stopping: waiting for {name}")
        return made
