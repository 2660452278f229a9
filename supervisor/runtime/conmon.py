"""conmon: the small process that holds a container's stdio and exit code, and outlives the daemon.

Words: a *session* is one conmon and what it watches: a container's first process, or an exec. A session's directory
holds all its files: ``config.json`` or ``process.json``, ``pid`` (of what is watched), ``conmon.pid``, ``attach`` (a
SEQPACKET socket; the first byte of a packet is 2 for stdout, 3 for stderr), ``ctl`` (a FIFO: terminal size, log reopening),
``exit/<container>`` (the exit code, written when it is known), ``conmon.log``.

conmon lives in its owner's ``monitors`` cgroup: killed with its container it would lose the exit code, in the daemon's
it would die with the daemon. The runtime it starts enters the container's cgroup first, through a shell, so that nothing
runs outside the limits even for a moment. See conmon(8).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import attrs
import orjson
import trio
from typing_extensions import override

from supervisor import faults
from supervisor.errors import Internal
from supervisor.linux.mounts import told_as
from supervisor.linux.spawner import Command, Process, Spawner
from supervisor.runtime.cgroup_tree import CgroupTree, monitors_group
from supervisor.runtime.oci_runtime import ENVIRONMENT, OciRuntime, last_line
from supervisor.tasks import in_thread

SYNC_BYTES_MAX = 65_536
ENTER = 'for place in $PLACES; do echo 0 >"$place" || exit 125; done; exec "$0" "$@"'
ENTER_MONITORS = ENTER.replace("PLACES", "BAKEHOUSE_MONITORS")
ENTER_CGROUPS = ENTER.replace("PLACES", "BAKEHOUSE_CGROUPS")
SYNC_FD, START_FD, ATTACH_FD = 3, 4, 5


@attrs.frozen
class SessionPaths:
    """Where a session's files are; ``container_id`` names the exit file in either kind."""

    directory: Path
    container_id: str

    @property
    def exit_file(self) -> Path:
        """Holds the exit code as decimal text once it is known."""
        return self.directory / "exit" / self.container_id

    @property
    def attach_socket(self) -> Path:
        """Where stdio can be had; see :mod:`supervisor.runtime.attach`."""
        return self.directory / "attach"

    @property
    def control(self) -> Path:
        """The FIFO that takes terminal sizes and log reopening."""
        return self.directory / "ctl"

    @property
    def pid_file(self) -> Path:
        """Holds the pid of what is watched."""
        return self.directory / "pid"

    @property
    def monitor_pid_file(self) -> Path:
        """Holds conmon's own pid."""
        return self.directory / "conmon.pid"

    @property
    def complaints(self) -> Path:
        """What conmon and the runtime wrote to stderr."""
        return self.directory / "conmon.log"

    @property
    def runtime_log(self) -> Path:
        """What the runtime itself says, as JSON lines; of a terminal's exec conmon hears nothing else."""
        return self.directory / "runtime.log"


@attrs.frozen
class SessionInputs:
    """What a session is started with.

    Attributes:
        paths: The directory exists and holds ``config.json`` (a container) or ``process.json`` (an exec).
        log_words: What conmon does with the output beside showing it; keeps none by default.
        entry_paths: The ``cgroup.procs`` files the runtime enters, as seen in the daemon's mount namespace.
        monitor_paths: The same of the owner's monitors, for conmon itself.
        is_exec: A further process in a running container.
        attached: Of an exec: it starts only when somebody is at its socket.
    """

    paths: SessionPaths
    entry_paths: Sequence[str]
    monitor_paths: Sequence[str]
    log_words: Sequence[str] = ("-l", "none")
    terminal: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    is_exec: bool = False
    attached: bool = False


class Session(trio.abc.AsyncResource):
    """A conmon that is being started: :meth:`go`, then :meth:`pid`; an attached exec wants a second go at its socket."""

    def __init__(
        self, paths: SessionPaths, process: Process, sync: int, start: int, attach: int | None
    ) -> None:
        self.paths = paths
        self._process = process
        self._sync = trio.lowlevel.FdStream(sync)
        self._start = trio.lowlevel.FdStream(start)
        self._attach = None if attach is None else trio.lowlevel.FdStream(attach)

    async def go(self) -> None:
        """Let conmon (and at the second call an attached exec) go on."""
        with contextlib.suppress(trio.BrokenResourceError):  # it has ended: then it says why
            faults.before(faults.Door.CONMON, "go")
            await self._start.send_all(b"\0")
            faults.after(faults.Door.CONMON, "go")

    async def socket_ready(self) -> None:
        """Wait until an attached exec's socket can be connected to."""
        assert self._attach is not None
        await self._report(self._attach)

    async def pid(self) -> int:
        """The pid of what was created, stopped before its first instruction.

        Raises:
            Internal: The runtime could not create it; its own words.
        """
        return await self._report(self._sync)

    @override
    async def aclose(self) -> None:
        """Let go of the pipes; what runs goes on, and what was not let go ends."""
        for stream in (self._sync, self._start, self._attach):
            if stream is not None:
                stream.close()  # all of them, also when this is cancelled
        await self._process.aclose()  # it has ended: conmon goes on as a child of its own

    async def _report(self, pipe: trio.lowlevel.FdStream) -> int:
        line = bytearray()
        while b"\n" not in line and len(line) < SYNC_BYTES_MAX:
            part = await pipe.receive_some(4_096)
            if not part:
                break
            line += part
        if not line:
            raise Internal(await in_thread(lambda: _complaints(self.paths)))
        report = orjson.loads(bytes(line).partition(b"\n")[0])
        number = report.get("data", report.get("pid", -1))
        if number < 0:
            words = str(report.get("message", "")).strip()
            raise Internal(words or await in_thread(lambda: _complaints(self.paths)))
        return int(number)


