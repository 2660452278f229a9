"""One pair of eyes for all: a single loop looks at the host, its owners and their containers, and everybody reads that.

Words: see ``samples`` (reading, sample), ``detect`` (verdict) and ``admission`` (ticket). A *tick* is one look.

Rules: the loop looks every ``tick_seconds`` while somebody reads samples, work waits or the verdict is not calm; else
only at the host, every ``idle_tick_seconds``. PSI triggers wake it early. A reader has a place in the series, not a
queue: who is slow gets the newest and is told how many were skipped.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import attrs
import trio

from protocol.events import MonitorVerdict
from protocol.samples import HostSample, Queue
from supervisor.config import MonitorConfig
from supervisor.errors import BakehouseError, Unavailable
from supervisor.events.journal import Events
from supervisor.linux import pressure
from supervisor.linux.cgroup import Cgroups
from supervisor.monitor import samples
from supervisor.monitor.detect import CALM, FALL_SECONDS, Figures, Level, Verdict, judge
from supervisor.monitor.relieving import Hands, Relief
from supervisor.monitor.samples import GroupSample, HostReading, Reading, Who
from supervisor.monitor.tickets import Tickets
from supervisor.tasks import in_thread

__all__ = ["Monitor", "Tick", "Who", "open_monitor"]

WARM_UP_SECONDS = 0.25
OVERDUE_SECONDS = 5.0
"""Between the two looks that give the first rates when somebody begins to read."""
INTEREST_TICKS = 3
"""A reader who is busy with the last sample for this many ticks still counts as reading."""
TRIGGERS = (
    ("memory", False, 200_000),
    ("memory", True, 100_000),
    ("io", True, 600_000),
)
"""Which stalls wake the loop: resource, ``full``, microseconds of two seconds."""

Census = Callable[[], Mapping[str, Who]]


@attrs.frozen
class Tick:
    """What one look told.

    Attributes:
        number: Counts looks.
        sample: As it goes over the wire; all owners', see ``HostSample.visible_to``.
        before: The counters of the look before, for those who make rates of their own.
        now: The counters of this look.
        skipped: Looks the reader missed since the last one.
    """

    number: int
    sample: HostSample
    before: Reading | None
    now: Reading
    skipped: int = 0


def _nobody() -> Mapping[str, Who]:
    return {}


class Monitor:
    """What the host is doing, and whose turn it is."""

    def __init__(
        self,
        events: Events,
        cgroups: Cgroups,
        config: MonitorConfig,
        weight_of: Callable[[int], int],
    ) -> None:
        self._events = events
        self._cgroups = cgroups
        self._config = config
        self._census: Census = _nobody
        self._tick: Tick | None = None
        self._told = trio.Event()
        self._wake = trio.Event()
        self._readers = 0
        self._interest_until = 0.0
        self._looked_at = 0.0
        self._verdict = CALM
        self._figures: deque[Figures] = deque(maxlen=config.history_samples_max)
        tickets_max = config.tickets_max or 2 * (os.cpu_count() or 1)
        self._tickets = Tickets(events, tickets_max, weight_of, self._rouse)
        self._relief = Relief(
            events, weight_of, self._tickets.hold_builds, dry_run=config.relief_dry_run
        )

    def configure(self, config: MonitorConfig) -> None:
        """Look by other marks, and as often as they say, from the next look on."""
        self._config = config
        self._rouse()

    async def beat(self) -> None:
        """Return when the loop has looked as lately as it should have."""
        while (
            trio.current_time() > self._looked_at + self._config.idle_tick_seconds + OVERDUE_SECONDS
        ):
            await self._told.wait()
        await trio.lowlevel.checkpoint()

    def watch(self, census: Census) -> None:
        """Ask ``census`` for the groups to look at: containers' and builds', by name of the group."""
        self._census = census

    def equip(self, hands: Hands) -> None:
        """Let ``hands`` do what is decided about owners' groups."""
        self._relief.equip(hands)

    def ticket(
        self, owner: int, what: str, *, lasting: bool = False
    ) -> AbstractAsyncContextManager[None]:
        """Leave to start work, held as long as the context; waits for the owner's fair turn.

        Args:
            owner: Whose work it is.
            what: In words: ``container web``, ``step 3 of build ab12``.
            lasting: The ticket is held for all of the work (a build's step), not only for its start.

        Raises:
            ResourceExhausted: Far too much of the owner's work waits already.
        """
        return self._tickets.ticket(owner, what, lasting=lasting)

    def latest(self) -> HostSample | None:
        """The newest sample; up to ``idle_tick_seconds`` old when nobody has been reading."""
        return self._tick.sample if self._tick else None

    def verdict(self) -> Verdict:
        """What the monitor thinks of the host."""
        return self._verdict

    @property
    def relief(self) -> tuple[str, ...]:
        """The steps of relief that stand, the mildest first."""
        return self._relief.standing

    def queue(self) -> Queue:
        """Who works, who waits for what, and why; everybody's."""
        verdict = self._verdict
        return Queue(verdict.level.word, verdict.reason, self.relief, self._tickets.work())

    async def sample(self, group: str) -> GroupSample:
        """Look at one group now.

        Raises:
            NotFound: No such group.
        """
        return await in_thread(lambda: self._look_at(group))

    def samples(self) -> Samples:
        """Every sample from the next one on, the newest first when the reader is late."""
        return Samples(self)

    async def after(self, number: int) -> Tick:
        """The newest tick, once there is one beyond ``number``; see :meth:`samples`."""
        self._readers += 1
        self._rouse()
        try:
            while self._tick is None or self._tick.number <= number:
                await self._told.wait()
            return self._tick
        finally:
            self._readers -= 1
            self._interest_until = trio.current_time() + INTEREST_TICKS * self._config.tick_seconds

    @property
    def ticks(self) -> int:
        """How many looks there have been."""
        return self._tick.number if self._tick else 0

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """The one loop."""
        await self._look()
        task_status.started()
        while True:
            await self._until_due()
            await self._look()

    async def run_trigger(self, resource: str, *, full: bool, stalled_microseconds: int) -> None:
        """Look early when the kernel says that much was waited."""
        path = Path("/proc/pressure") / resource
        try:
            async with pressure.open_trigger(
                path, stalled_microseconds=stalled_microseconds, full=full
            ) as trigger:
                while True:
                    await trigger.wait()
                    self._interest_until = trio.current_time() + FALL_SECONDS
                    self._rouse()
        except Unavailable:  # no PSI here: the ticks alone must do
            return

    def _rouse(self) -> None:
        self._wake.set()

    def _watched(self) -> bool:
        """Whether anybody wants to know now."""
        return (
            self._readers > 0
            or self._verdict.level is not Level.CALM
            or self._relief.active
            or self._tickets.count.waiting > 0
            or trio.current_time() < self._interest_until
        )

    async def _until_due(self) -> None:
        """Wait for the next look, which comes sooner when somebody begins to be interested."""
        while True:
            watched = self._watched()
            every = self._config.tick_seconds if watched else self._config.idle_tick_seconds
            due = self._looked_at + every
            self._wake = trio.Event()
            with trio.move_on_at(due):
                await self._wake.wait()
            if trio.current_time() >= due:
                return

    async def _look(self) -> None:
        """One tick: read, judge, tell."""
        watched = self._watched()
        before = self._tick.now if self._tick else None
        now = await self._read(self._census() if watched else {})
        if now.groups and (before is None or not before.groups):
            await trio.sleep(WARM_UP_SECONDS)
            before, now = now, await self._read(self._census())
        self._looked_at = trio.current_time()
        await self._judge(now)
        if self._config.relief:
            await self._relief.consider(self._verdict, before, now, self._looked_at)
        sample = samples.host_sample(
            before, now, self._verdict.level.word, self._verdict.reason, self._tickets.count
        )
        self._tick = Tick(self.ticks + 1, sample, before, now)
        self._told.set()
        self._told = trio.Event()

    async def _judge(self, now: Reading) -> None:
        """Form the verdict anew, let admission go by it, and tell a change."""
        self._figures.append(_figures(now))
        before = self._verdict
        self._verdict = judge(self._figures, before, self._config)
        self._tickets.judge(self._verdict)
        if self._verdict.level != before.level:
            data = MonitorVerdict(verdict=self._verdict.level.word, reason=self._verdict.reason)
            with suppress(BakehouseError):  # a full disk must not blind us; samples tell it too
                await self._events.emit(data, owner=0, subject="host")

    async def _read(self, census: Mapping[str, Who]) -> Reading:
        """Look, in a thread, at the host and at a copy of the census."""
        asked = dict(census)
        return await in_thread(
            lambda: Reading(self._host(), samples.read_groups(self._cgroups, asked), asked)
        )

    def _look_at(self, group: str) -> GroupSample:
        return samples.beside(self._host(), self._cgroups.sample(group))

    def _host(self) -> HostReading:
        return samples.within(samples.read_host(), self._cgroups.room())


