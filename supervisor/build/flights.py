"""Work that several builds may want at once, done once.

Words: a *flight* is one vertex being carried out, by key; builds *join* it. The last to leave before it lands cancels
it, and waits until nothing of it is left.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import attrs
import trio

from supervisor.build.step_log import StepLog
from supervisor.errors import BakehouseError, Cancelled
from supervisor.monitor.samples import Who
from supervisor.tasks import finish_within

LEAVING_SECONDS = 60.0


@attrs.frozen
class Made:
    """What a step added.

    Attributes:
        layer: The layer; None when it changed nothing. Leased by its cache entry alone.
        made_ns: When.
        cached: It was there already.
        key: Its cache entry.
    """

    layer: str | None
    made_ns: int
    cached: bool
    key: str


@attrs.define(eq=False)
class Flight:
    """One vertex being carried out.

    Attributes:
        step_id: 32 hex digits; of its snapshot, cgroup, network seat.
        group: The cgroup of its command, while that runs.
        who: Whose it is, for the monitor.
    """

    key: str
    step_id: str
    log: StepLog
    group: str = ""
    who: Who | None = None
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    landed: trio.Event = attrs.field(factory=trio.Event)
    waiting: int = 0
    made: Made | None = None
    error: BakehouseError | None = None


Work = Callable[[Flight], Awaitable[Made]]


@attrs.define(eq=False)
class Flights:
    """All flights of this daemon."""

    _nursery: trio.Nursery
    _directory: Path
    _log_bytes_max: int
    _flying: dict[str, Flight] = attrs.field(factory=dict)

    def census(self) -> Mapping[str, Who]:
        """The cgroups of the commands that run now."""
        return {
            flight.group: flight.who for flight in self._flying.values() if flight.who is not None
        }

    async def join(
        self, key: str, step_id: str, work: Work, seen: Callable[[Flight], object]
    ) -> Made:
        """Wait for the work with this key, which is begun unless it is being done.

        Args:
            key: What makes it the same work.
            step_id: Names it, if it is begun.
            work: Does it.
            seen: Told the flight at once, for its log.

        Raises:
            BakehouseError: It failed; the same for all who joined.
        """
        flight = self._flying.get(key)
        if flight is None:
            flight = Flight(key, step_id, StepLog(self._directory, self._log_bytes_max))
            self._flying[key] = flight
            self._nursery.start_soon(self._fly, flight, work)
        flight.waiting += 1
        seen(flight)
        try:
            await flight.landed.wait()
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.landed.is_set():
                self._flying.pop(flight.key, None)
                flight.scope.cancel()
                with finish_within(LEAVING_SECONDS):
                    await flight.landed.wait()
        if flight.error is not None:
            raise flight.error
        if flight.made is None:
            msg = "cannot finish the step: it was cancelled"
            raise Cancelled(msg)
        return flight.made

    async def _fly(self, flight: Flight, work: Work) -> None:
        try:
            with flight.scope:
                try:
                    flight.made = await work(flight)
                except BakehouseError as error:
                    flight.error = error
        finally:
            if self._flying.get(flight.key) is flight:
                del self._flying[flight.key]
            flight.log.end()
            flight.landed.set()
