"""The keeper: the one task that owns one container, from its creation to its removal.

Words: a *run* is the time from a start to the end of the first process. A *change* is what callers ask for (start,
stop, remove); it is done in the keeper's own nursery, so that a client who goes away takes nothing with them.

Rules: only the keeper writes its container's state, and publishes nothing before it is committed. Changes that exclude
one another take turns; a stuck one holds up its own container alone. An expected failure ends in the change that met it
and becomes its outcome; anything else is a bug, and is let through.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import attrs
import trio

from protocol.events import (
    ContainerDestroy,
    ContainerDie,
    ContainerKill,
    ContainerOom,
    ContainerPause,
    ContainerRename,
    ContainerResize,
    ContainerRestart,
    ContainerStart,
    ContainerStop,
    ContainerUnpause,
    EventData,
)
from supervisor.clock import now_ns
from supervisor.errors import BakehouseError, Conflict, Internal, ResourceExhausted
from supervisor.network.networks import Endpoint
from supervisor.runtime.assembly import Surroundings, assemble, dismantle, log_path, session_paths
from supervisor.runtime.attach import Attachment, AttachRequest
from supervisor.runtime.cgroup_tree import container_group, monitors_group
from supervisor.runtime.conmon import SessionInputs, control, open_session
from supervisor.runtime.endings import Ending, await_ending
from supervisor.runtime.ledger import Ledger
from supervisor.runtime.parts import Parts
from supervisor.runtime.processes import identify, open_process, send_signal, wait_end
from supervisor.runtime.records import ContainerRecord, ContainerState, ProcessIdentity
from supervisor.runtime.status import ALIVE, Cause, Status, advance
from supervisor.tasks import finish_within, in_thread

T = TypeVar("T")

CHANGES_WAITING_MAX = 64
CLEANUP_SECONDS = 30.0
LOG_CUT_FACTOR = 4
RESIZE, REOPEN_LOG = 1, 2


@attrs.frozen
class Exit:
    """How a run ended. ``error`` says why a code is not known."""

    code: int
    error: str = ""


@attrs.define
class _Outcome(Generic[T]):
    """What became of a change, for whoever waits for it."""

    done: trio.Event = attrs.field(factory=trio.Event)
    value: list[T] = attrs.field(factory=list)
    error: BakehouseError | None = None


class Keeper:
    """Owns one container. Its attributes may be read by anyone, and are changed here alone.

    Attributes:
        record: What the container is.
        state: What it has become.
        endpoint: Its place in the network during a run.
        gone: Set when it is removed.
        log: The current file of its log.
        group: Its cgroup.
    """

    def __init__(
        self,
        parts: Parts,
        ledger: Ledger,
        record: ContainerRecord,
        state: ContainerState,
        forgotten: Callable[[Keeper], None],
    ) -> None:
        self.record = record
        self.state = state
        self.endpoint: Endpoint | None = None
        self.gone = trio.Event()
        self._forgotten = forgotten
        self.parts = parts
        self._ledger = ledger
        self._nursery: trio.Nursery | None = None
        self._turn = trio.Lock()
        self._writing = trio.Lock()
        self._waiting = 0
        self._pidfd: int | None = None
        self._next_exit = trio.Event()
        self._attachments: set[Attachment] = set()
        self._attach_socket = session_paths(parts.run_root, record).attach_socket
        self.log = log_path(parts.data_root, record)
        self.group = container_group(record.owner, record.id)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the container until it is removed, or the daemon ends."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await self.gone.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._close_pidfd()

    @property
    def nursery(self) -> trio.Nursery:
        """Where what belongs to this container runs."""
        assert self._nursery is not None
        return self._nursery

    @property
    def alive(self) -> bool:
        """Its first process runs, or is paused."""
        return self.state.status in ALIVE

    async def perform(self, change: Callable[[], Awaitable[T]]) -> T:
        """Do ``change`` in the keeper's nursery and wait for it; it goes on if the caller does not.

        Raises:
            BakehouseError: What the change raised.
            ResourceExhausted: Too many changes wait for this container.
        """
        if self._waiting >= CHANGES_WAITING_MAX:
            raise ResourceExhausted(
                f"cannot change container {self.record.name}: {CHANGES_WAITING_MAX} changes already wait for it"
            )
        outcome: _Outcome[T] = _Outcome()
        self._waiting += 1
        self.nursery.start_soon(self._settle, change, outcome)
        await outcome.done.wait()
        if outcome.error is not None:
            raise outcome.error
        return outcome.value[0]

    async def _settle(self, change: Callable[[], Awaitable[T]], outcome: _Outcome[T]) -> None:
        try:
            outcome.value.append(await change())
        except BakehouseError as error:
            outcome.error = error
        finally:
            self._waiting -= 1
            outcome.done.set()

    # --- the life of a container -------------------------------------------------------------------------------

    async def start(self) -> bool:
        """The container runs; False if it did already."""
        async with self._turn:
            return await self._start()

    async def _start(self) -> bool:
        if self.alive:
            return False
        await self._advance(Cause.START, error="")
        try:
            async with self.parts.monitor.ticket(self.record.owner, f"start {self.record.name}"):
                await self._run()
        except BakehouseError as error:
            with finish_within(CLEANUP_SECONDS):
                await dismantle(self.parts, self.record)
                await self._advance(
                    Cause.START_FAIL, error=error.message, process=None, exit_code=127
                )
            self.endpoint = None
            self._give_up_attachments()
            raise
        return True

    async def _run(self) -> None:
        surroundings = await assemble(self.parts, self.record)
        self.endpoint = surroundings.endpoint
        process = await self._create(surroundings)
        for attachment in self._attachments:
            await attachment.connect(surroundings.session.attach_socket)
        await self.parts.runtime.start(self.parts.spawner, self.record.id)
        self._attachments.clear()
        await self._advance(
            Cause.STARTED,
            ContainerStart(pid=process.pid),
            started_ns=now_ns(),
            finished_ns=0,
            exit_code=0,
            oom_killed=False,
        )
        self.nursery.start_soon(self._watch)

    async def _create(self, surroundings: Surroundings) -> ProcessIdentity:
        """The runtime has created the container, stopped before its first instruction, and it is written down."""
        parts, record = self.parts, self.record
        fds = await in_thread(lambda: parts.tree.cgroups.entry_fds(monitors_group(record.owner)))
        local = record.request.log.driver != "none"
        inputs = SessionInputs(
            paths=surroundings.session,
            log=self.log if local else None,
            log_bytes_max=parts.config.runtime.log_bytes_max * LOG_CUT_FACTOR,
            entry_paths=parts.tree.entry_paths(surroundings.group),
            monitor_fds=fds,
            terminal=record.request.tty,
            open_stdin=record.request.open_stdin,
            stdin_once=record.request.stdin_once,
        )
        try:
            session = await open_session(
                parts.spawner, parts.config.runtime.conmon, parts.runtime, inputs
            )
        finally:
            for fd in fds:
                os.close(fd)
        try:
            pid = await session.pid()
        finally:
            await trio.aclose_forcefully(session)
        process = await in_thread(lambda: identify(pid, parts.boot_id))
        if process is None:
            raise Internal(f"cannot start container {record.name}: it ended before it was started")
        self._hold(process)
        await self._set(attrs.evolve(self.state, process=process))
        return process

    def _hold(self, process: ProcessIdentity) -> bool:
        """Have a pidfd of the first process; False if it is gone."""
        self._close_pidfd()
        self._pidfd = open_process(process, self.parts.boot_id)
        return self._pidfd is not None

    async def _watch(self) -> None:
        """Wait for the end of a run, clean up after it, and tell it."""
        if self._pidfd is not None:
            await wait_end(self._pidfd)
        session = session_paths(self.parts.run_root, self.record)
        ending = await await_ending(session)
        await self.end(ending)
        self.after_run()

    def after_run(self) -> None:
        """What follows the end of a run."""
        if self.record.request.auto_remove:
            self.nursery.start_soon(self.perform, self._remove_after_run)

    async def end(self, ending: Ending, before: Sequence[EventData] = ()) -> None:
        """A run is over: leave nothing of it, and tell its end. ``before`` are events that were not told yet."""
        oom = await self.parts.tree.oom_kills(self.group) > 0
        with finish_within(CLEANUP_SECONDS):
            await dismantle(self.parts, self.record)
            told = [*before, *([ContainerOom()] if oom else [])]
            reason = ending.reason or ("out of memory" if oom else "")
            await self._advance(
                Cause.DIE,
                *told,
                ContainerDie(exit_code=ending.code, reason=reason, oom=oom),
                process=None,
                exit_code=ending.code,
                error=ending.reason,
                oom_killed=oom,
                finished_ns=ending.time_ns,
            )
        self._close_pidfd()
        self.endpoint = None
        self._give_up_attachments()
        finished, self._next_exit = self._next_exit, trio.Event()
        finished.set()

    async def stop(self, grace_seconds: float, signal_number: int) -> bool:
        """The container does not run; False if it did not. After the grace it is killed."""
        if not self.alive:
            return False
        ended = self._next_exit
        await self._thaw()
        await self.kill(signal_number)
        with trio.move_on_after(grace_seconds):
            await ended.wait()
        if not ended.is_set():
            await self.kill(signal.SIGKILL)
            await ended.wait()
        await self._ledger.tell(self.record, ContainerStop())
        return True

    async def kill(self, signal_number: int) -> None:
        """The signal is sent to the first process; SIGKILL to all of them.

        Raises:
            Conflict: It does not run; Docker's wording.
        """
        if not self.alive or self._pidfd is None:
            raise Conflict(
                f"Cannot kill container: {self.record.name}: Container {self.record.id} is not running"
            )
        await self._ledger.tell(self.record, ContainerKill(signal=signal_number))
        if signal_number == signal.SIGKILL:
            await in_thread(lambda: self.parts.tree.cgroups.kill(self.group))
        else:
            send_signal(self._pidfd, signal_number)

    async def restart(self, grace_seconds: float, signal_number: int) -> None:
        """It runs anew."""
        async with self._turn:
            await self.stop(grace_seconds, signal_number)
            await self._start()
            await self._ledger.tell(self.record, ContainerRestart())

    async def pause(self) -> None:
        """All its processes are frozen.

        Raises:
            Conflict: It does not run, or is paused already.
        """
        async with self._turn:
            advance(self.state.status, Cause.PAUSE)
            await in_thread(lambda: self.parts.tree.cgroups.freeze(self.group, frozen=True))
            await self._advance(Cause.PAUSE, ContainerPause())

    async def unpause(self) -> None:
        """They run again.

        Raises:
            Conflict: It is not paused.
        """
        async with self._turn:
            advance(self.state.status, Cause.UNPAUSE)
            await self._thaw()

    async def _thaw(self) -> None:
        if self.state.status is Status.PAUSED:
            await in_thread(lambda: self.parts.tree.cgroups.freeze(self.group, frozen=False))
            await self._advance(Cause.UNPAUSE, ContainerUnpause())

    async def rename(self, name: str) -> None:
        """It has another name; the caller has seen to it that the name is free."""
        old = self.record.name
        renamed = attrs.evolve(self.record, name=name)
        async with self._writing:
            await self._ledger.write(
                renamed, self.state, [ContainerRename(old_name=old, new_name=name)]
            )
            self.record = renamed
        await self.parts.networks.rename(self.record.id, name)

    async def remove(self, *, force: bool, volumes: bool) -> None:
        """It is gone, with all it held; its anonymous volumes too where ``volumes`` says so.

        Raises:
            Conflict: It runs and ``force`` does not hold, or it is being removed; Docker's wording.
        """
        if self.state.status is Status.REMOVING:
            raise Conflict(f"removal of container {self.record.id} is already in progress")
        async with self._turn:
            if self.alive:
                if not force:
                    raise Conflict(_cannot_remove(self.record, self.state))
                ended = self._next_exit
                await self.kill(signal.SIGKILL)
                await ended.wait()
            if not self.gone.is_set():
                await self._remove(volumes=volumes)

    async def _remove_after_run(self) -> None:
        """``--rm``: remove, unless somebody else does."""
        async with self._turn:
            if self.state.status is Status.EXITED:
                await self._remove(volumes=True)

    async def _remove(self, *, volumes: bool) -> None:
        await self._advance(Cause.REMOVE)
        await self.finish_removal(volumes=volumes)

    async def finish_removal(self, *, volumes: bool) -> None:
        """From ``removing`` on; also what recovery does."""
        parts, record = self.parts, self.record
        try:
            await dismantle(parts, record)
            await parts.store.snapshots.remove(record.id)
            await parts.store.volumes.release(record.id, remove_anonymous=volumes)
            await in_thread(lambda: shutil.rmtree(self.log.parent, ignore_errors=True))
        except BakehouseError as error:
            await self._advance(Cause.REMOVE_FAIL, error=error.message)
            raise
        async with self._writing:
            await self._ledger.delete(record, [ContainerDestroy()])
            self.state = attrs.evolve(self.state, status=advance(self.state.status, Cause.DESTROY))
        self._give_up_attachments()
        self._forgotten(self)
        self.gone.set()

    # --- those who look on -------------------------------------------------------------------------------------

    async def wait(self, condition: str) -> Exit:
        """The exit of a run: ``not-running`` (at once if none runs), ``next-exit``, or ``removed``."""
        if condition == "removed":
            await self.gone.wait()
        elif condition == "next-exit" or self.alive or self.state.status is Status.STARTING:
            ended = self._next_exit
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when, self.gone, nursery.cancel_scope)
                await ended.wait()
                nursery.cancel_scope.cancel()
        return Exit(self.state.exit_code, self.state.error)

    async def attachment(self, request: AttachRequest) -> Attachment:
        """A client's place at this container's stdio, in this run or, when it does not run, the next.

        Raises:
            Unavailable: The run is just ending.
        """
        attachment = Attachment(
            request, terminal=self.record.request.tty, stdin_once=self.record.request.stdin_once
        )
        if self.alive:
            await attachment.connect(self._attach_socket)
        else:
            self._attachments.add(attachment)
        return attachment

    def leave(self, attachment: Attachment) -> None:
        """The client is gone."""
        self._attachments.discard(attachment)
        attachment.close()

    async def resize(self, height: int, width: int) -> None:
        """The terminal has this size.

        Raises:
            Conflict: It does not run.
        """
        if not self.alive:
            raise Conflict(f"Container {self.record.id} is not running")
        paths = session_paths(self.parts.run_root, self.record)
        await in_thread(lambda: control(paths, RESIZE, height, width))
        await self._ledger.tell(self.record, ContainerResize(height=height, width=width))

    async def tend_log(self) -> None:
        """Rotate the log if it has grown too large."""
        config = self.parts.config.runtime
        paths = session_paths(self.parts.run_root, self.record)

        def tend() -> None:
            if not self.log.exists() or self.log.stat().st_size < config.log_bytes_max:
                return
            names = [
                self.log,
                *(self.log.with_name(f"log.{n}") for n in range(1, config.log_files_max)),
            ]
            for older, newer in zip(reversed(names), list(reversed(names))[1:], strict=False):
                if newer.exists():
                    newer.replace(older)
            control(paths, REOPEN_LOG, 0, 0)

        await in_thread(tend)

    # --- recovery ----------------------------------------------------------------------------------------------

    def adopt(self, endpoint: Endpoint | None) -> bool:
        """Take over a run that outlived the daemon before; False if its process is gone."""
        process = self.state.process
        if process is None or not self._hold(process):
            return False
        self.endpoint = endpoint
        self.nursery.start_soon(self._watch)
        return True

    async def undo_start(self, reason: str) -> None:
        """A start that was cut off is undone."""
        await dismantle(self.parts, self.record)
        await self._advance(Cause.START_FAIL, error=reason, process=None)

    async def confirm_start(self, started_ns: int) -> None:
        """A start that was cut off had come so far that the process ran."""
        pid = self.state.process.pid if self.state.process else 0
        await self._advance(Cause.STARTED, ContainerStart(pid=pid), started_ns=started_ns)

    async def _advance(self, cause: Cause, *events: EventData, **changes: object) -> None:
        """The container's status changes by ``cause``; row and events are committed before anyone sees it."""
        async with self._writing:
            status = advance(self.state.status, cause)
            after = attrs.evolve(self.state, status=status, **changes)  # type: ignore[arg-type]  # checked by attrs
            await self._ledger.write(self.record, after, events)
            self.state = after

    async def _set(self, after: ContainerState) -> None:
        async with self._writing:
            await self._ledger.write(self.record, after)
            self.state = after

    def _give_up_attachments(self) -> None:
        for attachment in self._attachments:
            attachment.give_up()
        self._attachments.clear()

    def _close_pidfd(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def _cannot_remove(record: ContainerRecord, state: ContainerState) -> str:
    what = "paused" if state.status is Status.PAUSED else "running"
    advice = "Unpause and then stop" if state.status is Status.PAUSED else "Stop"
    return (
        f"You cannot remove a {what} container {record.id}. "
        f"{advice} the container before attempting removal or force remove"
    )