class Samples:
    """One reader's place in the series: ``async for tick in monitor.samples()``. Nothing to close."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._number = monitor.ticks

    def __aiter__(self) -> Samples:
        return self

    async def __anext__(self) -> Tick:
        tick = await self._monitor.after(self._number)
        skipped = tick.number - self._number - 1
        self._number = tick.number
        return attrs.evolve(tick, skipped=skipped)


def _figures(now: Reading) -> Figures:
    host = now.host
    total = host.memory_total_bytes
    return Figures(
        seconds=host.time_ns / samples.NANOSECONDS,
        memory_some_percent=samples.some_percent(host.pressure.memory),
        memory_full_percent=samples.full_percent(host.pressure.memory),
        io_full_percent=samples.full_percent(host.pressure.io),
        memory_available_percent=100.0 * host.memory_available_bytes / total if total else 100.0,
    )


def _equal(_owner: int) -> int:
    return 100


@asynccontextmanager
async def open_monitor(
    events: Events,
    cgroups: Cgroups,
    config: MonitorConfig,
    *,
    census: Census = _nobody,
    weight_of: Callable[[int], int] = _equal,
    triggers: Sequence[tuple[str, bool, int]] = TRIGGERS,
) -> AsyncIterator[Monitor]:
    """Begin to look. Open means there is a first sample of the host.

    Args:
        events: Where verdicts and long waits are told.
        cgroups: Where groups are looked up.
        config: How often, and which marks.
        census: See :meth:`Monitor.watch`.
        weight_of: An owner's weight in admission; 100 is normal.
        triggers: What wakes the loop early.
    """
    monitor = Monitor(events, cgroups, config, weight_of)
    monitor.watch(census)
    async with trio.open_nursery() as nursery:
        await nursery.start(monitor.run)
        for resource, full, stalled in triggers:
            nursery.start_soon(_trigger, monitor, resource, full, stalled)
        yield monitor
        nursery.cancel_scope.cancel()


async def _trigger(monitor: Monitor, resource: str, full: bool, stalled: int) -> None:
    await monitor.run_trigger(resource, full=full, stalled_microseconds=stalled)
