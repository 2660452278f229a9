"""The spawner's own process: one loop, one thread, no installed packages.

It stands in M, the daemon's mount namespace, and does what must not happen in the daemon itself: starting programs in
cgroups, namespaces and credentials, and mounting. It ends when the daemon does. Run as
``python -I -S spawner_process.py <socket fd> <daemon's pid> <run root>``; see ``spawner.py`` for the other side.

Words: a *command* becomes another program; a forked *errand* is a child of ours that answers for itself.

Rules: nothing here waits for a child, except inside an errand that is short: a command's start is known by its
close-on-exec pipe, its end by SIGCHLD. Orphans below us are reaped too (we are their subreaper).
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from supervisor.linux import errands, mount_namespace, spawner_command, spawner_wire, syscall
from supervisor.linux.errands import Done, Errand, Surroundings
from supervisor.linux.spawner_wire import JSON, Message

FAILURE_TEXT_BYTES_MAX = 4096


@dataclass
class Child:
    """One child of ours: the request it belongs to, and for a command not yet started its pipe."""

    request: int
    command: bool
    dies_with_us: bool
    failure_fd: int | None = None


class Loop:
    """What is in flight, and what to do when something happens."""

    def __init__(self, control: socket.socket, surroundings: Surroundings) -> None:
        self._control = control
        self._surroundings = surroundings
        self._children: dict[int, Child] = {}
        self._starting: dict[int, int] = {}
        self._poll = select.poll()
        self._woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for fd in (self._woken, control.fileno()):
            self._poll.register(fd, select.POLLIN)

    def run(self) -> None:
        """Serve until the daemon closes its end."""
        while True:
            ready = {fd for fd, _ in self._poll.poll()}
            # This order: the number of a pipe closed here may be that of one opened below.
            for fd in ready & self._starting.keys():
                self._started(self._starting[fd])
            if self._woken in ready:
                self._reap()
            if self._control.fileno() in ready and not self._serve():
                return

    def end(self) -> None:
        """Those that die with us are ended and reaped; were we killed, their death signal does it."""
        for pid, child in self._children.items():
            if child.dies_with_us:
                with contextlib.suppress(ProcessLookupError):
                    if child.command:
                        os.kill(pid, signal.SIGKILL)
                    else:
                        os.killpg(pid, signal.SIGKILL)
        for pid, child in self._children.items():
            if child.dies_with_us:
                os.waitpid(pid, 0)

    def _serve(self) -> bool:
        try:
            received = spawner_wire.receive(self._control)
        except ConnectionResetError:
            received = None
        if received is None:
            return False
        message, fds = received
        if "cancel" in message:
            self._cancel(message["cancel"])
            return True
        try:
            self._take(message, fds)
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _take(self, message: Message, fds: list[int]) -> None:
        request, name = message["id"], message["errand"]
        arguments = message["arguments"]
        assert isinstance(request, int)
        assert isinstance(arguments, dict)
        if not spawner_wire.complete(message, fds):
            self._answer(request, OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
        elif name == "spawn":
            self._spawn(request, arguments, fds)
        else:
            one = errands.ERRANDS[str(name)]
            if one.forked:
                self._fork(request, one, arguments, fds)
            else:
                self._answer(request, self._outcome(one, arguments, fds))

    def _spawn(self, request: int, arguments: errands.Arguments, fds: list[int]) -> None:
        if not spawner_command.is_plain(arguments):
            self._fork_command(request, arguments, fds)
            return
        try:
            pid = spawner_command.start_plain(arguments, fds)
        except OSError as refused:
            self._answer(request, refused)
            return
        self._children[pid] = Child(request, command=True, dies_with_us=False)
        self._answer(request, Done(pid, (os.pidfd_open(pid),)))

    def _fork_command(self, request: int, arguments: errands.Arguments, fds: list[int]) -> None:
        failure, failure_end = os.pipe2(os.O_CLOEXEC)
        try:
            pid = os.fork()
        except OSError as refused:
            os.close(failure)
            os.close(failure_end)
            self._answer(request, refused)
            return
        if pid == 0:
            spawner_command.become(arguments, fds, self._surroundings, failure_end)
        os.close(failure_end)
        self._children[pid] = Child(
            request,
            command=True,
            dies_with_us=errands.flag(arguments, "dies_with_daemon"),
            failure_fd=failure,
        )
        self._starting[failure] = pid
        self._poll.register(failure, select.POLLIN)

    def _started(self, pid: int) -> None:
        """The pipe of a starting command ended (it runs now) or says why it does not."""
        child = self._children[pid]
        failure_fd = child.failure_fd
        if failure_fd is None:
            return
        text = os.read(failure_fd, FAILURE_TEXT_BYTES_MAX).decode(errors="surrogateescape")
        child.failure_fd = None
        del self._starting[failure_fd]
        self._poll.unregister(failure_fd)
        os.close(failure_fd)
        if text:
            number, _, why = text.partition(" ")
            self._answer(child.request, OSError(int(number), why))
            return
        self._answer(child.request, Done(pid, (os.pidfd_open(pid),)))

    def _fork(
        self, request: int, one: Errand, arguments: errands.Arguments, fds: list[int]
    ) -> None:
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as refused:
            self._answer(request, refused)
            return
        if pid:
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)
            self._children[pid] = Child(request, command=False, dies_with_us=True)
            return
        code = 1
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            spawner_command.restore_signals()
            spawner_command.die_with(parent)
            self._answer(request, self._outcome(one, arguments, fds))
            code = 0
        finally:
            os._exit(code)

    def _outcome(
        self, one: Errand, arguments: errands.Arguments, fds: Sequence[int]
    ) -> Done | OSError | str:
        try:
            return one.work(arguments, fds, self._surroundings)
        except OSError as failure:
            return failure
        except Exception:  # noqa: BLE001  # a bug: it crashes the daemon, where it is seen
            return traceback.format_exc()

    def _answer(self, request: int, outcome: Done | OSError | str) -> None:
        message: Message = {"id": request}
        fds: tuple[int, ...] = ()
        match outcome:
            case Done():
                message["value"], fds = outcome.value, outcome.fds
            case OSError():
                message["error"] = _error(outcome)
            case _:
                message["bug"] = outcome
        try:
            spawner_wire.send(self._control, message, fds)
        except BrokenPipeError:
            return  # the daemon has gone; the loop sees it next
        finally:
            for fd in fds:
                os.close(fd)

    def _cancel(self, request: JSON) -> None:
        for pid, child in self._children.items():
            if child.request == request:
                with contextlib.suppress(ProcessLookupError):
                    if child.command:
                        os.kill(pid, signal.SIGKILL)
                    else:
                        os.killpg(pid, signal.SIGKILL)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._woken, 4096):
                pass
        with contextlib.suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                self._ended(ended.si_pid)

    def _ended(self, pid: int) -> None:
        child = self._children.get(pid)
        if child is None:
            os.waitpid(pid, 0)
            return
        if child.failure_fd is not None:
            self._started(pid)
        if not child.command:
            # Whatever it left in its group goes with it; its pid is not free before it is reaped.
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        del self._children[pid]
        code = os.waitstatus_to_exitcode(status)
        if child.command:
            with contextlib.suppress(BrokenPipeError):
                spawner_wire.send(self._control, {"ended": child.request, "status": code})
        elif code:
            self._answer(child.request, OSError(errno.ECANCELED, "it was ended before it answered"))


def _error(failure: OSError) -> JSON:
    return {"errno": failure.errno or errno.EIO, "text": failure.strerror or str(failure)}


def main(arguments: Sequence[str]) -> None:
    """Enter M, say that we are ready, serve."""
    control = socket.socket(fileno=int(arguments[0]))
    control.set_inheritable(False)
    spawner_command.die_with(int(arguments[1]))
    os.umask(0o022)
    os.chdir("/")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(
            number, signal.SIG_IGN
        )  # the daemon decides when we end: by closing the socket
    syscall.name_process("bakehouse-spawn")
    syscall.prctl(syscall.PR_SET_CHILD_SUBREAPER, 1)
    run_root = Path(arguments[2])
    host_mounts_fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        mount_namespace.enter(run_root)
    except OSError as failure:
        spawner_wire.send(control, {"id": 0, "error": _error(failure)})
        return
    own_mounts_fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    errands.load()
    gc.collect()
    gc.freeze()
    loop = Loop(control, Surroundings(run_root, host_mounts_fd, own_mounts_fd))
    spawner_wire.send(control, {"id": 0, "value": os.getpid()})
    try:
        loop.run()
    finally:
        loop.end()


if __name__ == "__main__":
    main(sys.argv[1:])
