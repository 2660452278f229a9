"""The daemon's side of the spawner: starting processes, and errands, without ever blocking or changing the daemon.

Words: the *seed* is the helper process, started by ``main`` before anything else; the *spawner* is the seed with a task
that reads its answers; a *command* says what to start and where; an *errand* is a function of the helper's.

Rules: the daemon never forks, mounts, enters a namespace or changes its credentials. A cancelled request leaves nothing:
its child is killed, the fds of a late answer are closed. When the helper ends by itself, everything crashes at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import attrs
import trio

from supervisor import faults, tasks
from supervisor.errors import Internal, Unavailable
from supervisor.linux import spawner_process, spawner_wire
from supervisor.linux.pipes import Capture, Feed
from supervisor.linux.spawner_wire import JSON, Message

READY_SECONDS_MAX = 30
DISPOSAL_SECONDS_MAX = 10.0
STDIO = (0, 1, 2)


class SpawnerGone(RuntimeError):  # noqa: N818  # it is what happened
    """The helper ended by itself. Not an expected failure: the daemon crashes and recovers."""


@attrs.frozen
class Credentials:
    """What the kernel checks a process by: host ids."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    def arguments(self) -> JSON:
        """As they go to the helper."""
        return {"uid": self.uid, "gid": self.gid, "groups": list(self.groups)}


@attrs.frozen
class Command:
    """What to start, and where.

    Attributes:
        argv: The program (looked for in ``env``'s PATH when it holds no slash) and its arguments.
        stdin: The daemon's fd for the child's; None is ``/dev/null``. So with ``stdout`` and ``stderr``.
        keep_fds: More fds: the number in the child (3 to 255) → the daemon's fd.
        cgroup_fds: Open ``cgroup.procs`` files; the child enters each before anything else.
        namespaces: Fds of namespaces, entered in this order.
        identity: Credentials taken before the start; None stays root.
        host_mounts: Run in the host's mount namespace instead of the daemon's.
        dies_with_daemon: Killed when the daemon ends.
        subreaper: Orphans below it become its children.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = attrs.field(factory=dict)
    cwd: str = "/"
    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None
    keep_fds: Mapping[int, int] = attrs.field(factory=dict)
    cgroup_fds: tuple[int, ...] = ()
    namespaces: tuple[int, ...] = ()
    identity: Credentials | None = None
    host_mounts: bool = False
    dies_with_daemon: bool = False
    subreaper: bool = False


@attrs.frozen
class Answer:
    """What an errand gave back; the fds are the caller's to close."""

    value: JSON
    fds: tuple[int, ...] = ()


@attrs.frozen
class Completed:
    """A command that has ended, with what it wrote (``truncated`` when that was more than was kept)."""

    returncode: int
    stdout: bytes
    stderr: bytes
    truncated: bool = False


@attrs.frozen
class SpawnerSeed:
    """The helper, ready, before there is a task to read its answers."""

    control: socket.socket
    helper: subprocess.Popen[bytes]


@attrs.define
class _Ending:
    """When and how a command ended."""

    event: trio.Event = attrs.field(factory=trio.Event)
    code: int | None = None


@attrs.define
class _Request:
    """One waiter: its answer arrives, or what went wrong."""

    command: bool
    answered: trio.Event = attrs.field(factory=trio.Event)
    outcome: Answer | OSError | RuntimeError | None = None


class Process:
    """A started command. Leaving the context kills it, unless it has ended, and waits for that.

    Attributes:
        pid: Its process id; stays its own until :meth:`wait` has returned, so prefer ``pidfd``.
        pidfd: Refers to it for ever; closed by :meth:`aclose`.
    """

    def __init__(self, pid: int, pidfd: int, ending: _Ending) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self._ending = ending

    @property
    def ended(self) -> bool:
        """Whether it has ended and been reaped."""
        return self._ending.code is not None

    async def wait(self) -> int:
        """Its exit code, or minus the signal that ended it."""
        await self._ending.event.wait()
        if self._ending.code is None:
            raise SpawnerGone(_GONE)
        return self._ending.code

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; a process that has ended is success."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    async def aclose(self) -> None:
        """Kill it unless it has ended, wait for its end, close the pidfd."""
        if self.pidfd < 0:
            return
        try:
            if not self.ended:
                self.kill()
                with tasks.finish_within(DISPOSAL_SECONDS_MAX):
                    await self._ending.event.wait()
        finally:
            os.close(self.pidfd)
            self.pidfd = -1

    async def __aenter__(self) -> Process:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


_GONE = "the spawner has ended"


