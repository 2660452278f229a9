"""The keeper: the one task that owns one container, from its creation to its removal.

Words: a *change* is what callers ask for (start, stop, remove); it is done in the keeper's own nursery, so that a client
who goes away takes nothing with them. A *turn* is had by changes that exclude one another.

Rules: only the keeper writes its container's state, and publishes nothing before it is committed. A stuck change holds
up its own container alone. An expected failure ends in the change that met it and becomes its outcome; anything else is
a bug, and is let through.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import attrs
import trio

from protocol.events import (
    ContainerGiveUp,
    ContainerKill,
    ContainerPause,
    ContainerRemove,
    ContainerRename,
    ContainerRestart,
    ContainerStop,
    ContainerUnpause,
    ContainerUpdate,
)
from supervisor.access.requests import UpdateRequest
from supervisor.clock import NANOSECONDS_PER_SECOND, now_ns
from supervisor.errors import Conflict, NotFound
from supervisor.network.networks import Sandbox
from supervisor.runtime import restart
from supervisor.runtime.assembly import session_paths
from supervisor.runtime.changes import Changes
from supervisor.runtime.clients import Clients
from supervisor.runtime.endings import Exit
from supervisor.runtime.joining import Find
from supervisor.runtime.ledger import Ledger
from supervisor.runtime.parts import Parts
from supervisor.runtime.records import ContainerRecord, ContainerState
from supervisor.runtime.removal import remove_all
from supervisor.runtime.restart import Backoff
from supervisor.runtime.row import Row
from supervisor.runtime.runs import CLEANUP_SECONDS, CUT_OFF, Runs
from supervisor.runtime.signals import parse_signal
from supervisor.runtime.status import ACTIVE, Cause, Status, cannot_remove, check_runs
from supervisor.runtime.update import limits_between, updated
from supervisor.tasks import finish_within, first_of

T = TypeVar("T")

RESIZE = 1


@attrs.frozen
class Household:
    """What keepers need of whoever holds them all.

    Attributes:
        forgotten: Called when a container is removed.
        recovered: Set when all containers are: nothing is started by its policy before.
        beside: Done beside each run; see :class:`Runs`.
        find: Any container by its id, whoever's it is.
    """

    forgotten: Callable[[Keeper], None]
    recovered: trio.Event
    beside: Callable[[Keeper], Awaitable[None]]
    find: Find


class Keeper:
    """Owns one container. Its attributes may be read by anyone, and are changed here alone.

    Attributes:
        row: What is written down about the container.
        runs: Its runs.
        clients: Who is at its stdio.
        turn: Held by a change that excludes others.
        renaming: Held by whoever gives it another name.
    """

    def __init__(
        self,
        parts: Parts,
        ledger: Ledger,
        record: ContainerRecord,
        state: ContainerState,
        household: Household,
    ) -> None:
        self.parts = parts
        self.row = Row(ledger, record, state)
        self.runs = Runs(
            parts,
            self.row,
            lambda: self.nursery,
            self.after_run,
            lambda: household.beside(self),
            household.find,
        )
        self._household = household
        self._pause = trio.CancelScope()
        self._changes = Changes(record.id)
        self._nursery: trio.Nursery | None = None
        self.turn = trio.Lock()
        self.renaming = trio.Lock()
        self.clients = Clients(self.row, self.runs, session_paths(parts.run_root, record))

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the container until it is removed, or the daemon ends."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._changes.open(nursery)
                task_status.started()
                await self.gone.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._changes.close()
            self.runs.close()

    @property
    def record(self) -> ContainerRecord:
        """What the container is."""
        return self.row.record

    @property
    def state(self) -> ContainerState:
        """What it has become."""
        return self.row.state

    @property
    def sandbox(self) -> Sandbox | None:
        """What it has of networks during a run."""
        return self.parts.networks.sandbox(self.record.id)

    @property
    def log(self) -> Path:
        """The current file of its log."""
        return self.runs.log

    @property
    def group(self) -> str:
        """Its cgroup."""
        return self.runs.group

    @property
    def gone(self) -> trio.Event:
        """Set when the container is removed."""
        return self._changes.gone

    @property
    def nursery(self) -> trio.Nursery:
        """Where what belongs to this container runs."""
        assert self._nursery is not None
        return self._nursery

    @property
    def active(self) -> bool:
        """It runs, or will again by its restart policy."""
        return self.state.status in ACTIVE

    @property
    def alive(self) -> bool:
        """Its first process runs, or is paused."""
        return self.runs.alive

    async def perform(self, change: Callable[[], Awaitable[T]]) -> T:
        """Do a change; see :meth:`Changes.perform`."""
        return await self._changes.perform(change)

    # --- the life of a container -------------------------------------------------------------------------------

    async def start(self) -> bool:
        """The container runs; False if it did already."""
        async with self.turn:
            return await self._start()

    async def _start(self) -> bool:
        while self.runs.ending:
            await self.runs.ends.settled.wait()
        if self.active:  # also when it waits for its policy, as with dockerd
            return False
        await self.runs.start(Backoff())
        return True

    def after_run(self) -> None:
        """What follows the end of a run, or a start that failed."""
        if self.record.request.auto_remove:
            self._changes.begin(self._remove_after_run)
        elif self.state.status is Status.RESTARTING:
            self._changes.begin(self._start_again)

    def after_recovery(self) -> None:
        """The daemon was started: what does not run, and by its policy should, is begun to be started."""
        state = self.state
        cut_off = state.error == CUT_OFF
        begins = restart.at_daemon_start(
            self.record.request.restart,
            stopped=state.stopped,
            has_run=state.started_ns != 0,
            cut_off=cut_off,
        )
        if begins and state.status in {Status.EXITED, Status.CREATED}:
            backoff = state.backoff if cut_off else Backoff()
            self._changes.begin(lambda: self._start_anew(backoff))

    async def _start_anew(self, backoff: Backoff) -> None:
        async with self.turn:
            if self.state.status in {Status.EXITED, Status.CREATED}:
                await self.runs.start(backoff, by_policy=True)

    async def _start_again(self) -> None:
        """Start it by its policy when the back-off is over, unless somebody ends that."""
        backoff = self.state.backoff
        await self._household.recovered.wait()
        with trio.CancelScope() as self._pause:
            await trio.sleep(backoff.remaining_ns(now_ns()) / NANOSECONDS_PER_SECOND)
        async with self.turn:
            if self.state.status is not Status.RESTARTING or self.state.backoff != backoff:
                return
            if self.state.stopped or self.record.request.restart.name == "no":
                await self._give_up()
            else:
                await self.runs.start(backoff, by_policy=True)

    async def _give_up(self) -> bool:
        """It is not started by its policy; False if it was not to be. The caller has the turn."""
        if self.state.status is not Status.RESTARTING:
            return False
        await self.row.advance(Cause.GIVE_UP, ContainerGiveUp(), stopped=True)
        self._pause.cancel()
        self.runs.ends.tell(ran=True)
        return True

    async def started(self) -> None:
        """A start that is under way comes first, as with Docker: what runs may be heard before it is written down."""
        if self.state.status is Status.STARTING:
            async with self.turn:
                pass

    async def stop(self, grace_seconds: float, signal_number: int) -> bool:
        """The container does not run; False if it did not. After the grace it is killed."""
        await self.started()
        if not self.active:
            return False
        await self._bring_down(grace_seconds, signal_number)
        if self.state.status is Status.RESTARTING:
            async with self.turn:
                await self._give_up()
            await self._bring_down(grace_seconds, signal_number)  # it was started in that moment
        await self.row.tell(ContainerStop())
        return True

    async def _bring_down(self, grace_seconds: float, signal_number: int) -> None:
        """Its first process has ended, and its policy lets it be."""
        if not self.alive:
            return
        ended = self.runs.ends.exit
        with suppress(Conflict, NotFound):  # it ends by itself just now
            await self._kill(signal_number, stops=True)
            await self._thaw()
        with trio.move_on_after(grace_seconds):
            await ended.wait()
        if not ended.is_set() and signal_number != signal.SIGKILL:
            with suppress(Conflict):
                await self._kill(signal.SIGKILL, stops=True)
        await ended.wait()

    async def kill(self, signal_number: int) -> None:
        """The signal is sent to the first process; SIGKILL to all of them.

        As with dockerd, SIGKILL and the container's own stop signal end its restarts too, and wake it where it is paused; what
        waits to be restarted is sent no signal.

        Raises:
            Conflict: It does not run; Docker's wording.
        """
        stops = signal_number in {signal.SIGKILL, parse_signal(self.record.stop_signal)}
        if self.state.status is Status.RESTARTING:
            async with self.turn:
                if self.state.status is Status.RESTARTING:
                    if stops:
                        await self._give_up()
                    return
        await self._kill(signal_number, stops=stops)
        if stops and signal_number != signal.SIGKILL:
            with suppress(Conflict, NotFound):  # it has ended
                await self._thaw()

    async def _kill(self, signal_number: int, *, stops: bool) -> None:
        if not self.alive:
            raise Conflict(
                f"Cannot kill container: {self.record.name}: Container {self.record.id} is not running"
            )
        told = ContainerKill(signal=signal_number)
        await self.row.note(told, stopped=stops or self.state.stopped)
        await self.runs.signal(signal_number)

    async def restart(self, grace_seconds: float, signal_number: int) -> None:
        """It runs anew."""
        async with self.turn:
            if self.active:
                await self._bring_down(grace_seconds, signal_number)
                await self._give_up()
                await self.row.tell(ContainerStop())
            await self._start()
            await self.row.tell(ContainerRestart())

    async def pause(self) -> None:
        """All its processes are frozen.

        Raises:
            Conflict: It does not run, or is paused already.
        """
        async with self.turn:
            check_runs(self.record.id, self.state.status)
            if self.state.status is Status.PAUSED:
                raise Conflict(f"Container {self.record.id} is already paused")
            try:
                await self.runs.freeze(frozen=True)
            except NotFound as error:  # it ends just now
                raise Conflict(f"Container {self.record.id} is not running") from error
            await self.row.advance(Cause.PAUSE, ContainerPause())

    async def unpause(self) -> None:
        """They run again.

        Raises:
            Conflict: It is not paused.
        """
        async with self.turn:
            if self.state.status is not Status.PAUSED:
                raise Conflict(f"Container {self.record.id} is not paused")
            await self._thaw()

    def check_execs(self) -> None:
        """Let pass who wants to execute something in it now.

        Raises:
            Conflict: It does not run, or is paused; Docker's wording.
        """
        check_runs(self.record.id, self.state.status)
        if self.state.status is Status.PAUSED:
            raise Conflict(
                f"Container {self.record.name} is paused, unpause the container before exec"
            )

    async def _thaw(self) -> None:
        if self.state.status is Status.PAUSED:
            await self.runs.freeze(frozen=False)
            await self.row.advance(Cause.UNPAUSE, ContainerUnpause())

    @asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        """None of its processes does anything while the block runs. It is not paused: no status changes."""
        async with self.turn:
            if self.state.status is not Status.RUNNING:
                yield
                return
            try:
                with suppress(NotFound):  # it ends just now
                    await self.runs.freeze(frozen=True)
                yield
            finally:
                with finish_within(CLEANUP_SECONDS), suppress(NotFound):
                    await self.runs.freeze(frozen=False)

    async def rename(self, name: str) -> None:
        """It has another name; the caller has seen to it that the name is free."""
        told = ContainerRename(old_name=self.record.name, new_name=name)
        await self.row.revise(lambda record: attrs.evolve(record, name=name), told)
        await self.parts.networks.rename(self.record.id, name)

    async def update(self, request: UpdateRequest) -> None:
        """It is limited otherwise from now on, also while it runs.

        Raises:
            Conflict: It is being removed, or uses more already than it is to have.
            InvalidArgument: It makes no sense; every fault is told.
        """
        async with self.turn:
            if self.state.status in {Status.REMOVING, Status.DEAD}:
                raise Conflict(
                    f"Cannot update container {self.record.id}: "
                    'Container is marked for removal and cannot be "update".'
                )
            revised = updated(self.record, request, self.parts.host)
            before, after = self.record.request.resources, revised.request.resources
            limits = limits_between(before, after, self.parts.config.runtime.pids_max)
            if self.alive:
                with suppress(NotFound):  # it ends just now
                    await self.parts.tree.limit(self.record.owner, self.group, limits)
            await self.row.revise(
                lambda record: attrs.evolve(record, request=revised.request), ContainerUpdate()
            )

    async def remove(self, *, force: bool, volumes: bool) -> None:
        """It is gone, with all it held; its anonymous volumes too where ``volumes`` says so.

        Raises:
            Conflict: It runs and ``force`` does not hold, or it is being removed; Docker's wording.
        """
        if self.state.status is Status.REMOVING:
            raise Conflict(f"removal of container {self.record.id} is already in progress")
        async with self.turn:
            if self.active and not force:
                raise Conflict(cannot_remove(self.record.id, self.state.status))
            await self._bring_down(0, signal.SIGKILL)
            if not self.gone.is_set():
                await self._remove(volumes=volumes)

    async def _remove_after_run(self) -> None:
        """``--rm``: remove, unless somebody else does."""
        async with self.turn:
            if self.state.status in {Status.EXITED, Status.CREATED}:
                await self._remove(volumes=True)

    async def _remove(self, *, volumes: bool) -> None:
        await self.row.advance(Cause.REMOVE, ContainerRemove(), volumes_too=volumes)
        await self.finish_removal()

    async def finish_removal(self) -> None:
        """From ``removing`` on; also what recovery does."""
        runs = self.runs
        orphaned = await remove_all(self.parts, self.row, runs.log.parent, bare=runs.bare)
        runs.waiting.give_up()
        self._household.forgotten(self)
        self.gone.set()
        if orphaned:  # done to its end, although the nursery this runs in ends with the container
            await self.parts.store.layers.collect()

    # --- those who look on -------------------------------------------------------------------------------------

    async def wait(self, condition: str) -> Exit:
        """The exit of a run: ``not-running`` (at once if none runs), ``next-exit``, or ``removed``.

        As with dockerd a start that fails is no exit, and what kept it from running is no failure of its removal.
        """
        if condition == "removed":
            await self.gone.wait()
            return Exit(self.state.exit_code)
        if condition == "next-exit":
            await first_of(self.runs.ends.exit, self.gone)
        elif self.active or self.state.status is Status.STARTING:
            await first_of(self.runs.ends.settled, self.gone)
        return Exit(self.state.exit_code, self.state.error)

    def hosts(self, ended: trio.Event) -> bool:
        """An exec begins, and will set ``ended``; False when the run is over or ends just now."""
        return self.runs.hosts(ended)
