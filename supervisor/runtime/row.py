"""What is written down about one container, and the only way to change it.

Rules: nothing is seen before it is committed; writes take turns, so that no two of them start from the same state.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import attrs
import trio

from protocol.events import EventData
from supervisor.network.seat_ledger import Also
from supervisor.runtime.ledger import Ledger
from supervisor.runtime.records import ContainerRecord, ContainerState
from supervisor.runtime.status import Cause, advance


@attrs.frozen
class Step:
    """One change of a container's status: its cause, the events that tell it, and what else of the state changes."""

    cause: Cause
    events: Sequence[EventData]
    changes: Mapping[str, object]


class Row:
    """One container's row.

    Attributes:
        record: What the container is.
        state: What it has become.
    """

    def __init__(self, ledger: Ledger, record: ContainerRecord, state: ContainerState) -> None:
        self.record = record
        self.state = state
        self._ledger = ledger
        self._writing = trio.Lock()

    async def advance(
        self, cause: Cause, event: EventData, *more: EventData, **changes: object
    ) -> None:
        """The container's status changes by ``cause``; row and events are committed before anyone sees it.

        Raises:
            Conflict: A container of this status cannot go through that.
        """
        await self.settle(lambda _: Step(cause, (event, *more), changes))

    async def settle(self, choose: Callable[[ContainerState], Step]) -> None:
        """The same, where what happens depends on what the container is in the moment it is written.

        Raises:
            Conflict: A container of this status cannot go through that.
        """
        async with self._writing:
            step = choose(self.state)
            status = advance(self.state.status, step.cause)
            after = attrs.evolve(self.state, status=status, **step.changes)  # type: ignore[arg-type]  # checked by attrs
            await self._ledger.write(self.record, after, step.events)
            self.state = after

    async def note(self, *events: EventData, **changes: object) -> None:
        """Something of the state changes that is no matter of its status."""
        async with self._writing:
            after = attrs.evolve(self.state, **changes)  # type: ignore[arg-type]  # checked by attrs
            await self._ledger.write(self.record, after, events)
            self.state = after

    async def revise(
        self, change: Callable[[ContainerRecord], ContainerRecord], *events: EventData
    ) -> None:
        """The container is another from now on: renamed, or limited otherwise."""
        async with self._writing:
            revised = change(self.record)
            await self._ledger.write(revised, self.state, events)
            self.record = revised

    async def recast(
        self, record: ContainerRecord, write: Callable[[Also], Awaitable[None]] | None = None
    ) -> None:
        """The container is that from now on; ``write`` writes it together with what belongs to it."""
        if write is None:
            await self.revise(lambda _: record)
            return
        async with self._writing:
            state = self.state
            await write(lambda connection: self._ledger.rewrite(connection, record, state))
            self.record = record

    async def tell(self, *events: EventData) -> None:
        """Nothing of the container changed, but something happened to it."""
        await self._ledger.tell(self.record, *events)

    async def delete(self, *events: EventData) -> bool:
        """The container is gone; whether its layers have become needless with it."""
        async with self._writing:
            orphaned = await self._ledger.delete(self.record, events)
            status = advance(self.state.status, Cause.DESTROY)
            self.state = attrs.evolve(self.state, status=status)
        return orphaned