class Spawner:
    """Requests to the helper. All methods may be used by any number of tasks at once."""

    def __init__(self, control: trio.socket.SocketType) -> None:
        self._control = control
        self._requests: dict[int, _Request] = {}
        self._endings: dict[int, _Ending] = {}
        self._number = 0
        self._gone = False

    async def spawn(self, command: Command) -> Process:
        """Start a command; it runs when this returns.

        Raises:
            OSError: It could not be started: no such program, cgroup gone, no memory, …
        """
        arguments, fds = _arguments(command)
        faults.before(faults.Door.SPAWNER, "spawn", command.argv)
        answer, ending = await self._ask("spawn", arguments, fds, command=True)
        faults.after(faults.Door.SPAWNER, "spawn", command.argv)
        assert ending is not None
        assert isinstance(answer.value, int)
        return Process(answer.value, answer.fds[0], ending)

    async def run(
        self,
        command: Command,
        *,
        input: bytes = b"",  # noqa: A002
        output_bytes_max: int = 1 << 20,
    ) -> Completed:
        """Run a command to its end; its ``stdin``, ``stdout`` and ``stderr`` are replaced by pipes of ours.

        Output beyond ``output_bytes_max`` of each stream is read and dropped. A grandchild that keeps the pipes open does
        not hold this up: what is there when the command ends is what counts. Cancelled, the command is killed.

        Raises:
            OSError: It could not be started.
        """
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            stdin = Feed(input, ours, theirs) if input else None
            stdout = Capture(output_bytes_max, ours, theirs)
            stderr = Capture(output_bytes_max, ours, theirs)
            piped = attrs.evolve(
                command,
                stdin=stdin.child_fd if stdin else None,
                stdout=stdout.child_fd,
                stderr=stderr.child_fd,
            )
            async with await self.spawn(piped) as process:
                theirs.close()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stdout.read)
                    nursery.start_soon(stderr.read)
                    if stdin:
                        nursery.start_soon(stdin.write)
                    code = await process.wait()
                    nursery.cancel_scope.cancel()
                stdout.drain()
                stderr.drain()
        truncated = stdout.truncated or stderr.truncated
        return Completed(code, bytes(stdout.content), bytes(stderr.content), truncated)

    async def call(
        self, errand: str, arguments: Mapping[str, JSON], fds: Sequence[int] = ()
    ) -> Answer:
        """Run an errand; ``fds`` stay the caller's. Cancelled, a forked errand is killed before this returns.

        Raises:
            OSError: The errand failed, with the kernel's errno and a text.
        """
        faults.before(faults.Door.SPAWNER, errand)
        answer, _ = await self._ask(errand, dict(arguments), list(fds), command=False)
        faults.after(faults.Door.SPAWNER, errand)
        return answer

    async def _ask(
        self, errand: str, arguments: Message, fds: list[int], *, command: bool
    ) -> tuple[Answer, _Ending | None]:
        if self._gone:
            raise SpawnerGone(_GONE)
        self._number += 1
        number = self._number
        message: Message = {"id": number, "errand": errand, "arguments": arguments}
        request = _Request(command)
        ending = _Ending() if command else None
        await self._send(message, fds, number, request, ending)
        try:
            await request.answered.wait()
        except trio.Cancelled:
            await self._abandon(number, request)
            raise
        match request.outcome:
            case Answer() as answer:
                return answer, ending
            case OSError() | RuntimeError() as failure:
                raise failure
            case _:
                raise SpawnerGone(_GONE)

    async def _send(
        self,
        message: Message,
        fds: Sequence[int],
        number: int,
        request: _Request,
        ending: _Ending | None,
    ) -> None:
        """Send, and from the same moment on expect the answer."""
        packet, memfd = spawner_wire.pack(message | {"fds": len(fds)})
        self._requests[number] = request
        if ending:
            self._endings[number] = ending
        try:
            passed = list(fds) if memfd is None else [memfd, *fds]
            await self._control.sendmsg([packet], spawner_wire.ancillary(passed))
        except BaseException as failure:
            del self._requests[number]
            self._endings.pop(number, None)
            if isinstance(failure, BrokenPipeError):
                raise SpawnerGone(_GONE) from failure
            raise
        finally:
            if memfd is not None:
                os.close(memfd)

    async def _abandon(self, number: int, request: _Request) -> None:
        """The one who asked was cancelled: end the child, and dispose of the answer when it comes."""
        with tasks.finish_within(DISPOSAL_SECONDS_MAX):
            if not request.answered.is_set():
                with contextlib.suppress(BrokenPipeError):
                    await self._control.sendmsg([spawner_wire.pack({"cancel": number})[0]])
            await request.answered.wait()
            if request.command and isinstance(request.outcome, Answer):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(request.outcome.fds[0], signal.SIGKILL)
                ending = self._endings.get(number)
                if ending:
                    await ending.event.wait()
        if isinstance(request.outcome, Answer):
            for fd in request.outcome.fds:
                os.close(fd)
        else:
            self._requests.pop(
                number, None
            )  # the helper is stuck; _answer disposes of what still comes

    async def read_answers(self) -> None:
        """The one task that reads; raises when the helper ends by itself."""
        try:
            while True:
                packet, received, _, _ = await self._control.recvmsg(
                    spawner_wire.PACKET_BYTES_MAX,
                    spawner_wire.ANCILLARY_BYTES,
                    spawner_wire.RECEIVE_FLAGS,
                )
                if not packet:
                    raise SpawnerGone(_GONE)
                fds = spawner_wire.received_fds(received)
                message = spawner_wire.unpack(packet, fds)
                if "ended" in message:
                    self._ended(message)
                else:
                    self._answered(message, fds)
        finally:
            self._gone = True
            for request in self._requests.values():
                request.answered.set()
            for ending in self._endings.values():
                ending.event.set()

    def _ended(self, message: Message) -> None:
        number, status = message["ended"], message["status"]
        assert isinstance(number, int)
        assert isinstance(status, int)
        ending = self._endings.pop(number, None)
        if ending:
            ending.code = status
            ending.event.set()

    def _answered(self, message: Message, fds: list[int]) -> None:
        number = message["id"]
        assert isinstance(number, int)
        request = self._requests.pop(number, None)
        outcome = _outcome(message, fds)
        if request is None:
            if isinstance(outcome, Answer):
                for fd in outcome.fds:
                    os.close(fd)
            return
        if request.command and not isinstance(outcome, Answer):
            self._endings.pop(number, None)
        request.outcome = outcome
        request.answered.set()