async def open_session(
    spawner: Spawner, conmon: str, runtime: OciRuntime, inputs: SessionInputs
) -> Session:
    """Start a conmon that waits: what it is told to create need not be there yet. The caller must close the session.

    Cancelled, or with the session closed early, it may have begun to create; whoever has the container's cgroup cleared
    and calls :func:`end_monitors` then leaves nothing of it.

    Raises:
        Internal, NotFound, …: It cannot be started; the kernel's words.
    """
    with contextlib.ExitStack() as theirs:
        complaints = _opened(inputs.paths.complaints)
        theirs.callback(os.close, complaints)
        sync_read, sync_write = os.pipe2(os.O_CLOEXEC)
        theirs.callback(os.close, sync_write)
        start_read, start_write = os.pipe2(os.O_CLOEXEC)
        theirs.callback(os.close, start_read)
        keep = {SYNC_FD: sync_write, START_FD: start_read}
        attach_read = None
        if inputs.attached:
            attach_read, keep[ATTACH_FD] = os.pipe2(os.O_CLOEXEC)
            theirs.callback(os.close, keep[ATTACH_FD])
        command = Command(
            _arguments(conmon, runtime, inputs),
            env=_environment(inputs),
            stderr=complaints,
            keep_fds=keep,
        )
        try:
            with told_as("start the container monitor"):
                process = await spawner.spawn(command)
        except BaseException:
            for ours in (sync_read, start_write, attach_read):
                if ours is not None:
                    os.close(ours)
            raise
    return Session(inputs.paths, process, sync_read, start_write, attach_read)


def _opened(complaints: Path) -> int:
    with told_as("start the container monitor"):
        return os.open(complaints, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


async def end_monitors(tree: CgroupTree, owner: int, chosen: Callable[[str], bool]) -> None:
    """The owner's conmons of the ``chosen`` containers (by id), their execs' too, are killed.

    For those that nobody believes to end by themselves: what they have not written yet is lost.
    """
    await in_thread(lambda: _end_monitors(tree.cgroups.pids(monitors_group(owner)), chosen))


def _end_monitors(pids: Collection[int], chosen: Callable[[str], bool]) -> None:
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"-c" in words and chosen(words[words.index(b"-c") + 1].decode(errors="replace")):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue
        finally:
            os.close(pidfd)


def _environment(inputs: SessionInputs) -> Mapping[str, str]:
    environment = {
        **ENVIRONMENT,
        "_OCI_SYNCPIPE": str(SYNC_FD),
        "_OCI_STARTPIPE": str(START_FD),
        "BAKEHOUSE_MONITORS": " ".join(inputs.monitor_paths),
        "BAKEHOUSE_CGROUPS": " ".join(inputs.entry_paths),
    }
    if inputs.attached:
        environment["_OCI_ATTACHPIPE"] = str(ATTACH_FD)
    return environment


def _arguments(conmon: str, runtime: OciRuntime, inputs: SessionInputs) -> tuple[str, ...]:
    paths = inputs.paths
    words = [
        *("/bin/sh", "-c", ENTER_MONITORS),
        shutil.which(conmon, path=ENVIRONMENT["PATH"]) or conmon,
        *(
            "--api-version",
            "1",
            "-c",
            paths.container_id,
            "-u",
            paths.container_id,
            "-n",
            paths.container_id,
        ),
        *("-b", str(paths.directory), "-p", str(paths.pid_file), "-P", str(paths.monitor_pid_file)),
        *(
            "--exit-dir",
            str(paths.exit_file.parent),
            "--full-attach",
            "--no-sync-log",
            "--log-level",
            "error",
        ),
    ]
    words += inputs.log_words
    flags = {
        "-t": inputs.terminal,
        "-i": inputs.open_stdin,
        "--leave-stdin-open": inputs.open_stdin and not inputs.stdin_once,
        "--exec-attach": inputs.attached,
    }
    words += [flag for flag, wanted in flags.items() if wanted]
    if inputs.is_exec:
        words += ["--exec", "--exec-process-spec", str(paths.directory / "process.json")]
    return (*words, *_runtime_arguments(runtime, inputs))


def _runtime_arguments(runtime: OciRuntime, inputs: SessionInputs) -> list[str]:
    arguments = (*runtime.arguments, "--log", str(inputs.paths.runtime_log), "--log-format", "json")
    if runtime.places and not inputs.entry_paths:
        return ["-r", runtime.path, *_each("--runtime-arg", arguments)]
    through_shell = ("-c", ENTER_CGROUPS, runtime.path, *arguments)
    return ["-r", "/bin/sh", *_each("--runtime-arg", through_shell)]


def _each(flag: str, words: Sequence[str]) -> list[str]:
    return [part for word in words for part in (flag, word)]


def _complaints(paths: SessionPaths) -> str:
    said = last_line(_tail(paths.runtime_log))
    with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
        return str(orjson.loads(said)["msg"])
    return last_line(_tail(paths.complaints)) or "the container monitor ended without a word"


def _tail(path: Path) -> bytes:
    try:
        return path.read_bytes()[-SYNC_BYTES_MAX:]
    except OSError:
        return b""


def control(paths: SessionPaths, kind: int, first: int, second: int) -> None:
    """Tell a session's conmon something through its FIFO: 1 with height and width, 2 to open its log anew.

    A session that has just ended is told nothing.
    """
    with contextlib.suppress(OSError):
        fifo = os.open(paths.control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(fifo, f"{kind} {first} {second}\n".encode())
        finally:
            os.close(fifo)
