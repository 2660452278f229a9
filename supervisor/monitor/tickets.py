"""Tickets: leave to start work, given in a fair order. With nobody in the way one costs microseconds.

Words: *brief* work (a container's start) holds its ticket for milliseconds, *lasting* work (a build's step) until it
ends. Each kind has a lane of its own, so that no start waits for somebody's long build.

Rules: no holder of a ticket waits for another ticket. A wait ends with the turn or with the one who waits; either way
nothing is left behind. Brief work that takes long is stuck, and no load: its ticket lapses, and takes nobody's turn any more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import attrs
import trio

from protocol.events import AdmissionWait
from protocol.samples import QueuedWork, Waiting
from supervisor.errors import BakehouseError, ResourceExhausted
from supervisor.events.journal import Events
from supervisor.monitor.admission import FairQueue, may_start
from supervisor.monitor.detect import CALM, Level, Verdict

LONG_WAIT_SECONDS = 2.0
BRIEF_SECONDS_MAX = 5.0
WAITING_PER_OWNER_MAX = 1_000


@attrs.define(eq=False)
class _Waiter:
    """One who waits. ``granted``: the ticket is theirs, also if they no longer want it."""

    what: str
    since: float
    turn: trio.Event = attrs.field(factory=trio.Event)
    granted: Ticket | None = None


@attrs.define(eq=False)
class Ticket:
    """One that was given; it counts until it is given back or lapses."""

    owner: int
    what: str
    since: float


class Lane:
    """The tickets of one kind of work: who holds them, who waits.

    Attributes:
        kind: What it is called.
        seconds_max: How long one counts.
    """

    def __init__(self, kind: str, tickets_max: int, seconds_max: float = math.inf) -> None:
        self.kind = kind
        self.held: Counter[int] = Counter()
        self.held_total = 0
        self.seconds_max = seconds_max
        self._tickets: dict[Ticket, None] = {}
        self.queue: FairQueue[_Waiter] = FairQueue()
        self._tickets_max = tickets_max
        self._verdict = CALM
        self._on_hold = False

    def may_take(self, owner: int) -> bool:
        """Whether a ticket could be given to this owner now, were nobody else waiting."""
        return may_start(
            Level.CRITICAL if self._on_hold else self._verdict.level,
            held=self.held_total,
            held_by_owner=self.held[owner],
            tickets_max=self._tickets_max,
        )

    def take(self, owner: int, what: str) -> Ticket:
        """The owner holds one more."""
        ticket = Ticket(owner, what, trio.current_time())
        self._tickets[ticket] = None
        self.held[owner] += 1
        self.held_total += 1
        return ticket

    def give_back(self, ticket: Ticket) -> None:
        """The work is over: what is free goes to those whose turn it is. A ticket that has lapsed was given back."""
        if ticket in self._tickets:
            self._drop(ticket)
            self.serve()

    def lapse(self) -> None:
        """Tickets that are held for too long count no more; the oldest stand first."""
        before = trio.current_time() - self.seconds_max
        for ticket in list(self._tickets):
            if ticket.since > before:
                break
            self._drop(ticket)

    def _drop(self, ticket: Ticket) -> None:
        del self._tickets[ticket]
        self.held[ticket.owner] -= 1
        if not self.held[ticket.owner]:
            del self.held[ticket.owner]
        self.held_total -= 1

    def judge(self, verdict: Verdict) -> None:
        """Go by this verdict from now on."""
        self._verdict = verdict
        self.serve()

    def hold(self, held: bool) -> None:
        """Give out one at a time, or as the verdict says again."""
        self._on_hold = held
        self.serve()

    def serve(self) -> None:
        """Give out what may be given."""
        self.lapse()
        while served := self.queue.pop(self.may_take):
            owner, waiter = served
            waiter.granted = self.take(owner, waiter.what)
            waiter.turn.set()

    def work(self) -> Iterator[QueuedWork]:
        """Who holds one, the first first, and who waits, in turn."""
        now, why = trio.current_time(), self.why()
        for ticket in self._tickets:
            yield QueuedWork(
                ticket.owner, ticket.what, self.kind, now - ticket.since, waiting=False
            )
        for owner, waiter in self.queue.in_turn():
            seconds = now - waiter.since
            yield QueuedWork(owner, waiter.what, self.kind, seconds, waiting=True, why=why)

    def why(self) -> str:
        """Why one waits, in words."""
        if self._verdict.level:
            return f"the host is {self._verdict.level.word}: {self._verdict.reason}"
        if self._on_hold:
            return "new builds are held back until the host has been calm for a while"
        return f"{self.held_total} of {self._tickets_max} tickets are held"


class Tickets:
    """Both lanes."""

    def __init__(
        self,
        events: Events,
        tickets_max: int,
        weight_of: Callable[[int], int],
        wake: Callable[[], None],
    ) -> None:
        """``wake`` is called when somebody begins to wait: the host must be looked at often from then on."""
        self._events = events
        self._weight_of = weight_of
        self._wake = wake
        self._brief = Lane("start", tickets_max, BRIEF_SECONDS_MAX)
        self._lasting = Lane("step", tickets_max)

    @property
    def count(self) -> Waiting:
        """How many are held and how many are waited for."""
        lanes = (self._brief, self._lasting)
        return Waiting(
            sum(lane.held_total for lane in lanes), sum(len(lane.queue) for lane in lanes)
        )

    def work(self) -> tuple[QueuedWork, ...]:
        """What works, then what waits; of each, starts first."""
        every = [*self._brief.work(), *self._lasting.work()]
        return tuple(sorted(every, key=lambda each: each.waiting))

    def judge(self, verdict: Verdict) -> None:
        """Go by this verdict from now on."""
        self._brief.judge(verdict)
        self._lasting.judge(verdict)

    def hold_builds(self, held: bool) -> None:
        """No lasting work begins beside other, whatever the verdict; or as the verdict says, again."""
        self._lasting.hold(held)

    @asynccontextmanager
    async def ticket(self, owner: int, what: str, *, lasting: bool) -> AsyncIterator[None]:
        """Hold a ticket; see ``Monitor.ticket``."""
        lane = self._lasting if lasting else self._brief
        waited = ""
        began = trio.current_time()
        if not lane.queue.waiting(owner) and lane.may_take(owner):
            ticket = lane.take(owner, what)
        else:
            waited = lane.why()
            ticket = await self._wait(lane, owner, what)
        try:
            seconds = trio.current_time() - began
            if waited and seconds >= LONG_WAIT_SECONDS:
                data = AdmissionWait(what=what, seconds=round(seconds, 3), reason=waited)
                with suppress(BakehouseError):  # what cannot be told must not stop the work
                    await self._events.emit(data, owner=owner, subject="admission")
            yield
        finally:
            lane.give_back(ticket)

    async def _wait(self, lane: Lane, owner: int, what: str) -> Ticket:
        """Wait for the turn; on return the ticket is held."""
        if lane.queue.waiting(owner) >= WAITING_PER_OWNER_MAX:
            raise ResourceExhausted(
                f"cannot start {what}: {WAITING_PER_OWNER_MAX} pieces of your work wait already",
                hint="try again when some of it is done",
            )
        waiter = _Waiter(what, trio.current_time())
        lane.queue.push(owner, self._weight_of(owner), waiter)
        self._wake()
        try:
            await waiter.turn.wait()
        except trio.Cancelled:
            if waiter.granted is not None:
                lane.give_back(waiter.granted)
            else:
                lane.queue.remove(owner, waiter)
            raise
        assert waiter.granted is not None
        return waiter.granted