def _outcome(message: Message, fds: list[int]) -> Answer | OSError | RuntimeError:
    if not spawner_wire.complete(message, fds):
        return OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    match message:
        case {"error": {"errno": int(number), "text": str(text)}}:
            return OSError(number, text)
        case {"bug": str(text)}:
            return RuntimeError(f"an errand failed:\n{text}")
        case _:
            return Answer(message.get("value"), tuple(fds))


def _arguments(command: Command) -> tuple[Message, list[int]]:
    """The command as JSON, its fds replaced by places in the list that travels along."""
    fds: list[int] = []

    def passed(fd: int | None) -> int | None:
        if fd is None:
            return None
        fds.append(fd)
        return len(fds) - 1

    placement: dict[str, JSON] = {}
    for target, fd in zip(STDIO, (command.stdin, command.stdout, command.stderr), strict=True):
        placement[str(target)] = passed(fd)
    for target, fd in command.keep_fds.items():
        placement[str(target)] = passed(fd)
    arguments: Message = {
        "argv": list(command.argv),
        "env": dict(command.env),
        "cwd": command.cwd,
        "placement": placement,
        "cgroups": [passed(fd) for fd in command.cgroup_fds],
        "namespaces": [passed(fd) for fd in command.namespaces],
        "identity": command.identity.arguments() if command.identity else None,
        "host_mounts": command.host_mounts,
        "dies_with_daemon": command.dies_with_daemon,
        "subreaper": command.subreaper,
    }
    return arguments, fds


def start_spawner(run_root: Path, instance: str = "bakehouse") -> SpawnerSeed:
    """Start the helper, standing in M, and wait until it is ready. Called before the first thread.

    It must be called in the main thread: the helper is killed when the thread that started it ends.

    Args:
        run_root: The daemon's run directory; M is pinned in ``pins`` there.
        instance: Shown in the helper's command line.

    Raises:
        Unavailable: This host does not let us: not root, no private mount namespace.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        helper = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", spawner_process.__file__),
                *(str(theirs.fileno()), str(os.getpid()), str(run_root.resolve()), instance),
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    ours.settimeout(READY_SECONDS_MAX)
    try:
        received = spawner_wire.receive(ours)
    except TimeoutError:
        received = None
    match received:
        case ({"value": int()}, []):
            ours.setblocking(False)
            return SpawnerSeed(ours, helper)
        case ({"error": {"text": str(why)}}, _):
            pass
        case _:
            why = "the helper process does not start"
    ours.close()
    helper.kill()
    helper.wait()
    message = f"cannot make the daemon's mount namespace in {run_root}: {why}"
    raise Unavailable(message, hint="the daemon needs root, with CAP_SYS_ADMIN")


@contextlib.asynccontextmanager
async def open_spawner(seed: SpawnerSeed) -> AsyncIterator[Spawner]:
    """Serve requests; at the end the helper is told to go, with its errands and the commands that die with us.

    Raises:
        SpawnerGone: The helper ended by itself; everything inside is cancelled.
    """
    control = trio.socket.from_stdlib_socket(seed.control)
    spawner = Spawner(control)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spawner.read_answers)
            yield spawner
            nursery.cancel_scope.cancel()
    finally:
        control.close()
        await _wait_for_helper(seed.helper)


async def _wait_for_helper(helper: subprocess.Popen[bytes]) -> None:
    with tasks.finish_within(DISPOSAL_SECONDS_MAX) as scope:
        pidfd = os.pidfd_open(helper.pid)
        try:
            await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)
    if scope.cancelled_caught:
        helper.kill()
    helper.wait()
    if scope.cancelled_caught:
        message = "the spawner did not end by itself"
        raise Internal(message)
