"""Further processes in a running container.

An exec has a session of its own below its container's, so that it outlives the daemon as the container does. It enters
the container's cgroup before it is executed.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
from pathlib import Path

import attrs
import orjson
import trio

from protocol.events import EventData, ExecCreate, ExecDetach, ExecDie, ExecStart
from supervisor.access.requests import ExecRequest
from supervisor.clock import now_ns
from supervisor.errors import BakehouseError, Conflict, InvalidArgument
from supervisor.linux import mounts
from supervisor.runtime import spec
from supervisor.runtime.assembly import session_paths
from supervisor.runtime.attach import Attachment, AttachRequest
from supervisor.runtime.cgroup_tree import monitors_group
from supervisor.runtime.clients import RESIZE
from supervisor.runtime.complaints import exec_failure
from supervisor.runtime.conmon import (
    Session,
    SessionInputs,
    SessionPaths,
    control,
    open_session,
)
from supervisor.runtime.endings import await_ending, monitored, read_ending
from supervisor.runtime.first_process import capabilities_of, mapped_user
from supervisor.runtime.keeper import Keeper
from supervisor.runtime.ledger import Ledger
from supervisor.runtime.lines import Lines
from supervisor.runtime.parts import Parts
from supervisor.runtime.processes import identify, kill_family, open_process, send_signal, wait_end
from supervisor.runtime.records import ExecRecord, ProcessIdentity
from supervisor.tasks import each_to_its_end, in_thread


class Exec:
    """One further process of a container. Its record is changed by its own task alone.

    Attributes:
        keeper: Of the container it is in.
        record: What it is, and what it has become.
        ended: Set when it has ended, or could not be started.
    """

    def __init__(self, parts: Parts, ledger: Ledger, keeper: Keeper, record: ExecRecord) -> None:
        self.keeper = keeper
        self.record = record
        self.ended = trio.Event()
        self._lines = Lines(lambda: keeper.nursery)
        self._parts = parts
        self._ledger = ledger
        directory = session_paths(parts.run_root, keeper.record).directory / "execs" / record.id
        self._paths = SessionPaths(directory, keeper.record.id)
        if record.exit_code is not None:
            self.ended.set()

    @property
    def command_line(self) -> str:
        """As Docker's events say it."""
        return " ".join(self.record.request.command)

    async def create(self) -> None:
        """It is written down, and told."""
        await self._write(ExecCreate(exec_id=self.record.id, command=self.command_line))

    def attachment(self, *, framed: bool) -> Attachment:
        """A client's place at its stdio, before it is started."""
        request = self.record.request
        wish = AttachRequest(
            stdin=request.attach_stdin,
            stdout=request.attach_stdout,
            stderr=request.attach_stderr,
            detach_keys=request.detach_keys,
        )
        return Attachment(wish, self._lines, terminal=request.tty, stdin_once=True, framed=framed)

    async def start(self, attachment: Attachment | None) -> None:
        """It runs, with the client at its stdio where there is one. A caller who goes away takes nothing with them.

        Raises:
            Conflict: It was started before, or its container does not run; Docker's wording.
            Internal: The runtime could not start it; the exit code is 126 or 127 then.
        """
        await self.keeper.perform(lambda: self._start(attachment))

    async def _start(self, attachment: Attachment | None) -> None:
        if self.record.started:
            raise Conflict(f"Error: Exec command {self.record.id} is already running")
        self.keeper.check_execs()
        if not self.keeper.hosts(self.ended):
            raise Conflict(f"Container {self.keeper.record.id} is not running")
        self.record = attrs.evolve(self.record, started=True)
        try:
            await self._run(attachment)
        except BakehouseError as error:
            failure, code = exec_failure(self.keeper.record.name, error)
            if attachment is not None:
                attachment.give_up()
            await self._end(code, failure.message)
            raise failure from error

    async def _run(self, attachment: Attachment | None) -> None:
        parts, container = self._parts, self.keeper.record
        with mounts.told_as(f"execute in container {container.name}"):
            await in_thread(lambda: _make_directories(self._paths))
        inputs = SessionInputs(
            paths=self._paths,
            entry_paths=parts.tree.entry_paths(self.keeper.group),
            monitor_paths=parts.tree.entry_paths(monitors_group(container.owner)),
            terminal=self.record.request.tty,
            open_stdin=attachment is not None and attachment.request.stdin,
            stdin_once=True,
            is_exec=True,
            attached=attachment is not None,
        )
        sessions: list[Session] = []

        async def start_monitor() -> None:
            conmon = parts.config.runtime.conmon
            sessions.append(await open_session(parts.spawner, conmon, parts.runtime, inputs))

        try:
            # The monitor waits: what it is let go on with is written down and ready by then.
            await each_to_its_end(self._tell_start, start_monitor, self._prepare)
            (session,) = sessions
            await session.go()
            if attachment is not None:
                await session.socket_ready()
                await attachment.connect(self._paths.attach_socket)
                await session.go()
            pid = await session.pid()
        finally:
            for session in sessions:
                await trio.aclose_forcefully(session)
        # It may have ended already, and nobody else can have its pid while its conmon has not reaped it.
        process = identify(pid, parts.boot_id)
        self.record = attrs.evolve(self.record, process=process)
        self.watch()

    async def _tell_start(self) -> None:
        await self._write(ExecStart(exec_id=self.record.id, command=self.command_line))

    async def _prepare(self) -> None:
        parts, container, request = self._parts, self.keeper.record, self.record.request
        owner = await parts.owners.owner(container.owner, remapped=container.remapped)
        rootfs = parts.store.snapshots.get(container.id).rootfs
        root_fd = await mounts.open_in_mounts(parts.spawner, rootfs)
        try:
            user = await in_thread(
                lambda: mapped_user(
                    root_fd,
                    request.user or container.user,
                    owner,
                    container.request.group_add,
                )
            )
        finally:
            os.close(root_fd)
        confined = parts.confines_devices(owner)
        env = spec.merge_environment(container.env, request.env)
        process = spec.ProcessInputs(
            args=request.command,
            env=spec.default_environment(env, container.hostname, user.home, terminal=request.tty),
            cwd=request.working_dir or container.working_dir,
            user=user,
            terminal=request.tty,
            capabilities=parts.within_bounds(spec.ALL_CAPABILITIES)
            if request.privileged
            else capabilities_of(container, devices_confined=confined),
            no_new_privileges=any(
                option.startswith("no-new-privileges") for option in container.request.security_opt
            ),
        )
        text = orjson.dumps(spec.process_spec(process))
        with mounts.told_as(f"execute in container {container.name}"):
            await in_thread(lambda: _write_private(self._paths.directory / "process.json", text))

    def watch(self) -> None:
        """Have its end waited for, in its container's nursery."""
        self.keeper.nursery.start_soon(self._watch)

    async def adopt(self) -> None:
        """Take over an exec that was started by a daemon before; it may have ended, or never come so far."""
        process = await in_thread(lambda: recorded_process(self._paths, self._parts.boot_id))
        self.record = attrs.evolve(self.record, process=process)
        self.keeper.hosts(self.ended)
        self.watch()

    async def _watch(self) -> None:
        process = self.record.process
        pidfd = None if process is None else open_process(process, self._parts.boot_id)
        if pidfd is not None:
            try:
                await wait_end(pidfd)
            finally:
                os.close(pidfd)
        ending = await await_ending(self._paths, self._lines)
        await self._end(ending.code, ending.reason)

    async def _end(self, code: int, why: str) -> None:
        """It is over: told, and nothing left of it."""
        self.record = attrs.evolve(self.record, exit_code=code, failure=why)
        await self._write(ExecDie(exec_id=self.record.id, exit_code=code))
        await in_thread(lambda: shutil.rmtree(self._paths.directory, ignore_errors=True))
        self.ended.set()

    async def resize(self, height: int, width: int) -> None:
        """Its terminal has this size.

        Raises:
            Conflict: It does not run.
        """
        if not self.record.started or self.ended.is_set():
            raise Conflict(f"cannot resize exec {self.record.id}: it is not running")
        await in_thread(lambda: control(self._paths, RESIZE, height, width))

    async def detached(self) -> None:
        """Its client typed the detach keys."""
        await self._ledger.tell(self.keeper.record, ExecDetach(exec_id=self.record.id))

    async def kill(self) -> None:
        """SIGKILL is sent to it and to all it has started; what has not begun yet is sent none."""
        process = self.record.process
        if process is not None:
            await in_thread(lambda: kill_family(process, self._parts.boot_id))

    def hang_up(self) -> None:
        """Nobody is at its terminal any more."""
        process = self.record.process
        pidfd = None if process is None else open_process(process, self._parts.boot_id)
        if pidfd is not None:
            send_signal(pidfd, signal.SIGHUP)
            os.close(pidfd)

    async def _write(self, *events: EventData) -> None:
        await self._ledger.write_exec(self.keeper.record, self.record, events)


def new_exec(container_id: str, owner: int, request: ExecRequest) -> ExecRecord:
    """A new exec's record.

    Raises:
        InvalidArgument: It has no command; Docker's wording.
    """
    if not request.command:
        raise InvalidArgument("No exec command specified")
    return ExecRecord(secrets.token_hex(32), container_id, owner, request, now_ns())


def recorded_process(paths: SessionPaths, boot: str) -> ProcessIdentity | None:
    """The process whose pid the runtime wrote into the session's directory, if it lives.

    While its conmon is there the pid is its own; without one it could be anybody's by now.
    """
    if read_ending(paths) is not None or not monitored(paths):
        return None
    try:
        return identify(int(paths.pid_file.read_text()), boot)
    except (OSError, ValueError):
        return None


def _make_directories(paths: SessionPaths) -> None:
    paths.directory.parent.mkdir(mode=0o711, exist_ok=True)  # its container's must be there
    paths.directory.mkdir(mode=0o711)
    paths.exit_file.parent.mkdir(mode=0o700)


def _write_private(path: Path, process: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(process)
