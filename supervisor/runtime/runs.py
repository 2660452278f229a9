"""The runs of one container: from a start to the end of its first process, and what is left of it.

Words: a *run* is the time from a start to the end of the first process.

Rules: a start that is cut off, by a failure or because the daemon stops, is undone. A run's end is told when nothing of
it is left; what cannot be taken apart is told in the log, and goes at the next start or at removal.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Awaitable, Callable, Sequence

import trio

from protocol.events import (
    ContainerDie,
    ContainerOom,
    ContainerStart,
    ContainerStartFail,
    ContainerStarting,
    EventData,
)
from supervisor.clock import now_ns
from supervisor.errors import BakehouseError, Internal
from supervisor.runtime import restart
from supervisor.runtime.assembly import forget_session, log_path, session_paths
from supervisor.runtime.attach import WaitingAttachments
from supervisor.runtime.cgroup_tree import container_group
from supervisor.runtime.complaints import reworded, start_failure
from supervisor.runtime.endings import Ending, Ends, await_ending, note_oom
from supervisor.runtime.health import begun, plan_of
from supervisor.runtime.joining import Find, joined
from supervisor.runtime.launch import launch, take_apart
from supervisor.runtime.lines import Lines
from supervisor.runtime.links import with_links
from supervisor.runtime.parts import Parts
from supervisor.runtime.processes import began_ns, open_process, send_signal, wait_end
from supervisor.runtime.records import ContainerState, ProcessIdentity
from supervisor.runtime.restart import Backoff, Ended
from supervisor.runtime.row import Row, Step
from supervisor.runtime.status import ALIVE, Cause, Status
from supervisor.tasks import finish_within, in_thread

CLEANUP_SECONDS = 30.0
NOT_STARTED_CODE = 128
CUT_OFF = "the daemon ended while it was being started"

log = logging.getLogger(__name__)


class Runs:
    """One container's runs, one after another.

    Attributes:
        ends: What those wait for who wait for the end of a run.
        waiting: Clients who wait for the next run.
        group: The container's cgroup.
        log: The current file of its log.
        bare: Nothing of a run is left.
    """

    def __init__(
        self,
        parts: Parts,
        row: Row,
        nursery: Callable[[], trio.Nursery],
        after: Callable[[], None],
        beside: Callable[[], Awaitable[None]],
        find: Find,
    ) -> None:
        """``after`` is called when a run has ended by itself, or a start has failed.

        Other containers are found by ``find``. What ``beside`` does is done while the first process runs, and cancelled when it is paused or ends.
        """
        record = row.record
        self._parts = parts
        self._row = row
        self._nursery = nursery
        self._after = after
        self._beside = beside
        self._find = find
        self._company = trio.CancelScope()
        self._session = session_paths(parts.run_root, record)
        self.log = log_path(parts.data_root, record)
        self.group = container_group(record)
        self.ends = Ends()
        self.waiting = WaitingAttachments()
        self.lines = Lines(nursery)
        self.bare = row.state.status is Status.CREATING
        self._ending = False
        self._execs: set[trio.Event] = set()
        self._pidfd: int | None = None

    @property
    def alive(self) -> bool:
        """The first process runs, or is paused."""
        return self._row.state.status in ALIVE

    @property
    def ending(self) -> bool:
        """The first process is gone, and what it leaves is being cleared away."""
        return self._ending

    async def start(self, backoff: Backoff, *, by_policy: bool = False) -> None:
        """The container runs. ``backoff`` is what its restart policy is to remember of the runs before.

        Raises:
            BakehouseError: It cannot be started; nothing of the attempt is left.
        """
        parts, name = self._parts, self._row.record.name
        while self._ending:  # the last run's session is still being cleared away
            await self.ends.settled.wait()
        self.bare = False
        told = ContainerStarting(by_policy=by_policy)
        await self._row.advance(Cause.START, told, error="", backoff=backoff, stopped=False)
        try:
            async with parts.monitor.ticket(self._row.record.owner, f"start {name}"):
                await self._run()
        except BakehouseError as error:
            why, code = reworded(error.message)
            await self.undo(why, code or NOT_STARTED_CODE)
            raise start_failure(name, error) from error
        except BaseException:  # cancelled, perhaps as a group from tasks below
            await self.undo(CUT_OFF)
            raise

    async def _run(self) -> None:
        parts, row = self._parts, self._row
        with joined(parts, row.record, self._find) as shared:
            record = with_links(parts.networks, row.record, self._find)
            process = await launch(parts, record, self.log, shared)
        self._hold(process)
        await row.note(process=process)
        await self.waiting.connect(self._session.attach_socket)
        await parts.runtime.start(parts.spawner, row.record.id)
        await self._started(process, now_ns())
        self._nursery().start_soon(self._watch)
        self._nursery().start_soon(self._accompany)
        self._nursery().start_soon(self.waiting.connect_rest, self._session.attach_socket)

    async def _started(self, process: ProcessIdentity, started_ns: int) -> None:
        row = self._row
        await row.advance(
            Cause.STARTED,
            ContainerStart(pid=process.pid),
            started_ns=started_ns,
            finished_ns=0,
            exit_code=0,
            oom_killed=False,
            health=begun(row.state.health) if plan_of(row.record.health, ()) else None,
        )

    async def _accompany(self) -> None:
        self._company.cancel()
        if not self.alive or self._ending:  # it was let run again only to end
            return
        with trio.CancelScope() as self._company:
            await self._beside()

    async def undo(self, reason: str, code: int = NOT_STARTED_CODE) -> None:
        """A start that was cut off is undone, whatever it had come to."""
        await self._take_apart(lost=True)
        await forget_session(self._parts, self._row.record)
        cause = Cause.START_FAIL_AGAIN if self._row.state.started_ns else Cause.START_FAIL
        told = ContainerStartFail(reason=reason, exit_code=code)
        with finish_within(CLEANUP_SECONDS):
            await self._row.advance(cause, told, error=reason, process=None, exit_code=code)
        self._over(ran=False)
        self._after()

    async def _watch(self) -> None:
        """Wait for the end of a run, clean up after it, and tell it."""
        if self._pidfd is not None:
            await wait_end(self._pidfd)
        await self.end(await await_ending(self._session, self.lines))

    async def end(self, ending: Ending, before: Sequence[EventData] = ()) -> None:
        """A run is over: leave nothing of it, and tell its end. ``before`` are events that were not told yet."""
        self._ending = True
        self._company.cancel()
        killed = await self._parts.tree.oom_kills(self.group)
        oom = await in_thread(lambda: note_oom(self._session, killed))
        await self._take_apart(lost=bool(ending.reason))
        with finish_within(CLEANUP_SECONDS) as scope:
            await self._row.settle(lambda state: self._death(state, ending, before, oom=oom))
        if scope.cancelled_caught:
            raise Internal(
                f"cannot write down the end of container {self._row.record.name}: no answer"
            )
        await forget_session(self._parts, self._row.record)
        self._over(ran=True)
        self._after()

    def _death(
        self, state: ContainerState, ending: Ending, before: Sequence[EventData], *, oom: bool
    ) -> Step:
        """What the end of a run makes of the container, by its restart policy."""
        ended = Ended(ending.code, ending.time_ns - state.started_ns, state.stopped)
        policy = self._row.record.request.restart
        backoff = restart.after_run(policy, ended, state.backoff, now_ns())
        told = ContainerDie(
            exit_code=ending.code,
            reason=ending.reason or ("out of memory" if oom else ""),
            oom=oom,
            ended_ns=ending.time_ns,
            restart_after_ns=backoff.delay_ns if backoff else 0,
        )
        changes = {
            "process": None,
            "exit_code": ending.code,
            "error": ending.reason,
            "oom_killed": oom,
            "finished_ns": ending.time_ns,
            "backoff": backoff or state.backoff,
        }
        cause = Cause.DIE_TO_RESTART if backoff else Cause.DIE
        return Step(cause, (*before, *([ContainerOom()] if oom else ()), told), changes)

    async def _take_apart(self, *, lost: bool) -> None:
        """Leave nothing of a run; see :func:`take_apart`. What is left all the same goes at the next start or removal."""
        record, execs = self._row.record, tuple(self._execs)
        why = await take_apart(self._parts, record, execs, CLEANUP_SECONDS, lost=lost)
        if why:
            log.warning("cannot take container %s apart: %s", record.name, why)
        self.bare = not why

    def _over(self, *, ran: bool) -> None:
        self._ending = False
        self.close()
        self.waiting.give_up()
        self.ends.tell(ran=ran)

    async def signal(self, number: int) -> None:
        """The signal is sent to the first process; SIGKILL to all of them. What is gone is sent none."""
        if number == signal.SIGKILL:
            await in_thread(lambda: self._parts.tree.cgroups.kill(self.group))
        elif self._pidfd is not None:  # else it ended meanwhile
            send_signal(self._pidfd, number)

    async def freeze(self, *, frozen: bool) -> None:
        """All its processes are stopped, or run again.

        Raises:
            NotFound: They have just ended.
        """
        await in_thread(lambda: self._parts.tree.cgroups.freeze(self.group, frozen=frozen))
        self._company.cancel()
        if not frozen:
            self._nursery().start_soon(self._accompany)

    def hosts(self, ended: trio.Event) -> bool:
        """An exec begins, and will set ``ended``; False when the run is over or ends just now."""
        if not self.alive or self._ending:
            return False
        self._execs = {one for one in self._execs if not one.is_set()} | {ended}
        return True

    # --- recovery ----------------------------------------------------------------------------------------------

    def adopt(self) -> bool:
        """Take over a run that outlived the daemon before; False if its process is gone."""
        process = self._row.state.process
        if process is None or not self._hold(process):
            return False
        self._nursery().start_soon(self._watch)
        if self._row.state.status is Status.RUNNING:
            self._nursery().start_soon(self._accompany)
        return True

    async def confirm(self) -> None:
        """A start that was cut off had come so far that the process ran; when that was, its identity tells."""
        process = self._row.state.process
        assert process is not None, "it was recorded before it ran"
        await self._started(process, began_ns(process))

    def _hold(self, process: ProcessIdentity) -> bool:
        """Have a pidfd of the first process; False if it is gone."""
        self.close()
        self._pidfd = open_process(process, self._parts.boot_id)
        return self._pidfd is not None

    def close(self) -> None:
        """Let go of the first process; it goes on."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
