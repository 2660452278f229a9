"""Opening the containers: recovery first, then the little that is done for all of them together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from supervisor.runtime.containers import Containers
from supervisor.runtime.ledger import Ledger
from supervisor.runtime.log_tending import tend_logs
from supervisor.runtime.parts import Parts
from supervisor.runtime.recovery import Progress, recover, untold


@asynccontextmanager
async def open_containers(parts: Parts, progress: Progress = untold) -> AsyncIterator[Containers]:
    """The containers, with all that was left half done finished or undone; they live on when this ends.

    ``progress`` is told, now and then, how many of how many are recovered.
    """
    async with trio.open_nursery() as nursery:
        containers = Containers(parts, Ledger(parts.database, parts.events), nursery)
        await recover(containers, progress)
        nursery.start_soon(tend_logs, containers)
        yield containers
        nursery.cancel_scope.cancel()
