"""Opening the containers: recovery first, then the little that is done for all of them together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from supervisor.runtime.containers import Containers
from supervisor.runtime.ledger import Ledger
from supervisor.runtime.parts import Parts
from supervisor.runtime.recovery import recover

LOG_TENDING_SECONDS = 5.0


@asynccontextmanager
async def open_containers(parts: Parts) -> AsyncIterator[Containers]:
    """The containers, with all that was left half done finished or undone; they live on when this ends."""
    async with trio.open_nursery() as nursery:
        containers = Containers(parts, Ledger(parts.database, parts.events), nursery)
        await recover(containers)
        nursery.start_soon(_tend_logs, containers)
        yield containers
        nursery.cancel_scope.cancel()


async def _tend_logs(containers: Containers) -> None:
    """Keep the logs of those that run within their bound."""
    while True:
        await trio.sleep(LOG_TENDING_SECONDS)
        for keeper in containers.every():
            if keeper.alive:
                await keeper.tend_log()
