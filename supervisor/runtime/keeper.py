"""The keeper: the one task that owns one container, from its creation to its removal.

Words: a *run* is the time from a start to the end of the first process. A *change* is what callers ask for (start,
stop, remove); it is done in the keeper's own nursery, so that a client who goes away takes nothing with them.

Rules: only the keeper writes its container's state, and publishes nothing before it is committed. Changes that exclude
one another take turns; a stuck one holds up its own container alone. An expected failure ends in the change that met it
and becomes its outcome; anything else is a bug, and is let through. A start that is cut off, by a failure or because the
daemon stops, is undone; what cannot be taken apart at the end of a run is told in the log, and goes at the next start or
at removal.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import attrs
import trio

from protocol.events import (
    ContainerAttach,
    ContainerDestroy,
    ContainerDetach,
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
from supervisor.access.requests import MountKind
from supervisor.clock import now_ns
from supervisor.errors import BakehouseError, Conflict, Internal, NotFound
from supervisor.network.networks import Endpoint
from supervisor.runtime.assembly import dismantle, forget_session, log_path, session_paths
from supervisor.runtime.attach import Attachment, AttachRequest, WaitingAttachments
from supervisor.runtime.cgroup_tree import container_group
from supervisor.runtime.changes import Changes
from supervisor.runtime.complaints import reworded, start_failure
from supervisor.runtime.conmon import control
from supervisor.runtime.endings import Ending, Ends, Exit, await_ending, note_oom
from supervisor.runtime.launch import launch, take_apart
from supervisor.runtime.ledger import Ledger
from supervisor.runtime.lines import Lines
from supervisor.runtime.logs import rotate
from supervisor.runtime.parts import Parts
from supervisor.runtime.processes import open_process, send_signal, wait_end
from supervisor.runtime.records import ContainerRecord, ContainerState, ProcessIdentity
from supervisor.runtime.status import ALIVE, Cause, Status, advance, cannot_remove
from supervisor.tasks import finish_within, first_of, in_thread

T = TypeVar("T")

CLEANUP_SECONDS = 30.0
NOT_STARTED_CODE = 128
RESIZE, REOPEN_LOG = 1, 2
CUT_OFF = "the daemon ended while it was being started"

log = logging.getLogger(__name__)


class Keeper:
    """Owns one container. Its attributes may be read by anyone, and are changed here alone.

    Attributes:
        record: What the container is.
        state: What it has become.
        endpoint: Its place in the network during a run.
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
        self._forgotten = forgotten
        self.parts = parts
        self._ledger = ledger
        self._changes = Changes(record.id)
        self._nursery: trio.Nursery | None = None
        self._turn = trio.Lock()
        self._writing = trio.Lock()
        self._ending = False
        self._bare = state.status is Status.CREATING
        self._execs: set[trio.Event] = set()
        self._pidfd: int | None = None
        self._ends = Ends()
        self._waiting = WaitingAttachments()
        self._lines = Lines(lambda: self.nursery)
        self._attach_socket = session_paths(parts.run_root, record).attach_socket
        self.log = log_path(parts.data_root, record)
        self.group = container_group(record.owner, record.id)

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
            self._close_pidfd()

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
    def alive(self) -> bool:
        """Its first process runs, or is paused."""
        return self.state.status in ALIVE

    async def perform(self, change: Callable[[], Awaitable[T]]) -> T:
        """Do a change; see :meth:`Changes.perform`."""
        return await self._changes.perform(change)

    # --- the life of a container -------------------------------------------------------------------------------

    async def start(self) -> bool:
        """The container runs; False if it did already."""
        async with self._turn:
            return await self._start()

    async def _start(self) -> bool:
        while self._ending:  # the last run's session is still being cleared away
            await self._ends.settled.wait()
        if self.alive:
            return False
        self._bare = False
        await self._advance(Cause.START, error="")
        try:
            async with self.parts.monitor.ticket(self.record.owner, f"start {self.record.name}"):
                await self._run()
        except BakehouseError as error:
            why, code = reworded(error.message)
            await self.undo_start(why, code or NOT_STARTED_CODE)
            raise start_failure(self.record.name, error) from error
        except BaseException:  # cancelled, perhaps as a group from tasks below
            await self.undo_start(CUT_OFF)
            raise
        return True

    async def _run(self) -> None:
        surroundings, process = await launch(self.parts, self.record, self.log)
        self.endpoint = surroundings.endpoint
        self._hold(process)
        async with self._writing:
            self.state = attrs.evolve(self.state, process=process)
            await self._ledger.write(self.record, self.state)
        await self._waiting.connect(self._attach_socket)
        await self.parts.runtime.start(self.parts.spawner, self.record.id)
        await self._advance(
            Cause.STARTED,
            ContainerStart(pid=process.pid),
            started_ns=now_ns(),
            finished_ns=0,
            exit_code=0,
            oom_killed=False,
        )
        self.nursery.start_soon(self._watch)
        self.nursery.start_soon(self._waiting.connect_rest, self._attach_socket)

    async def undo_start(self, reason: str, code: int = NOT_STARTED_CODE) -> None:
        """A start that was cut off is undone, whatever it had come to."""
        await self._take_apart(lost=True)
        await forget_session(self.parts, self.record)
        with finish_within(CLEANUP_SECONDS):
            await self._advance(Cause.START_FAIL, error=reason, process=None, exit_code=code)
        self._run_is_over(ran=False)
        self.after_run()

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
        """What follows the end of a run, or a start that failed."""
        if self.record.request.auto_remove:
            self._changes.begin(self._remove_after_run)

    async def end(self, ending: Ending, before: Sequence[EventData] = ()) -> None:
        """A run is over: leave nothing of it, and tell its end. ``before`` are events that were not told yet."""
        self._ending = True
        session = session_paths(self.parts.run_root, self.record)
        killed = await self.parts.tree.oom_kills(self.group)
        oom = await in_thread(lambda: note_oom(session, killed))
        await self._take_apart(lost=bool(ending.reason))
        reason = ending.reason or ("out of memory" if oom else "")
        with finish_within(CLEANUP_SECONDS) as scope:
            await self._advance(
                Cause.DIE,
                *(*before, *([ContainerOom()] if oom else ())),
                ContainerDie(exit_code=ending.code, reason=reason, oom=oom),
                process=None,
                exit_code=ending.code,
                error=ending.reason,
                oom_killed=oom,
                finished_ns=ending.time_ns,
            )
        if scope.cancelled_caught:
            raise Internal(f"cannot write down the end of container {self.record.name}: no answer")
        await forget_session(self.parts, self.record)
        self._run_is_over(ran=True)

    async def _take_apart(self, *, lost: bool) -> None:
        """Leave nothing of a run; see :func:`take_apart`. What is left all the same goes at the next start or removal."""
        execs = tuple(self._execs)
        why = await take_apart(self.parts, self.record, execs, CLEANUP_SECONDS, lost=lost)
        if why:
            log.warning("cannot take container %s apart: %s", self.record.name, why)
        self._bare = not why

    def _run_is_over(self, *, ran: bool) -> None:
        self._ending = False
        self._close_pidfd()
        self.endpoint = None
        self._waiting.give_up()
        self._ends.tell(ran=ran)

    async def stop(self, grace_seconds: float, signal_number: int) -> bool:
        """The container does not run; False if it did not. After the grace it is killed."""
        await self.started()
        return await self._stop(grace_seconds, signal_number)

    async def started(self) -> None:
        """A start that is under way comes first, as with Docker: what runs may be heard before it is written down."""
        if self.state.status is Status.STARTING:
            async with self._turn:
                pass

    async def _stop(self, grace_seconds: float, signal_number: int) -> bool:
        if not self.alive:
            return False
        ended = self._ends.exit
        with suppress(Conflict, NotFound):  # it ends by itself just now
            await self._thaw()
            await self.kill(signal_number)
        with trio.move_on_after(grace_seconds):
            await ended.wait()
        if not ended.is_set():
            with suppress(Conflict):
                await self.kill(signal.SIGKILL)
            await ended.wait()
        await self._ledger.tell(self.record, ContainerStop())
        return True

    async def kill(self, signal_number: int) -> None:
        """The signal is sent to the first process; SIGKILL to all of them.

        Raises:
            Conflict: It does not run; Docker's wording.
        """
        if not self.alive:
            raise Conflict(
                f"Cannot kill container: {self.record.name}: Container {self.record.id} is not running"
            )
        await self._ledger.tell(self.record, ContainerKill(signal=signal_number))
        if signal_number == signal.SIGKILL:
            await in_thread(lambda: self.parts.tree.cgroups.kill(self.group))
        elif self._pidfd is not None:  # else it ended meanwhile
            send_signal(self._pidfd, signal_number)

    async def restart(self, grace_seconds: float, signal_number: int) -> None:
        """It runs anew."""
        async with self._turn:
            await self._stop(grace_seconds, signal_number)
            await self._start()
            await self._ledger.tell(self.record, ContainerRestart())

    async def pause(self) -> None:
        """All its processes are frozen.

        Raises:
            Conflict: It does not run, or is paused already.
        """
        async with self._turn:
            if not self.alive:
                raise Conflict(f"Container {self.record.id} is not running")
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
                    raise Conflict(cannot_remove(self.record.id, self.state.status))
                ended = self._ends.exit
                await self.kill(signal.SIGKILL)
                await ended.wait()
            if not self.gone.is_set():
                await self._remove(volumes=volumes)

    async def _remove_after_run(self) -> None:
        """``--rm``: remove, unless somebody else does."""
        async with self._turn:
            if self.state.status in {Status.EXITED, Status.CREATED}:
                await self._remove(volumes=True)

    async def _remove(self, *, volumes: bool) -> None:
        await self._advance(Cause.REMOVE)
        await self.finish_removal(volumes=volumes)

    async def finish_removal(self, *, volumes: bool) -> None:
        """From ``removing`` on; also what recovery does."""
        parts, record = self.parts, self.record
        try:
            if not self._bare:
                await dismantle(parts, record)
            await parts.store.snapshots.remove(record.id)
            if any(mount.kind is MountKind.VOLUME for mount in record.mounts):
                await parts.store.volumes.release(record.id, remove_anonymous=volumes)
            await in_thread(lambda: shutil.rmtree(self.log.parent, ignore_errors=True))
        except BakehouseError as error:
            await self._advance(Cause.REMOVE_FAIL, error=error.message)
            raise
        async with self._writing:
            orphaned = await self._ledger.delete(record, [ContainerDestroy()])
            self.state = attrs.evolve(self.state, status=advance(self.state.status, Cause.DESTROY))
        self._waiting.give_up()
        self._forgotten(self)
        self.gone.set()
        if orphaned:
            with finish_within(CLEANUP_SECONDS):  # the nursery this runs in ends with the container
                await parts.store.layers.collect()

    # --- those who look on -------------------------------------------------------------------------------------

    async def wait(self, condition: str) -> Exit:
        """The exit of a run: ``not-running`` (at once if none runs), ``next-exit``, or ``removed``.

        As with dockerd a start that fails is no exit, and what kept it from running is no failure of its removal.
        """
        if condition == "removed":
            await self.gone.wait()
            return Exit(self.state.exit_code)
        if condition == "next-exit":
            await first_of(self._ends.exit, self.gone)
        elif self.alive or self.state.status is Status.STARTING:
            await first_of(self._ends.settled, self.gone)
        return Exit(self.state.exit_code, self.state.error)

    async def attachment(self, request: AttachRequest) -> Attachment:
        """A client's place at this container's stdio, in this run or, when it does not run, the next.

        Raises:
            NotFound: It was removed; Docker's wording.
            Unavailable: The run is just ending.
        """
        attachment = Attachment(
            request,
            self._lines,
            terminal=self.record.request.tty,
            stdin_once=self.record.request.stdin_once and not self.record.request.tty,
        )
        await self._ledger.tell(self.record, ContainerAttach())
        if self.gone.is_set():
            raise NotFound(f"No such container: {self.record.id}")
        if self.alive:
            await attachment.connect(self._attach_socket)
        else:
            self._waiting.add(attachment)
        return attachment

    def leave(self, attachment: Attachment) -> None:
        """The client is gone."""
        self._waiting.discard(attachment)
        attachment.close()

    async def detached(self) -> None:
        """A client typed the detach keys."""
        await self._ledger.tell(self.record, ContainerDetach())

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
        if await in_thread(lambda: rotate(self.log, config.log_bytes_max, config.log_files_max)):
            await in_thread(lambda: control(paths, REOPEN_LOG, 0, 0))

    def hosts(self, ended: trio.Event) -> bool:
        """An exec begins, and will set ``ended``; False when the run is over or ends just now."""
        if not self.alive or self._ending:
            return False
        self._execs = {one for one in self._execs if not one.is_set()} | {ended}
        return True

    # --- recovery ----------------------------------------------------------------------------------------------

    def adopt(self, endpoint: Endpoint | None) -> bool:
        """Take over a run that outlived the daemon before; False if its process is gone."""
        process = self.state.process
        if process is None or not self._hold(process):
            return False
        self.endpoint = endpoint
        self.nursery.start_soon(self._watch)
        return True

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

    def _close_pidfd(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
