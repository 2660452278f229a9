"""Who is at a container's stdio: clients come before it runs or while it does, and leave when they like."""

from __future__ import annotations

from protocol.events import ContainerAttach, ContainerDetach, ContainerResize
from supervisor.errors import NotFound
from supervisor.runtime.attach import Attachment, AttachRequest
from supervisor.runtime.conmon import SessionPaths, control
from supervisor.runtime.row import Row
from supervisor.runtime.runs import Runs
from supervisor.runtime.status import Status, check_runs
from supervisor.tasks import in_thread

RESIZE = 1


class Clients:
    """The clients of one container."""

    def __init__(self, row: Row, runs: Runs, session: SessionPaths) -> None:
        self._row = row
        self._runs = runs
        self._session = session

    async def attachment(self, request: AttachRequest, *, framed: bool | None = None) -> Attachment:
        """A client's place at the container's stdio, in this run or, when it does not run, the next.

        Raises:
            NotFound: It was removed; Docker's wording.
            Conflict: Its restart policy waits; Docker's wording.
            Unavailable: The run is just ending.
        """
        record = self._row.record
        if self._row.state.status is Status.RESTARTING:
            check_runs(record.id, self._row.state.status)
        attachment = Attachment(
            request,
            self._runs.lines,
            terminal=record.request.tty,
            stdin_once=record.request.stdin_once and not record.request.tty,
            framed=framed,
        )
        await self._row.tell(ContainerAttach())
        if self._row.state.status is Status.REMOVED:
            raise NotFound(f"No such container: {record.id}")
        if self._runs.alive:
            await attachment.connect(self._session.attach_socket)
        else:
            self._runs.waiting.add(attachment)
        return attachment

    def leave(self, attachment: Attachment) -> None:
        """The client is gone."""
        self._runs.waiting.discard(attachment)
        attachment.close()

    async def detached(self) -> None:
        """A client typed the detach keys."""
        await self._row.tell(ContainerDetach())

    async def resize(self, height: int, width: int) -> None:
        """The terminal has this size.

        Raises:
            Conflict: The container does not run.
        """
        check_runs(self._row.record.id, self._row.state.status)
        await in_thread(lambda: control(self._session, RESIZE, height, width))
        await self._row.tell(ContainerResize(height=height, width=width))
